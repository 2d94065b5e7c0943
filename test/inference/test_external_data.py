# SPDX-License-Identifier: Apache-2.0
"""A model with weights in other files, which its checksum does not cover, is refused everywhere.

The checksum of a network is that of the loaded bytes, even if the file is replaced meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx_files import write_recognizer

from scrfd_ros.cli.main import main
from scrfd_ros.engines.open import open_network
from scrfd_ros.errors import ModelError
from scrfd_ros.inference import onnx_runtime
from scrfd_ros.inference.load import load_network
from scrfd_ros.inference.onnx_file import external_files
from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork


@pytest.fixture
def split(tmp_path: Path, detector_path: Callable[[str], Path]) -> Path:
    """The 500m with its weights in a file beside it."""
    path = tmp_path / "split model.onnx"
    model = onnx.load(str(detector_path("500m")))
    onnx.save_model(model, str(path), save_as_external_data=True, location="weights.bin")
    assert (tmp_path / "weights.bin").stat().st_size > 1_000_000
    return path


@pytest.mark.parametrize("load", [load_network, OnnxRuntimeNetwork, open_network])
@pytest.mark.parametrize("is_there", [True, False], ids=["data there", "data missing"])
def test_refused_with_the_remedy(
    split: Path, load: Callable[[Path], object], is_there: bool
) -> None:
    if not is_there:
        (split.parent / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"weights are in other files \(weights\.bin\)") as caught:
        load(split)
    message = str(caught.value)
    assert message.startswith(f"{split}: ") and "\n" not in message
    if not is_there:
        return
    # The command in the error makes a file that is accepted.
    command = shlex.split(message[message.index("python3 -c") :])
    subprocess.run(command, check=True)
    assert load_network(split.parent / "split model_whole.onnx")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_convert_writes_nothing(
    split: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = split.parent / "result.onnx"
    assert main(["convert", str(split), str(result), "--precision", precision]) == 2
    assert "weights.bin" in capsys.readouterr().err
    assert not result.exists()


@pytest.mark.usefixtures("simulated_gpu")
def test_no_engine_is_taken_for_it(split: Path) -> None:
    with pytest.raises(ModelError, match=r"weights\.bin"):
        open_network(split, "tensorrt")


def external(name: str, location: str = "outside.bin") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def constant(location: str = "outside.bin") -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=external("c", location))


def graph(nodes: list[onnx.NodeProto], *tensors: TensorProto) -> onnx.GraphProto:
    return helper.make_graph(nodes, "graph", [], [], list(tensors))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: graph([], external("w")), id="weights"),
        pytest.param(lambda: graph([], external("w", "../../etc/passwd")), id="outside the folder"),
        pytest.param(lambda: graph([constant()]), id="a constant"),
        pytest.param(
            lambda: graph(
                [helper.make_node("If", ["x"], ["y"], then_branch=graph([constant()]))]
            ),
            id="a constant in a branch",
        ),
        pytest.param(
            lambda: graph(
                [helper.make_node("Loop", ["x"], ["y"], bodies=[graph([], external("w"))])]
            ),
            id="weights of a list of graphs",
        ),
    ],
)  # fmt: skip
def test_found_wherever_it_is(make: Callable[[], onnx.GraphProto]) -> None:
    assert len(external_files(helper.make_model(make()).SerializeToString())) == 1


def test_found_in_sparse_weights_and_functions() -> None:
    model = helper.make_model(graph([]))
    model.graph.sparse_initializer.add().values.CopyFrom(external("w", "sparse.bin"))
    function = model.functions.add()
    function.node.append(constant("function.bin"))
    assert external_files(model.SerializeToString()) == ["function.bin", "sparse.bin"]


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"hello, world", b"\x3a\xff\xff"])
def test_what_is_no_model_has_none(content: bytes) -> None:
    assert external_files(content) == []


def test_real_models_have_none(
    detector_path: Callable[[str], Path], recognizer_path: Callable[[str], Path]
) -> None:
    for path in (detector_path("2.5g"), recognizer_path("w600k_mbf")):
        assert external_files(path.read_bytes()) == []


def replacing(
    monkeypatch: pytest.MonkeyPatch, replace: Callable[[], object], times: int
) -> list[None]:
    """Call `replace` just before ONNX Runtime reads a file, the first `times` times."""
    real = onnxruntime.InferenceSession
    done: list[None] = []

    def session(*arguments: Any, **options: Any) -> onnxruntime.InferenceSession:
        if len(done) < times:
            done.append(None)
            replace()
        return real(*arguments, **options)

    monkeypatch.setattr(onnx_runtime.onnxruntime, "InferenceSession", session)
    return done


@pytest.mark.parametrize("how", ["renamed", "copied", "garbage first"])
def test_a_file_replaced_while_it_is_read(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_recognizer(tmp_path / "any.onnx")
    other = write_recognizer(tmp_path / "other.onnx", dimensions=256)
    if how == "garbage first":
        path.write_bytes(b"half a model")

    def replace() -> None:
        shutil.copy(other, tmp_path / "new")
        if how == "copied":
            shutil.copy(other, path)
        else:
            os.replace(tmp_path / "new", path)

    done = replacing(monkeypatch, replace, 1)
    network = OnnxRuntimeNetwork(path)
    # The new file is the one that runs.
    assert network.sha256 == hashlib.sha256(other.read_bytes()).hexdigest()
    assert len(done) == 1
    (embedding,) = network({"input.1": np.zeros((1, 3, 112, 112), np.float32)}).values()
    assert embedding.shape == (1, 256)


def test_a_file_that_is_replaced_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_recognizer(tmp_path / "any.onnx")
    done = replacing(monkeypatch, lambda: write_recognizer(path), 100)
    with pytest.raises(ModelError, match=r"any\.onnx: was replaced 3 times while it was being"):
        OnnxRuntimeNetwork(path)
    assert len(done) == 3


def test_a_file_replaced_before_it_is_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from scrfd_ros.cli import convert

    path = write_recognizer(tmp_path / "any.onnx")
    real = convert.load_model

    def load_and_replace(*args: Any) -> object:
        network = real(*args)
        write_recognizer(path, normalizes_input=True)
        return network

    monkeypatch.setattr(convert, "load_model", load_and_replace)
    assert main(["convert", str(path), str(tmp_path / "result.onnx"), "--precision", "fp32"]) == 2
    assert "any.onnx: was replaced while it was being used" in capsys.readouterr().err
    assert not (tmp_path / "result.onnx").exists()
