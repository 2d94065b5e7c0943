# SPDX-License-Identifier: Apache-2.0
"""CUDA through cuda-python and through pycuda: the same calls, on a simulated driver.

The driver and pycuda are stand-ins, cuda-python is the real one.
"""

from __future__ import annotations

import ctypes
import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from adder import ADD, Adder

from scrfd_ros.errors import BackendError, ModelError
from scrfd_ros.inference.cuda_api import CudaApi, CudaPython, PyCuda, Resource, cuda_api

SIMULATED_GPU = Path(__file__).parents[1] / "simulated_gpu"


@pytest.fixture(params=[CudaPython, PyCuda])
def cuda(request: pytest.FixtureRequest, simulated_gpu: ctypes.CDLL) -> Iterator[CudaApi]:
    """Each of the two, with a context that is current."""
    if request.param is CudaPython:
        pytest.importorskip("cuda.bindings.driver")
    api: CudaApi = request.param()
    with api.current():
        yield api


def test_copies_and_kernels_are_queued(cuda: CudaApi) -> None:
    adder = Adder(cuda)
    adder.array[:] = range(10)
    adder.add()
    assert (adder.array == -1).all(), "nothing is there before the end"
    cuda.synchronize(adder.stream)
    # The copy to the device was late as well, so what was in the array then counts.
    np.testing.assert_array_equal(adder.array, np.full(10, 4))


def test_a_kernel_changes_what_was_copied(cuda: CudaApi) -> None:
    adder = Adder(cuda)
    result = cuda.pinned((2, 5), np.int32)
    adder.array[:] = range(10)
    cuda.copy_in(int(adder.memory), adder.array, adder.stream)
    arguments = (np.uint64(int(adder.memory)), np.int32(-3))
    cuda.launch(adder.kernel, (1, 1, 1), (7, 1, 1), arguments, adder.stream)
    cuda.copy_out(result, int(adder.memory), adder.stream)
    cuda.synchronize(adder.stream)
    assert result.tolist() == [[-3, -2, -1, 0, 1], [2, 3, 7, 8, 9]]


def test_a_graph_does_the_work_again(cuda: CudaApi) -> None:
    adder = Adder(cuda)
    result = cuda.pinned(10, np.int32)

    def work() -> None:
        cuda.copy_in(int(adder.memory), adder.array, adder.stream)
        arguments = (np.uint64(int(adder.memory)), np.int32(100))
        cuda.launch(adder.kernel, (2, 1, 1), (5, 1, 1), arguments, adder.stream)
        cuda.copy_out(result, int(adder.memory), adder.stream)

    graph = cuda.graph(adder.stream, work)
    cuda.synchronize(adder.stream)
    for seed in range(3):
        adder.array[:] = np.random.default_rng(seed).integers(0, 9, 10)
        graph.launch()
        cuda.synchronize(adder.stream)
        np.testing.assert_array_equal(result, adder.array + 100)


def test_times(cuda: CudaApi) -> None:
    adder, events = Adder(cuda), [cuda.event() for _ in range(3)]
    cuda.record(events[0], adder.stream)
    adder.add()
    cuda.record(events[1], adder.stream)
    with pytest.raises(BackendError, match=r"cuEventElapsedTime failed.*not ready"):
        cuda.milliseconds(events[0], events[1])
    cuda.synchronize(adder.stream)
    assert 0 < cuda.milliseconds(events[0], events[1]) < 1000
    with pytest.raises(BackendError, match=r"cuEventElapsedTime failed.*was not recorded"):
        cuda.milliseconds(events[0], events[2])


def test_everything_is_given_back_in_any_thread(cuda: CudaApi, simulated_gpu: ctypes.CDLL) -> None:
    def in_use() -> list[int]:
        gc.collect()
        memory = [simulated_gpu.simulated_memory(where) for where in (0, 1)]
        return [*memory, simulated_gpu.simulated_handles()]

    before = in_use()
    things: list[object] = [Adder(cuda), cuda.event()]
    things.append(cuda.graph(things[0].stream, things[0].add))  # type: ignore[attr-defined]
    used = in_use()
    assert all(new > old for new, old in zip(used, before, strict=True))
    view = cuda.pinned((100, 100), np.float32)[50:, 3]
    thread = threading.Thread(target=things.clear)
    thread.start()
    thread.join()
    assert in_use() == [before[0] + 40_000, *before[1:]], "a view keeps its memory"
    del view
    assert in_use() == before


@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("cuMemAlloc_v2", lambda adder: adder.cuda.memory(100)),
        ("cuMemHostAlloc", lambda adder: adder.cuda.pinned(100, np.float32)),
        ("cuStreamCreate", lambda adder: adder.cuda.stream()),
        ("cuEventCreate", lambda adder: adder.cuda.event()),
        ("cuMemcpyHtoDAsync_v2", Adder.add),
        ("cuMemcpyDtoHAsync_v2", Adder.add),
        ("cuLaunchKernel", Adder.add),
        ("cuEventRecord", lambda adder: adder.cuda.record(adder.cuda.event(), adder.stream)),
        ("cuStreamSynchronize", lambda adder: adder.cuda.synchronize(adder.stream)),
        ("cuModuleLoadData", lambda adder: adder.cuda.module(ADD)),
        ("cuModuleGetFunction", lambda adder: adder.cuda.kernel(adder.module, "add")),
        ("cuCtxPushCurrent_v2", lambda adder: adder.cuda.current().__enter__()),
    ],
)
def test_each_failure_has_its_error(
    cuda: CudaApi,
    function: str,
    call: Callable[[Adder], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adder = Adder(cuda)
    monkeypatch.setenv("SIMULATED_CUDA", f"{function} 2")
    with pytest.raises(BackendError, match=rf"^{function.split('_')[0]} failed.*out of memory"):
        call(adder)
    monkeypatch.delenv("SIMULATED_CUDA")
    call(adder)  # and works the next time


@pytest.mark.parametrize(
    "function", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"]
)
def test_no_graph(cuda: CudaApi, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    adder = Adder(cuda)
    monkeypatch.setenv("SIMULATED_CUDA", f"{function} 901")
    with pytest.raises(ModelError, match=f"cannot be recorded: {function} failed with 901, "):
        cuda.graph(adder.stream, adder.add)


def test_a_launch_that_fails(cuda: CudaApi, monkeypatch: pytest.MonkeyPatch) -> None:
    adder = Adder(cuda)
    graph = cuda.graph(adder.stream, adder.add)
    monkeypatch.setenv("SIMULATED_CUDA", "cuGraphLaunch 2")
    with pytest.raises(BackendError, match="cuGraphLaunch failed with 2, out of memory"):
        graph.launch()


@pytest.mark.parametrize(
    "work",
    [
        lambda adder: adder.cuda.memory(100),
        lambda adder: adder.cuda.pinned(100, np.float32),
        lambda adder: adder.cuda.synchronize(adder.stream),
        lambda adder: adder.cuda.module(ADD),
    ],
    ids=["memory", "pinned", "wait", "module"],
)
def test_what_cannot_be_recorded(cuda: CudaApi, work: Callable[[Adder], object]) -> None:
    adder = Adder(cuda)
    with pytest.raises(ModelError, match=r"cannot be recorded: .* while this thread records"):
        cuda.graph(adder.stream, lambda: [work(adder)])  # type: ignore[arg-type, return-value]
    adder.add()
    cuda.synchronize(adder.stream)


def test_garbage_does_not_spoil_a_graph(cuda: CudaApi) -> None:
    """Freeing memory is not allowed in a thread that records."""
    adder = Adder(cuda)

    def work() -> None:
        adder.add()
        cycles.clear()  # only garbage collection frees it
        assert len([[] for _ in range(10_000)]) == 10_000

    cycles: list[list[object]] = [[cuda.memory(1000)]]
    cycles[0].append(cycles[0])
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        cuda.graph(adder.stream, work)
    finally:
        gc.set_threshold(*thresholds)


def test_what_goes_wrong_while_recording_is_told(cuda: CudaApi, simulated_gpu: ctypes.CDLL) -> None:
    def work() -> None:
        raise ZeroDivisionError

    stream = cuda.stream()
    before = simulated_gpu.simulated_handles()
    with pytest.raises(ZeroDivisionError):
        cuda.graph(stream, work)
    assert simulated_gpu.simulated_handles() == before, "what was recorded is given back"
    cuda.synchronize(stream)


@pytest.mark.parametrize(
    ("ptx", "reason"),
    [
        (b"garbage", "no PTX"),
        (ADD.replace(b"sm_75", b"sm_120"), "PTX for sm_120, the device is 8.7"),
    ],
)
def test_refused_kernels(cuda: CudaApi, ptx: bytes, reason: str) -> None:
    with pytest.raises(BackendError, match=f"cuModuleLoadData failed.*{reason}"):
        cuda.module(ptx)


def test_a_kernel_that_is_not_there(cuda: CudaApi) -> None:
    module = cuda.module(ADD)
    with pytest.raises(BackendError, match=r"cuModuleGetFunction failed.*no kernel subtract"):
        cuda.kernel(module, "subtract")


def test_memory_that_is_not_pinned(cuda: CudaApi) -> None:
    adder = Adder(cuda)
    with pytest.raises(BackendError, match=r"cuMemcpyHtoDAsync failed.*allocation of pinned"):
        cuda.copy_in(int(adder.memory), np.zeros(3, np.float32), adder.stream)
    with pytest.raises(BackendError, match=r"cuMemcpyDtoHAsync failed.*allocation of the device"):
        cuda.copy_out(adder.array, int(adder.memory) + 4, adder.stream)
    with pytest.raises(ValueError, match="contiguous"):
        cuda.copy_in(int(adder.memory), adder.array[::2], adder.stream)


def test_work_with_freed_memory_breaks_the_context(
    cuda: CudaApi, simulated_gpu: ctypes.CDLL
) -> None:
    adder = Adder(cuda)
    graph = cuda.graph(adder.stream, adder.add)
    adder.memory = cuda.memory(10)
    with pytest.raises(BackendError, match="cuGraphLaunch failed with 700, the graph uses"):
        graph.launch()


OUTSIDE = """
import ctypes, sys
import numpy as np
sys.path[:0] = sys.argv[2:4]
from scrfd_ros.inference import cuda
cuda._LIBRARY = sys.argv[1]
from scrfd_ros.inference.cuda_api import PyCuda
from adder import Adder
api = PyCuda()
with api.current():
    adder = Adder(api)
    {}
print("unnoticed")
"""


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("ctypes.string_at(int(adder.memory), 1)", -signal.SIGSEGV),
        ("adder.add(grid=3); api.synchronize(adder.stream)", -signal.SIGSEGV),
        ("adder.add(); api.synchronize(adder.stream)", 0),
    ],
    ids=["by the host", "by a kernel", "inside"],
)
def test_memory_of_the_device_is_guarded(
    code: str, outcome: int, simulated_driver: Path, simulated_gpu: ctypes.CDLL
) -> None:
    """What the other tests rely on: the simulated driver notices."""
    folders = [simulated_driver / "libcuda.so.1", SIMULATED_GPU, SIMULATED_GPU.parent]
    command = [sys.executable, "-c", OUTSIDE.format(code), *folders]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == outcome, result.stderr
    assert ("unnoticed" in result.stdout) == (outcome == 0)


def test_a_device_that_breaks_takes_a_new_process(
    simulated_gpu: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cuda.bindings.driver")
    api = CudaPython()
    with api.current():
        stream = api.stream()
        monkeypatch.setenv("SIMULATED_CUDA", "cuStreamSynchronize 719")
        with pytest.raises(BackendError, match=r"failed with 719, .*: start it again$"):
            api.synchronize(stream)


def test_an_error_that_the_library_does_not_know(
    cuda: CudaApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a driver may give that is newer than the library."""
    monkeypatch.setenv("SIMULATED_CUDA", "cuMemAlloc_v2 9999")
    with pytest.raises(BackendError, match=r"^cuMemAlloc failed: (9999|unknown)"):
        cuda.memory(10)


def test_nothing_works_without_a_context(simulated_gpu: ctypes.CDLL) -> None:
    api = PyCuda()
    with pytest.raises(BackendError, match=r"cuMemAlloc failed.*without a current context"):
        api.memory(10)
    thing = Resource(api, None)
    del thing
    assert not simulated_gpu.simulated_has_context()


def test_cuda_python_is_preferred(simulated_gpu: ctypes.CDLL) -> None:
    pytest.importorskip("cuda.bindings.driver")
    assert cuda_api().name.startswith("cuda-python 12.")
    assert cuda_api() is cuda_api()


def test_else_pycuda(simulated_gpu: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    assert cuda_api().name == "pycuda 2026.1"


def test_cuda_python_for_newer_drivers(
    simulated_gpu: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    bindings = pytest.importorskip("cuda.bindings")
    monkeypatch.setattr(bindings, "__version__", "13.5.0")
    assert isinstance(cuda_api(), PyCuda)
    cuda_api.cache_clear()
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(BackendError, match=r"13\.5\.0 needs a newer driver than CUDA 12\.6; .*<13"):
        cuda_api()


def test_neither(simulated_gpu: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(BackendError, match=r'^no cuda-python .*pip install "cuda-bindings<13"$'):
        cuda_api()


@pytest.mark.parametrize("function", ["cuInit", "cuDevicePrimaryCtxRetain"])
def test_cuda_that_does_not_start(
    simulated_gpu: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    monkeypatch.setenv("SIMULATED_CUDA", f"{function} 100")
    with pytest.raises(BackendError, match=f"{function} failed.*no CUDA-capable device"):
        cuda_api()
