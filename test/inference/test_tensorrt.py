# SPDX-License-Identifier: Apache-2.0
"""The TensorRT backend follows the rules of TensorRT and CUDA, on a simulated GPU."""

from __future__ import annotations

import ctypes
import gc
import logging
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_files import write_recognizer
from pipelines import detector_of

from scrfd_ros.engines.convert import Settings, convert
from scrfd_ros.errors import BackendError, ModelError
from scrfd_ros.inference import tensorrt as backend
from scrfd_ros.inference.cuda_api import cuda_api
from scrfd_ros.inference.engine_file import metadata_path
from scrfd_ros.inference.load import load_network
from scrfd_ros.inference.network import Tensor
from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork
from scrfd_ros.recognition.arcface import ArcFace

pytestmark = pytest.mark.usefixtures("simulated_gpu", "cuda_library")


@pytest.fixture(params=["cuda-python", "pycuda"])
def cuda_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What calls CUDA."""
    if request.param == "pycuda":
        monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    else:
        pytest.importorskip("cuda.bindings.driver")


@pytest.fixture
def recognizer(tmp_path: Path) -> Path:
    """A small recognizer that takes any number of faces."""
    return write_recognizer(tmp_path / "recognizer.onnx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


def built(folder: Path, recognizer: Path, sizes: tuple[int, int, int], tmp_path: Path) -> Path:
    """The recognizer's engine for these batch sizes: built once, and copied."""
    source = folder / f"{sizes}.engine"
    if not source.exists():
        convert(recognizer, source, Settings(batch=sizes))
    for path in (source, metadata_path(source)):
        shutil.copy(path, tmp_path / path.name.replace(str(sizes), "recognizer"))
    return tmp_path / "recognizer.engine"


@pytest.fixture
def engine(folder: Path, recognizer: Path, tmp_path: Path) -> Path:
    return built(folder, recognizer, (1, 2, 4), tmp_path)


@pytest.fixture
def fixed_engine(folder: Path, recognizer: Path, tmp_path: Path) -> Path:
    return built(folder, recognizer, (2, 2, 2), tmp_path)


def faces(number: int) -> NDArray[np.float32]:
    return np.random.default_rng(number).standard_normal((number, 3, 112, 112)).astype(np.float32)


def test_gives_what_the_model_gives(recognizer: Path, engine: Path) -> None:
    network, reference = load_network(engine), OnnxRuntimeNetwork(recognizer)
    assert network.path == engine and network.sha256 == reference.sha256
    assert network.backend == "tensorrt 10.3.0 fp16"
    assert network.inputs == (Tensor("input.1", (None, 3, 112, 112)),)
    assert network.max_batch == 4
    for number in (4, 1, 3, 3):  # larger, smaller, the same again
        inputs = {"input.1": faces(number)}
        np.testing.assert_array_equal(network(inputs)["516"], reference(inputs)["516"])


@pytest.mark.parametrize("version", ["8.6.1", "10.0.1"])
def test_older_tensorrt(
    version: str,
    recognizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Execution contexts of older versions get their scratch memory in other ways.

    And before 10.0 only one of them can run an engine with free sizes.
    """
    monkeypatch.setenv("SIMULATED_TENSORRT_VERSION", version)
    path = tmp_path / "older.engine"
    convert(recognizer, path, Settings(batch=(1, 2, 4)))
    network, reference = load_network(path, cuda_graph=True), OnnxRuntimeNetwork(recognizer)
    for number in (1, 2, 1, 2):
        inputs = {"input.1": faces(number)}
        np.testing.assert_array_equal(network(inputs)["516"], reference(inputs)["516"])
    is_recorded = version == "10.0.1"
    assert len(network._graphs) == (2 if is_recorded else 0)
    assert ("older.engine runs without a CUDA graph" in caplog.text) == (not is_recorded)


@pytest.mark.parametrize("version", ["8.6.1", "10.0.1"])
def test_graph_of_one_shape_in_older_tensorrt(
    version: str, recognizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMULATED_TENSORRT_VERSION", version)
    path = tmp_path / "older.engine"
    convert(recognizer, path, Settings(batch=(2, 2, 2)))
    network, reference = load_network(path, cuda_graph=True), OnnxRuntimeNetwork(recognizer)
    inputs = {"input.1": faces(2)}
    for _ in range(3):
        np.testing.assert_array_equal(network(inputs)["516"], reference(inputs)["516"])
    assert len(network._graphs) == 1


def test_tensors_are_bound_by_name(
    detector_path: Callable[[str], Path],
    image: Callable[[str], NDArray[np.uint8]],
    tmp_path: Path,
) -> None:
    model, path = detector_path("500m"), tmp_path / "any.engine"
    convert(model, path, Settings(input_size=(320, 320)))
    network, reference = load_network(path), OnnxRuntimeNetwork(model)
    names = [tensor.name for tensor in reference.outputs]
    assert [tensor.name for tensor in network.outputs] == names[::-1], "the order differs"
    detector, expected = detector_of(network, (320, 320)), detector_of(reference, (320, 320))
    found, wanted = (each.detect(image("t1.jpg")) for each in (detector, expected))
    assert len(found) == 6
    np.testing.assert_array_equal(found.boxes, wanted.boxes)
    np.testing.assert_array_equal(found.landmarks, wanted.landmarks)


def test_more_faces_than_the_engine_takes(recognizer: Path, engine: Path) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (11, 112, 112, 3)).astype(np.uint8)
    found, norms = ArcFace(load_network(engine)).embed(crops)
    expected, expected_norms = ArcFace(OnnxRuntimeNetwork(recognizer)).embed(crops)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(norms, expected_norms, rtol=1e-5)


@pytest.mark.parametrize(
    "shape", [(5, 3, 112, 112), (1, 3, 112, 96), (3, 112, 112)], ids=["batch", "size", "rank"]
)
def test_shape_that_the_engine_does_not_take(shape: tuple[int, ...], engine: Path) -> None:
    network = load_network(engine)
    with pytest.raises(ModelError, match=r"does not take 'input\.1' as .*: .*API Usage Error"):
        network({"input.1": np.zeros(shape, np.float32)})
    assert network({"input.1": faces(2)})["516"].shape == (2, 512), "the next call works"


def test_any_thread_may_call(engine: Path) -> None:
    network = load_network(engine)
    expected = network({"input.1": faces(2)})["516"].copy()
    results = []
    thread = threading.Thread(target=lambda: results.append(network({"input.1": faces(2)})["516"]))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(results[0], expected)


def test_everything_is_given_back_in_any_thread(simulated_gpu: ctypes.CDLL, engine: Path) -> None:
    def in_use() -> list[int]:
        gc.collect()
        memory = [simulated_gpu.simulated_memory(where) for where in (0, 1)]
        return [*memory, simulated_gpu.simulated_handles()]

    load_network(engine)  # the module with TensorRT
    import tensorrt

    before = in_use()
    networks = [load_network(engine, cuda_graph=True)]
    networks[0]({"input.1": faces(2)})
    assert all(new > old for new, old in zip(in_use(), before, strict=True))
    thread = threading.Thread(target=networks.clear)
    thread.start()
    thread.join()
    assert in_use() == before
    assert not tensorrt._lost, "what TensorRT has was deleted where the context is current"


def test_times_on_the_device(engine: Path) -> None:
    network = load_network(engine)
    network({"input.1": faces(1)})
    times = network.device_milliseconds()
    assert list(times) == ["copy_in", "network", "copy_out"]
    assert all(0 < time < 10_000 for time in times.values())


def test_cuda_graph(recognizer: Path, fixed_engine: Path) -> None:
    network, reference = load_network(fixed_engine, cuda_graph=True), OnnxRuntimeNetwork(recognizer)
    for seed in (0, 1, 2):
        noise = np.random.default_rng(seed).standard_normal((2, 3, 112, 112)).astype(np.float32)
        inputs = {"input.1": noise}
        np.testing.assert_array_equal(network(inputs)["516"], reference(inputs)["516"])
    assert list(network._graphs) == [(2, 3, 112, 112)], "recorded once"


def test_a_cuda_graph_for_each_shape(
    recognizer: Path, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_MAX_GRAPHS", 3)
    network, reference = load_network(engine, cuda_graph=True), OnnxRuntimeNetwork(recognizer)
    for number in (1, 2, 1, 3, 4, 2, 3, 4, 1, 4, 2):
        inputs = {"input.1": faces(number)}
        np.testing.assert_array_equal(network(inputs)["516"], reference(inputs)["516"])
    assert [shape[0] for shape in network._graphs] == [1, 2, 3], "4 came too late"


def test_no_cuda_graph_if_not_wanted(engine: Path) -> None:
    network = load_network(engine)
    for number in (1, 2, 1):
        network({"input.1": faces(number)})
    assert not network._graphs


def test_cuda_graph_that_cannot_be_recorded(
    fixed_engine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SIMULATED_CUDA", "cuStreamEndCapture 901")
    network = load_network(fixed_engine, cuda_graph=True)
    for _ in range(2):
        assert network({"input.1": faces(2)})["516"].shape == (2, 512), "without a graph"
    reason = "runs without a CUDA graph: the work cannot be recorded: cuStreamEndCapture failed"
    assert caplog.text.count(reason) == 1


@pytest.mark.parametrize(
    ("how", "trouble"),
    [
        pytest.param("no engine", "cannot load this engine: .*magicTag", id="engine"),
        pytest.param("no context", "no execution context, .*OutOfMemory", id="memory"),
        pytest.param("execute fails", "the engine does not run: .*illegal memory", id="run"),
    ],
)
def test_failures_of_tensorrt(
    how: str, trouble: str, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMULATED_TENSORRT", how)
    with pytest.raises(ModelError, match=rf"recognizer\.engine: .*{trouble}"):
        load_network(engine)({"input.1": faces(1)})


@pytest.mark.parametrize(
    "function",
    [
        "cuMemAlloc_v2",
        "cuMemHostAlloc",
        "cuStreamCreate",
        "cuEventCreate",
        "cuCtxPushCurrent_v2",
    ],
)
def test_cuda_that_fails_when_an_engine_is_loaded(
    function: str, engine: Path, simulated_gpu: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_network(engine)
    gc.collect()
    before = simulated_gpu.simulated_handles()
    monkeypatch.setenv("SIMULATED_CUDA", f"{function} 2")
    reason = rf"recognizer\.engine: {function.split('_')[0]} failed.*out of memory"
    with pytest.raises(ModelError, match=reason):
        load_network(engine)
    monkeypatch.delenv("SIMULATED_CUDA")
    gc.collect()
    assert simulated_gpu.simulated_handles() == before, "what was there already is given back"


@pytest.mark.parametrize(
    "function",
    ["cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuEventRecord", "cuStreamSynchronize"],
)
def test_cuda_that_fails_in_a_run(
    function: str, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load_network(engine)
    expected = network({"input.1": faces(1)})["516"].copy()
    monkeypatch.setenv("SIMULATED_CUDA", f"{function} 719")
    reason = rf"recognizer\.engine: {function.split('_')[0]} failed"
    with pytest.raises(ModelError, match=reason):
        network({"input.1": faces(1)})
    monkeypatch.delenv("SIMULATED_CUDA")
    np.testing.assert_array_equal(network({"input.1": faces(1)})["516"], expected)


def test_a_device_that_breaks(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_network(engine, cuda_graph=True)
    network({"input.1": faces(1)})
    monkeypatch.setenv("SIMULATED_TENSORRT", "breaks the device")
    with pytest.raises(
        ModelError, match=r"recognizer\.engine: cuStreamSynchronize failed.*illegal"
    ):
        network({"input.1": faces(1)})
    monkeypatch.delenv("SIMULATED_TENSORRT")
    with pytest.raises(ModelError, match=r"recognizer\.engine: cu\w+ failed.*illegal memory"):
        network({"input.1": faces(1)})


def test_a_graph_that_fails(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_network(engine, cuda_graph=True)
    network({"input.1": faces(1)})
    monkeypatch.setenv("SIMULATED_CUDA", "cuGraphLaunch 719")
    with pytest.raises(ModelError, match=r"recognizer\.engine: cuGraphLaunch failed with 719"):
        network({"input.1": faces(1)})


def test_cuda_that_gives_no_context(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_api.cache_clear()
    monkeypatch.setenv("SIMULATED_CUDA", "cuDevicePrimaryCtxRetain 101")
    with pytest.raises(BackendError, match=r"^CUDA does not start: cuDevicePrimaryCtxRetain "):
        load_network(engine)


def test_missing_engine(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.engine: cannot read the engine: No such file"):
        load_network(tmp_path / "none.engine")


def test_damaged_engine(engine: Path) -> None:
    engine.write_bytes(engine.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"damaged or replaced: .*build it again: scrfd convert"):
        load_network(engine)


def test_engine_of_another_tensorrt(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorrt

    monkeypatch.setattr(tensorrt, "__version__", "10.7.0")
    with pytest.raises(ModelError, match=r"built for another machine: .*10\.3.* here is .*10\.7"):
        load_network(engine)


def test_engine_without_metadata(engine: Path, caplog: pytest.LogCaptureFixture) -> None:
    metadata_path(engine).unlink()
    with caplog.at_level(logging.WARNING):
        network = load_network(engine)
    assert f"scrfd verify {engine} --onnx MODEL.onnx" in caplog.text
    assert network({"input.1": faces(1)})["516"].shape == (1, 512)
    assert network.backend == "tensorrt 10.3.0"


def test_no_device(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMULATED_CUDA", "cuInit 100")
    with pytest.raises(BackendError, match=r"^no CUDA device: cuInit failed with 100, "):
        load_network(engine)


def test_neither_cuda_python_nor_pycuda(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_api.cache_clear()
    for name in ("cuda.bindings.driver", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match="no cuda-python or pycuda for this Python"):
        load_network(engine)
