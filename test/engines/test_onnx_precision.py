# SPDX-License-Identifier: Apache-2.0
"""Models in float16 and int8 find and recognize the same people, in the form for TensorRT.

The converted models run in ONNX Runtime here; test_build.py builds engines from them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.engines.agreement import compare_detectors, compare_outputs, compare_recognizers
from scrfd_ros.engines.build import build_engine
from scrfd_ros.engines.onnx_precision import to_fp16, to_int8
from scrfd_ros.inference.engine_file import ShapeRange
from scrfd_ros.inference.network import Network
from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.recognition.arcface import ArcFace

CALIBRATION = ("gdp.jpg", "obama2.jpg", "obama3.jpg")
TEST = ("t1.jpg", "players.jpg", "yaoming.jpg")

Images = Callable[[str], NDArray[np.uint8]]
Paths = Callable[[str], Path]

every_detector = pytest.mark.parametrize("name", ["500m", "2.5g", "det_500m"])


@pytest.fixture(scope="module")
def crops(detector_path: Paths, image: Images) -> Callable[[tuple[str, ...]], NDArray[np.uint8]]:
    """The aligned faces of some images."""
    detector = Scrfd(OnnxRuntimeNetwork(detector_path("2.5g")))

    def cut(names: tuple[str, ...]) -> NDArray[np.uint8]:
        found = [(image(name), detector.detect(image(name)).landmarks) for name in names]
        return np.concatenate([align_faces(*pair) for pair in found if pair[1] is not None])

    return cut


def calibration(network: Network, image: Images) -> list[NDArray[np.float32]]:
    """Inputs of a detector."""
    detector = Scrfd(network)
    images = [image(name) for name in CALIBRATION]
    return [batch.blob.copy() for batch in detector.prepare(images)]


def load(content: bytes, folder: Path) -> Network:
    path = folder / "converted.onnx"
    path.write_bytes(content)
    return OnnxRuntimeNetwork(path)


def weight_types(content: bytes) -> set[int]:
    weights = onnx.load_from_string(content).graph.initializer
    return {tensor.data_type for tensor in weights if len(tensor.dims) > 1}


def without_names(path: Path) -> bytes:
    model = onnx.load(str(path))
    for node in model.graph.node:
        node.name = ""
    content: bytes = model.SerializeToString()
    return content


@every_detector
def test_detector_in_fp16(name: str, detector_path: Paths, image: Images, tmp_path: Path) -> None:
    reference = OnnxRuntimeNetwork(detector_path(name))
    content = to_fp16(reference.path.read_bytes())
    assert weight_types(content) == {TensorProto.FLOAT16}
    candidate = load(content, tmp_path)  # which accepts float32 inputs and outputs only
    assert (candidate.inputs, candidate.outputs) == (reference.inputs, reference.outputs)
    agreement = compare_detectors(
        candidate, reference, [image(name) for name in TEST], precision="fp16"
    )
    assert agreement.accepted, agreement.failures
    assert agreement.figures["max_score_difference"] > 0  # else nothing was converted


def test_recognizer_in_fp16(
    recognizer_path: Paths, crops: Callable[..., NDArray[np.uint8]], tmp_path: Path
) -> None:
    reference = OnnxRuntimeNetwork(recognizer_path("w600k_mbf"))
    candidate = load(to_fp16(reference.path.read_bytes()), tmp_path)
    agreement = compare_recognizers(candidate, reference, crops(TEST), "fp16")
    assert agreement.accepted, agreement.failures
    assert agreement.figures["min_cosine"] < 1


@every_detector
def test_detector_in_int8(name: str, detector_path: Paths, image: Images, tmp_path: Path) -> None:
    reference = OnnxRuntimeNetwork(detector_path(name))
    content = to_int8(reference.path.read_bytes(), calibration(reference, image))
    check_quantized(content)
    agreement = compare_detectors(
        load(content, tmp_path), reference, [image(name) for name in TEST], precision="int8"
    )
    assert agreement.accepted, agreement.failures


def test_recognizer_in_int8(
    recognizer_path: Paths, crops: Callable[..., NDArray[np.uint8]], tmp_path: Path
) -> None:
    reference = OnnxRuntimeNetwork(recognizer_path("w600k_mbf"))
    batches = ArcFace(reference).prepare(crops(CALIBRATION))[:, None]
    content = to_int8(reference.path.read_bytes(), batches)
    check_quantized(content)
    agreement = compare_recognizers(load(content, tmp_path), reference, crops(TEST), "int8")
    assert agreement.accepted, agreement.failures


def check_quantized(content: bytes) -> None:
    """TensorRT's documented rules for quantized models: pairs, symmetric, no bias."""
    model = onnx.load_from_string(content)
    assert model.opset_import[0].version >= 13  # the first with a scale for each channel
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}

    def pair_before(name: str) -> onnx.NodeProto | None:
        """The QuantizeLinear of the pair that outputs this value."""
        maker = makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear":
            return None
        return makers[maker.input[0]]

    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = (constants[name] for name in node.input[1:])
            assert (scale > 0).all() and zero.dtype == np.int8 and not zero.any()
        if node.op_type in ("Conv", "Gemm"):
            grouped = any(item.name == "group" and item.i > 1 for item in node.attribute)
            value, weight, *bias = (pair_before(name) for name in node.input)
            assert bias in ([], [None])
            if grouped:
                assert weight is None
            else:
                assert value is not None and weight is not None
                assert constants[value.input[1]].shape == ()
                assert constants[weight.input[1]].shape == constants[weight.input[0]].shape[:1]


@every_detector
def test_tensorrt_takes_quantized_detectors(name: str, detector_path: Paths, image: Images) -> None:
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="needs the packages of TensorRT-RTX")
    reference = OnnxRuntimeNetwork(detector_path(name))
    content = to_int8(reference.path.read_bytes(), calibration(reference, image)[:1])
    shape = (1, 3, 640, 640)
    assert build_engine(trt, content, ShapeRange(shape, shape, shape), "int8")


def test_nodes_without_names(recognizer_path: Paths, tmp_path: Path) -> None:
    path = recognizer_path("w600k_mbf")
    noise = np.random.default_rng(0).standard_normal((1, 1, 3, 112, 112)).astype(np.float32)
    for convert in (to_fp16, lambda content: to_int8(content, noise)):
        expected = load(convert(path.read_bytes()), tmp_path)
        found = load(convert(without_names(path)), tmp_path)
        agreement = compare_outputs(found, expected, {"input.1": noise[0]})
        assert agreement.figures["max_relative_difference"] == 0


def test_without_the_package_onnx() -> None:
    program = "import sys; sys.modules['onnx'] = None; import scrfd_ros.engines.onnx_precision"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("scrfd_ros.errors.ModelError: ") and last.endswith(": pip install onnx")
