# SPDX-License-Identifier: Apache-2.0
"""Engines built and run on a real GPU agree with ONNX Runtime. `./run.sh test-gpu` runs these."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layer_plans import write_arcface, write_scrfd
from numpy.typing import NDArray
from pipelines import detector_of, loaded

from scrfd_ros.config import DetectorConfig, PipelineConfig, RecognizerConfig
from scrfd_ros.engines.agreement import compare_outputs
from scrfd_ros.engines.build import build_engine
from scrfd_ros.engines.convert import Settings, convert, verify
from scrfd_ros.engines.open import open_network
from scrfd_ros.errors import BackendError
from scrfd_ros.inference.cuda import device_memory
from scrfd_ros.inference.cuda_api import cuda_api
from scrfd_ros.inference.engine_file import ShapeRange, metadata_path
from scrfd_ros.inference.load import load_network
from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork
from scrfd_ros.inference.tensorrt import TensorRtNetwork
from scrfd_ros.inference.tensorrt_library import load_tensorrt
from scrfd_ros.pipeline import load_pipeline

try:
    load_tensorrt()
    cuda_api()
except BackendError as error:
    pytest.skip(str(error), allow_module_level=True)

LONGEST_BUILD = 600  # seconds
DETECTORS = ("500m", "2.5g", "det_500m")


@pytest.fixture(scope="module")
def engine(
    tmp_path_factory: pytest.TempPathFactory,
    detector_path: Callable[[str], Path],
    recognizer_path: Callable[[str], Path],
) -> Callable[[str, str], Path]:
    """The engine of a model of the catalogue in a precision, built once."""
    folder = tmp_path_factory.mktemp("engines")

    def build(name: str, precision: str) -> Path:
        path = folder / f"{name}-{precision}.engine"
        if not path.exists():
            model = detector_path(name) if name in DETECTORS else recognizer_path(name)
            metadata = convert(model, path, Settings(precision))
            assert metadata.precision == precision, metadata.options
            print(f"{path.stem} on {metadata.platform}: {metadata.agreement}")
        return path

    return build


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", [*DETECTORS, "w600k_mbf"])
def test_agrees_with_the_model(
    name: str, precision: str, engine: Callable[[str, str], Path]
) -> None:
    assert load_network(engine(name, precision)).backend.endswith(precision)


def test_same_result_every_time(engine: Callable[[str, str], Path]) -> None:
    network = load_network(engine("2.5g", "fp16"))
    (tensor,) = network.inputs
    noise = np.random.default_rng(0).standard_normal((1, 3, 640, 640)).astype(np.float32)
    first = {name: array.copy() for name, array in network({tensor.name: noise}).items()}
    for _ in range(100):
        for name, array in network({tensor.name: noise}).items():
            np.testing.assert_array_equal(array, first[name])


def test_cuda_graph_changes_nothing(engine: Callable[[str, str], Path]) -> None:
    path = engine("2.5g", "fp16")
    plain, graph = load_network(path), load_network(path, cuda_graph=True)
    (tensor,) = plain.inputs
    random = np.random.default_rng(0)
    for _ in range(5):
        noise = random.standard_normal((1, 3, 640, 640)).astype(np.float32)
        expected = plain({tensor.name: noise})
        for name, array in graph({tensor.name: noise}).items():
            np.testing.assert_array_equal(array, expected[name])


def test_a_cuda_graph_for_each_shape(engine: Callable[[str, str], Path]) -> None:
    path = engine("w600k_mbf", "fp16")
    plain, graph = load_network(path), load_network(path, cuda_graph=True)
    (tensor,), (output,) = plain.inputs, plain.outputs
    random = np.random.default_rng(0)
    # More shapes than are recorded, some of them again after others.
    for number in (1, 2, 1, 2, *range(3, 12), 1, 2, 11, 8, 1):
        noise = random.standard_normal((number, 3, 112, 112)).astype(np.float32)
        expected = plain({tensor.name: noise})[output.name]
        np.testing.assert_array_equal(graph({tensor.name: noise})[output.name], expected)


@pytest.mark.parametrize("cuda_graph", [False, True], ids=["one by one", "graph"])
@pytest.mark.parametrize("name", ["500m", "2.5g"])
def test_device_draws_and_chooses_as_the_processor_does(
    name: str,
    cuda_graph: bool,
    engine: Callable[[str, str], Path],
    image: Callable[[str], NDArray[np.uint8]],
) -> None:
    network = load_network(engine(name, "fp16"), cuda_graph=cuda_graph)
    detector = detector_of(network, large_faces=True, tiles=(2, 1))
    assert detector._first.device is not None, "see the log"
    photograph = image("t1.jpg")
    for picture in (photograph, photograph[:, ::-1], photograph[::2, ::2], photograph[:333]):
        (found,) = detector.detect_all([picture])
        (expected,) = detector.decode(map(detector.infer, detector.prepare([picture])))
        assert len(found) == len(expected) > 0
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1)
        np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=1)
        np.testing.assert_allclose(found.scores, expected.scores, atol=0.02)


@pytest.mark.parametrize("number", [1, 2, 7, 32])
def test_batches(
    number: int, engine: Callable[[str, str], Path], recognizer_path: Callable[[str], Path]
) -> None:
    network = load_network(engine("w600k_mbf", "fp32"))
    reference = OnnxRuntimeNetwork(recognizer_path("w600k_mbf"))
    (tensor,), (output,) = network.inputs, network.outputs
    noise = np.random.default_rng(number).standard_normal((number, 3, 112, 112))
    inputs = {tensor.name: noise.astype(np.float32)}
    found, expected = network(inputs)[output.name], reference(inputs)[output.name]
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((found * expected).sum(axis=1) / lengths).min() > 0.999


@pytest.mark.parametrize("variant", ["1g", "10g", "34g"])
def test_detectors_of_published_shape(variant: str, tmp_path: Path) -> None:
    model = write_scrfd(tmp_path / "any.onnx", variant, batch=1, height=640, width=640)
    check_raw_outputs(model, (1, 3, 640, 640))


@pytest.mark.parametrize("variant", ["r50", "r100"])
def test_recognizers_of_published_shape(variant: str, tmp_path: Path) -> None:
    model = write_arcface(tmp_path / "any.onnx", variant)
    check_raw_outputs(model, (8, 3, 112, 112))


def check_raw_outputs(model: Path, shape: tuple[int, ...]) -> None:
    """Compare all output values on noise: networks with random weights find no faces."""
    trt, _ = load_tensorrt()
    plan = build_engine(trt, model.read_bytes(), ShapeRange(shape, shape, shape), "fp32")
    network, reference = TensorRtNetwork(trt, model, plan, None), OnnxRuntimeNetwork(model)
    noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    agreement = compare_outputs(network, reference, {network.inputs[0].name: noise})
    assert agreement.accepted, agreement.failures
    print(f"{model.stem}: {agreement.figures}")


def test_any_thread_may_call_and_delete(engine: Callable[[str, str], Path]) -> None:
    networks = [load_network(engine("2.5g", "fp16"))]
    inputs = {networks[0].inputs[0].name: np.zeros((1, 3, 640, 640), np.float32)}
    failures: list[BaseException] = []

    def run() -> None:
        try:
            networks[0](inputs)
            networks.clear()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failures and not networks


def test_memory_is_given_back(engine: Callable[[str, str], Path]) -> None:
    path = engine("w600k_mbf", "fp16")

    def used() -> int:
        gc.collect()
        return device_memory()[0]

    load_network(path)  # what TensorRT keeps for all engines
    before = used()
    for _ in range(20):
        load_network(path)
    assert used() - before < 16 << 20


def test_engine_of_another_program(
    engine: Callable[[str, str], Path], recognizer_path: Callable[[str], Path], tmp_path: Path
) -> None:
    source = engine("w600k_mbf", "fp16")
    path = tmp_path / "any.engine"
    path.write_bytes(source.read_bytes())
    metadata = verify(path, recognizer_path("w600k_mbf"))
    assert metadata_path(path).exists() and metadata.precision == "unknown"


def test_pipeline(
    detector_path: Callable[[str], Path],
    recognizer_path: Callable[[str], Path],
    image: Callable[[str], NDArray[np.uint8]],
    engine: Callable[[str, str], Path],
) -> None:
    on_gpu = loaded(engine("2.5g", "fp16"), engine("w600k_mbf", "fp16"))
    assert isinstance(on_gpu.detector.network, TensorRtNetwork)
    reference = loaded(detector_path("2.5g"), recognizer_path("w600k_mbf"), backend="onnxruntime")
    found, expected = on_gpu(image("t1.jpg")).faces, reference(image("t1.jpg")).faces
    assert len(found) == len(expected) == 6
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=2)
    assert found.embeddings is not None and expected.embeddings is not None
    assert (found.embeddings * expected.embeddings).sum(axis=1).min() > 0.99


def test_auto_takes_tensorrt(detector_path: Callable[[str], Path], tmp_path: Path) -> None:
    model = tmp_path / "any.onnx"
    model.write_bytes(detector_path("500m").read_bytes())
    assert isinstance(open_network(model, input_size=(320, 320)), TensorRtNetwork)


def test_an_engine_of_another_size_is_built_beside_the_images(
    detector_path: Callable[[str], Path], image: Callable[[str], NDArray[np.uint8]], tmp_path: Path
) -> None:
    model = tmp_path / "any.onnx"
    model.write_bytes(detector_path("2.5g").read_bytes())  # takes 640x640 only
    config = PipelineConfig(
        backend="tensorrt",
        detector=DetectorConfig(engine_path=model, input_size="auto"),
        recognizer=RecognizerConfig(enabled=False),
    )
    photograph = image("t1.jpg")[:720]  # 16:9
    pipeline = load_pipeline(config)
    on_square = pipeline(photograph).faces
    end = time.monotonic() + LONGEST_BUILD
    engines = tmp_path / "engines"
    while not list(engines.glob("any_640x384*.json")):  # written last
        assert time.monotonic() < end
        time.sleep(1)
        pipeline(photograph)
    on_fitting = load_pipeline(config)(photograph).faces
    assert len(on_square) == len(on_fitting) == 6
    np.testing.assert_allclose(on_fitting.boxes, on_square.boxes, atol=2)
