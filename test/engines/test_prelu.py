# SPDX-License-Identifier: Apache-2.0
"""PRelu as convolutions: the same embeddings in less time, with ONNX Runtime on a processor."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx_files import write_graph, write_recognizer

from scrfd_ros.engines import prelu
from scrfd_ros.engines.open import open_network
from scrfd_ros.engines.prelu import (
    PRELU,
    check_embeddings,
    is_faster_without,
    load_without_prelu,
    with_convolutions,
)
from scrfd_ros.errors import ModelError
from scrfd_ros.inference import onnx_runtime
from scrfd_ros.inference.load import load_network
from scrfd_ros.inference.network import Network
from scrfd_ros.recognition.arcface import ArcFace

SLOPES = np.array([-0.5, 0, 0.25, 1, 3], np.float32)  # of both signs, and above 1


@pytest.fixture
def recognizer(recognizer_path: Callable[[str], Path], tmp_path: Path) -> Path:
    """The published recognizer in a folder of its own."""
    path = tmp_path / "w600k_mbf.onnx"
    path.symlink_to(recognizer_path("w600k_mbf"))
    return path


def write_prelu(path: Path, slopes: NDArray[np.generic], *, packed: bool = False) -> Path:
    nodes = [helper.make_node("PRelu", ["input.1", "slopes"], ["out"])]
    shape = (1, 5, 2, 2)
    write_graph(path, nodes, shape, {"out": shape}, {"slopes": slopes})
    if packed:
        model = onnx.load(str(path))
        del model.graph.initializer[:]
        tensor = helper.make_tensor("slopes", onnx.TensorProto.FLOAT, slopes.shape, slopes.ravel())
        model.graph.initializer.append(tensor)
        onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "packed"])
def test_every_slope(tmp_path: Path, packed: bool) -> None:
    path = write_prelu(tmp_path / "a.onnx", SLOPES.reshape(5, 1, 1), packed=packed)
    content = with_convolutions(path.read_bytes())
    assert content == with_convolutions(path.read_bytes())
    changed = onnx.load_from_string(content)
    onnx.checker.check_model(changed, full_check=True)
    assert "PRelu" not in {node.op_type for node in changed.graph.node}
    (tmp_path / "b.onnx").write_bytes(content)
    values = np.random.default_rng(0).standard_normal((1, 5, 2, 2)).astype(np.float32)
    found, expected = (
        load_network(tmp_path / name)({"input.1": values})["out"] for name in ("b.onnx", "a.onnx")
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(found[values > 0], values[values > 0])


@pytest.mark.parametrize(
    "slopes",
    [
        pytest.param(np.float32([[[0.25]]]).repeat(2, axis=2), id="along the row"),
        pytest.param(np.float32([0.25]), id="one for all"),
        pytest.param(np.float32(0.25), id="a number"),
        pytest.param(np.zeros((0, 1, 1), np.float64), id="none, and double"),
    ],
)
def test_other_slopes_stay(tmp_path: Path, slopes: NDArray[np.generic]) -> None:
    path = write_prelu(tmp_path / "a.onnx", slopes)
    with pytest.raises(ModelError, match="no PRelu with a constant slope for each channel"):
        with_convolutions(path.read_bytes())


def test_slopes_that_are_computed_stay(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["some"], ["slopes"]),
        helper.make_node("PRelu", ["input.1", "slopes"], ["out"]),
    ]
    shape = (1, 5, 2, 2)
    some = {"some": SLOPES.reshape(5, 1, 1)}
    path = write_graph(tmp_path / "a.onnx", nodes, shape, {"out": shape}, some)
    with pytest.raises(ModelError, match="no PRelu"):
        with_convolutions(path.read_bytes())


def test_a_quantized_model_stays(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["input.1", "scale", "zero"], ["steps"]),
        helper.make_node("DequantizeLinear", ["steps", "scale", "zero"], ["near"]),
        helper.make_node("PRelu", ["near", "slopes"], ["out"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "slopes": SLOPES.reshape(5, 1, 1),
        "scale": np.float32(0.01),
        "zero": np.int8(0),
    }
    shape = (1, 5, 2, 2)
    path = write_graph(tmp_path / "a.onnx", nodes, shape, {"out": shape}, constants)
    assert not is_faster_without(path)
    assert load_without_prelu(path).path == path


def test_the_rest_of_the_file_stays(recognizer: Path) -> None:
    content = recognizer.read_bytes()
    original, changed = map(onnx.load_from_string, (content, with_convolutions(content)))
    assert changed.graph.initializer == original.graph.initializer
    kinds = [[node.op_type for node in model.graph.node] for model in (original, changed)]
    assert kinds[0].count("PRelu") == 34 and "PRelu" not in kinds[1]
    assert kinds[1].count("Conv") == kinds[0].count("Conv") + 2 * 34
    named = {node.output[0]: node for node in changed.graph.node}
    assert all(
        named[node.output[0]] == node for node in original.graph.node if node.op_type != "PRelu"
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="changed on x86_64 only")
def test_the_published_recognizer(recognizer: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        network = open_network(recognizer, "onnxruntime")
        open_network(recognizer, "onnxruntime")
    assert network.path == recognizer.parent / "adapted" / "prelu" / "w600k_mbf.onnx"
    assert caplog.text.count("changed (prelu) and checked, once") == 1
    original = load_network(recognizer)
    # What users are told of the model is what they know.
    assert (network.name, network.sha256) == (original.name, original.sha256)
    crops = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), np.uint8)
    (found, norms), (expected, lengths) = (
        ArcFace(each).embed(crops) for each in (network, original)
    )
    assert (found * expected).sum(axis=1).min() > 0.99999
    np.testing.assert_allclose(norms, lengths, rtol=1e-5)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="changed on x86_64 only")
def test_it_is_faster(recognizer: Path) -> None:
    """0.63 of the processor time were measured. One thread, as others wait in a loop."""
    networks = [load(recognizer, threads=1) for load in (load_without_prelu, load_network)]
    changed, original = (
        min(times) for times in zip(*(turn(networks) for _ in range(5)), strict=True)
    )
    assert changed < 0.85 * original


def turn(networks: Sequence[Network]) -> list[float]:
    """Seconds of processor time of each network for one face."""
    blob = {"input.1": np.random.default_rng(0).standard_normal((1, 3, 112, 112), np.float32)}
    times = []
    for network in networks:
        start = time.process_time()
        network(blob)
        times.append(time.process_time() - start)
    return times


def test_a_changed_embedding_is_refused(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.onnx", "b.onnx")]
    for path in paths:
        write_recognizer(path)
    model = onnx.load(str(paths[1]))
    (weights,) = (each for each in model.graph.initializer if each.name == "weights")
    values = numpy_helper.to_array(weights).copy()
    values[:, 0] += 0.1
    weights.CopyFrom(numpy_helper.from_array(values, "weights"))
    onnx.save(model, str(paths[1]))
    with pytest.raises(ModelError, match="its embeddings change: min cosine"):
        check_embeddings(*map(load_network, paths))


def test_other_networks_are_loaded_as_they_are(
    tmp_path: Path, detector_path: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    """One without PRelu, and one with it that is no recognizer, which is told once."""
    prelu._log_slower.cache_clear()
    detector = detector_path("500m")
    assert load_without_prelu(detector).path == detector
    assert not caplog.records
    path = write_prelu(tmp_path / "a.onnx", SLOPES.reshape(5, 1, 1))
    assert load_without_prelu(path).path == load_without_prelu(path).path == path
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{path}: runs slower than it could, with PRelu as it is: {tmp_path}" in caplog.text


@pytest.mark.parametrize("content", [b"", b"hello, world\n", b"\x3a\x05abc"])
def test_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"a\.onnx: not an ONNX model"):
        load_without_prelu(path)


def test_not_where_another_device_may_run_it(
    recognizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert load_without_prelu(recognizer).path == recognizer
    monkeypatch.undo()
    with monkeypatch.context() as patch:
        providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        patch.setattr(onnx_runtime.onnxruntime, "get_available_providers", lambda: providers)
        assert not onnx_runtime.uses_processor()
    assert PRELU.name == "prelu"
    assert not (recognizer.parent / "adapted").exists()
