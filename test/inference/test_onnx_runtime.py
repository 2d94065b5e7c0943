# SPDX-License-Identifier: Apache-2.0
"""An ONNX file becomes a network with its properties, or an error with the reason."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_files import scrfd_outputs, write_detector, write_graph, write_recognizer

from scrfd_ros.errors import ModelError
from scrfd_ros.inference import onnx_runtime
from scrfd_ros.inference.network import Tensor
from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork


def test_says_what_it_is(tmp_path: Path) -> None:
    path = write_recognizer(tmp_path / "any.onnx")
    network = OnnxRuntimeNetwork(path)
    assert network.path == path
    assert network.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert network.backend in ("onnxruntime CPU", "onnxruntime CUDA")
    assert network.inputs == (Tensor("input.1", (None, 3, 112, 112)),)
    assert network.outputs == (Tensor("516", (1, 512)),)
    assert not network.normalizes_input


def test_outputs_by_name(tmp_path: Path) -> None:
    outputs = scrfd_outputs(32, 32)
    network = OnnxRuntimeNetwork(write_detector(tmp_path / "any.onnx", outputs))
    found = network({"input.1": np.zeros((1, 3, 32, 32), np.float32)})
    assert list(found) == list(outputs)
    for name, array in outputs.items():
        np.testing.assert_array_equal(found[name], array)


def test_sees_that_the_graph_normalizes(tmp_path: Path) -> None:
    path = write_recognizer(tmp_path / "mxnet.onnx", normalizes_input=True)
    assert OnnxRuntimeNetwork(path).normalizes_input


@pytest.mark.parametrize("name", ["500m", "2.5g"])
def test_real_detectors_do_not_normalize(detector_path: Callable[[str], Path], name: str) -> None:
    assert not OnnxRuntimeNetwork(detector_path(name)).normalizes_input


def test_pooling_in_fp16(tmp_path: Path) -> None:
    """On aarch64 with FP16, ONNX Runtime gives this pooling a layout that it has no kernel for."""
    nodes = [
        helper.make_node("Cast", ["input.1"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["half", "weights"], ["first"]),
        helper.make_node("MaxPool", ["first"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["pooled", "weights"], ["second"]),
        helper.make_node("Cast", ["second"], ["out"], to=TensorProto.FLOAT),
    ]
    weights = {"weights": np.full((8, 8, 1, 1), 0.5, np.float16)}
    path = write_graph(tmp_path / "half.onnx", nodes, (1, 8, 4, 4), {"out": (1, 8, 2, 2)}, weights)
    found = OnnxRuntimeNetwork(path)({"input.1": np.ones((1, 8, 4, 4), np.float32)})["out"]
    np.testing.assert_array_equal(found, np.full((1, 8, 2, 2), 16))


def test_sub_and_mul_further_on_are_not_normalizing(tmp_path: Path) -> None:
    names = ["input.1", *"abcdefghi", "out"]
    kinds = ["Relu"] * 8 + ["Sub", "Mul"]
    nodes = [
        helper.make_node(kind, [name] if kind == "Relu" else [name, name], [result])
        for kind, name, result in zip(kinds, names, names[1:], strict=False)
    ]
    path = write_graph(tmp_path / "late.onnx", nodes, (1, 4), {"out": (1, 4)}, {})
    assert not OnnxRuntimeNetwork(path).normalizes_input


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "No such file", id="missing"),
        pytest.param(b"", r"not an ONNX model .*\(0 bytes\)", id="empty"),
        pytest.param(b"hello, world\n", r"not an ONNX model .*\(13 bytes\)", id="text"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "not an ONNX", id="Git LFS"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(100), "not an ONNX model", id="an image"),
    ],
)
def test_unusable_files(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        OnnxRuntimeNetwork(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read the model file: Is a directory"):
        OnnxRuntimeNetwork(tmp_path)


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_truncated(tmp_path: Path, detector_path: Callable[[str], Path], share: float) -> None:
    content = detector_path("500m").read_bytes()
    path = tmp_path / "truncated.onnx"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match=r"not an ONNX model .* Fetch the file again"):
        OnnxRuntimeNetwork(path)


def test_a_file_that_only_onnx_runtime_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(content: bytes) -> bool:
        raise ModelError("odd")

    monkeypatch.setattr(onnx_runtime, "normalizes_input", refuse)
    with pytest.raises(ModelError, match=r"odd\.onnx: not a whole ONNX model, \d+ bytes"):
        OnnxRuntimeNetwork(write_recognizer(tmp_path / "odd.onnx"))


def test_graph_with_an_unknown_operator(tmp_path: Path) -> None:
    nodes = [helper.make_node("Fold", ["input.1"], ["out"])]
    path = write_graph(tmp_path / "odd.onnx", nodes, (1, 4), {"out": (1, 4)}, {})
    with pytest.raises(ModelError, match=r"odd\.onnx: not an ONNX model that ONNX Runtime .* load"):
        OnnxRuntimeNetwork(path)


@pytest.mark.parametrize(
    ("given", "wanted", "message"),
    [
        pytest.param("FLOAT16", "FLOAT", r"'input\.1' is tensor\(float16\)", id="half in"),
        pytest.param("UINT8", "FLOAT", r"'input\.1' is tensor\(uint8\)", id="bytes in"),
        pytest.param("FLOAT", "FLOAT16", r"'out' is tensor\(float16\)", id="half out"),
        pytest.param("FLOAT", "INT64", r"'out' is tensor\(int64\)", id="integers out"),
    ],
)
def test_takes_and_gives_only_float32(
    tmp_path: Path, given: str, wanted: str, message: str
) -> None:
    to = getattr(TensorProto, wanted)
    path = write_graph(
        tmp_path / "typed.onnx",
        [helper.make_node("Cast", ["input.1"], ["out"], to=to)],
        (1, 4),
        {"out": (1, 4)},
        {},
        dtype=getattr(TensorProto, given),
        output_dtype=to,
    )
    with pytest.raises(ModelError, match=rf"{message}, expected tensor\(float\)"):
        OnnxRuntimeNetwork(path)


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        pytest.param(
            {"input.1": np.zeros((1, 3, 16, 32), np.float32)}, "Got: 16 Expected: 32", id="size"
        ),
        pytest.param({"input.1": np.zeros((3, 32, 32), np.float32)}, "rank", id="rank"),
        pytest.param({"input.1": np.zeros((1, 3, 32, 32))}, "tensor(double)", id="double"),
        pytest.param({"data": np.zeros((1, 3, 32, 32), np.float32)}, "input.1", id="name"),
        pytest.param({}, "input.1", id="nothing"),
    ],
)
def test_wrong_input(tmp_path: Path, inputs: dict[str, np.ndarray], reason: str) -> None:
    path = write_detector(tmp_path / "any.onnx", scrfd_outputs(32, 32), (1, 3, 32, 32))
    network = OnnxRuntimeNetwork(path)
    with pytest.raises(ModelError) as caught:
        network(inputs)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and reason in message and "\n" not in message
    # It still works after a failure.
    assert network({"input.1": np.zeros((1, 3, 32, 32), np.float32)})


def test_failure_inside_the_graph(tmp_path: Path) -> None:
    network = OnnxRuntimeNetwork(write_recognizer(tmp_path / "one.onnx", "refuses"))
    with pytest.raises(ModelError, match=r"one\.onnx: .*Reshape"):
        network({"input.1": np.zeros((2, 3, 112, 112), np.float32)})


def test_onnx_files_of_these_tests_are_valid(tmp_path: Path) -> None:
    onnx.checker.check_model(str(write_recognizer(tmp_path / "recognizer.onnx")))
    onnx.checker.check_model(str(write_detector(tmp_path / "detector.onnx", scrfd_outputs(32, 32))))


def test_an_error_is_raised_and_not_printed_too(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nodes = [helper.make_node("Reshape", ["input.1", "shape"], ["out"])]
    constants = {"shape": np.array([1, 4])}
    path = write_graph(tmp_path / "fixed.onnx", nodes, ("n", 4), {"out": (1, 4)}, constants)
    network = OnnxRuntimeNetwork(path)
    with pytest.raises(ModelError, match=r"fixed\.onnx: .* cannot be reshaped"):
        network({"input.1": np.zeros((2, 4), np.float32)})
    assert capfd.readouterr().err == ""
