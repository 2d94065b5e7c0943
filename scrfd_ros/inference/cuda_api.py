# SPDX-License-Identifier: Apache-2.0
"""What the package uses of CUDA, through cuda-python where it is installed, else through pycuda.

Both call the same driver. Neither is needed on machines without a GPU.
"""

from __future__ import annotations

import abc
import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scrfd_ros.errors import BackendError, ModelError
from scrfd_ros.inference.cuda import Driver, cuda_device, failure

_NON_BLOCKING = 1  # of CUstream_flags: does not wait for the default stream, nor it for us
_CAPTURE_MODE_THREAD_LOCAL = 1  # of CUstreamCaptureMode

Size = tuple[int, int, int]


class Resource:
    """Something of the driver's: device memory, a stream, an event, a module, a kernel.

    Its address or handle is `int(resource)`. It is given back with this object, in any thread.

    Args:
        cuda: whose it is.
        native: what the library has for it.
        handle: address or handle; 0 if nobody asks.
        free: gives it back; None if the library does so with its last reference.
    """

    def __init__(
        self,
        cuda: CudaApi,
        native: Any,
        handle: int = 0,
        free: Callable[[Any], object] | None = None,
    ) -> None:
        self._native = [native]
        self._handle = handle
        weakref.finalize(self, _give_back, cuda, self._native, free)

    @property
    def native(self) -> Any:
        """What the library has for it."""
        return self._native[0]

    def __int__(self) -> int:
        return self._handle


def _give_back(cuda: CudaApi, native: list[Any], free: Callable[[Any], object] | None) -> None:
    # After an error of the device nothing can be given back before the process ends.
    with contextlib.suppress(BackendError), cuda.current():
        if free is not None:
            free(native[0])
        native.clear()


class CudaApi(abc.ABC):
    """The CUDA driver's functions, on the primary context of the first device.

    All but `current` need a context that is current in the calling thread. Copies, kernels and
    graphs are queued on a stream; whether they worked shows when it is synchronized.

    Attributes:
        name: of the library and its version, for people.

    Raises:
        BackendError: any call; names the driver's function and its reason.
    """

    name: str

    @abc.abstractmethod
    def current(self) -> contextlib.AbstractContextManager[None]:
        """Make the context current in this thread."""

    @abc.abstractmethod
    def memory(self, size: int) -> Resource:
        """Memory on the device, not initialized.

        Args:
            size: bytes, at least 1.
        """

    def pinned(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A new array in pinned memory, which the device reads and writes by itself.

        It is not initialized. The memory is freed with the last view of the array.
        """
        count = math.prod(np.atleast_1d(shape).tolist())
        size = max(count * np.dtype(dtype).itemsize, 1)
        block = self._pinned_memory(size)
        memory = (ctypes.c_byte * size).from_address(int(block))
        weakref.finalize(memory, int, block)  # keeps it until then
        return np.frombuffer(memory, dtype, count).reshape(shape)

    @abc.abstractmethod
    def _pinned_memory(self, size: int) -> Resource:
        """So many bytes of pinned memory."""

    @abc.abstractmethod
    def stream(self) -> Resource:
        """A new stream."""

    @abc.abstractmethod
    def event(self) -> Resource:
        """A new event."""

    @abc.abstractmethod
    def copy_in(self, address: int, array: NDArray[Any], stream: Resource) -> None:
        """Queue a copy of a contiguous pinned array to an address on the device."""

    @abc.abstractmethod
    def copy_out(self, array: NDArray[Any], address: int, stream: Resource) -> None:
        """Queue a copy from an address on the device that fills a contiguous pinned array."""

    @abc.abstractmethod
    def synchronize(self, stream: Resource) -> None:
        """Wait until all work on a stream is done."""

    @abc.abstractmethod
    def record(self, event: Resource, stream: Resource) -> None:
        """Queue the taking of the time."""

    @abc.abstractmethod
    def milliseconds(self, start: Resource, end: Resource) -> float:
        """Time from one event to another. Both were recorded, and the stream is synchronized."""

    @abc.abstractmethod
    def module(self, ptx: bytes) -> Resource:
        """Kernels in the form of PTX, which the driver compiles for its device."""

    @abc.abstractmethod
    def kernel(self, module: Resource, name: str) -> Resource:
        """A kernel of a module; keep the module as long."""

    @abc.abstractmethod
    def launch(
        self,
        kernel: Resource,
        grid: Size,
        block: Size,
        arguments: Sequence[np.generic],
        stream: Resource,
    ) -> None:
        """Queue a kernel.

        Args:
            kernel: which one.
            grid: number of blocks.
            block: number of threads in each.
            arguments: of the types that the kernel declares: np.uint64 for an address, np.int32
                for an int.
            stream: to queue it on.
        """

    def graph(self, stream: Resource, work: Callable[[], None]) -> CudaGraph:
        """Record work once, to be launched as a whole; see `CudaGraph`.

        Raises:
            ModelError: the work cannot be recorded.
        """
        return CudaGraph(self, stream, work)


class CudaGraph:
    """Work recorded once from a stream, to be launched as a whole.

    pycuda has no graphs, so the driver is called directly.

    Args:
        cuda: whose context is current.
        stream: to record from, and to launch on.
        work: queues work on that stream. It must neither wait for the device nor allocate.

    Raises:
        ModelError: the work cannot be recorded.
    """

    def __init__(self, cuda: CudaApi, stream: Resource, work: Callable[[], None]) -> None:
        self._driver = Driver()
        self._stream = stream
        handle = ctypes.c_void_p(int(stream))
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        try:
            with _no_garbage_collection():
                self._driver.call("cuStreamBeginCapture_v2", handle, _CAPTURE_MODE_THREAD_LOCAL)
                try:
                    work()
                except BaseException:
                    with contextlib.suppress(BackendError):  # the first error matters more
                        self._driver.call("cuStreamEndCapture", handle, ctypes.byref(graph))
                        self._driver.call("cuGraphDestroy", graph)
                    raise
                self._driver.call("cuStreamEndCapture", handle, ctypes.byref(graph))
            try:
                self._driver.call(
                    "cuGraphInstantiateWithFlags",
                    ctypes.byref(executable),
                    graph,
                    ctypes.c_ulonglong(0),
                )
            finally:
                self._driver.call("cuGraphDestroy", graph)
        except BackendError as error:
            raise ModelError(f"the work cannot be recorded: {error}") from error
        destroy = functools.partial(self._driver.call, "cuGraphExecDestroy")
        self._executable = Resource(cuda, executable, free=destroy)

    def launch(self) -> None:
        """Queue the recorded work on the stream it was recorded from.

        Raises:
            BackendError: the driver refuses.
        """
        handle = ctypes.c_void_p(int(self._stream))
        self._driver.call("cuGraphLaunch", self._executable.native, handle)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Nothing is freed by chance: that would spoil what this thread records."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class CudaPython(CudaApi):
    """CUDA through cuda-python, whose package for the driver is cuda-bindings.

    Raises:
        ImportError: it is not installed, or is for newer drivers than this one.
        BackendError: it does not start.
    """

    def __init__(self) -> None:
        self._driver = importlib.import_module("cuda.bindings.driver")
        version = importlib.import_module("cuda.bindings").__version__
        self.name = f"cuda-python {version}"
        supported = cuda_device().cuda
        if int(version.split(".")[0]) > int(supported.split(".")[0]):
            raise ImportError(f"version {version} needs a newer driver than CUDA {supported}")
        self._call(self._driver.cuInit, 0)
        device = self._call(self._driver.cuDeviceGet, 0)
        self._context = self._call(self._driver.cuDevicePrimaryCtxRetain, device)

    def _call(self, function: Callable[..., Any], *arguments: object) -> Any:
        try:
            status, *results = function(*arguments)
        # The driver lacks this function, or has newer errors than cuda-python knows.
        except (RuntimeError, ValueError) as error:
            raise BackendError(f"{function.__name__} failed: {error}") from error
        if status != self._driver.CUresult.CUDA_SUCCESS:
            _, text = self._driver.cuGetErrorString(status)
            raise failure(function.__name__, int(status), text)
        return results[0] if results else None

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        self._call(self._driver.cuCtxPushCurrent, self._context)
        try:
            yield
        finally:
            self._call(self._driver.cuCtxPopCurrent)

    def _resource(self, native: Any, free: Callable[..., Any]) -> Resource:
        return Resource(self, native, int(native), functools.partial(self._call, free))

    def memory(self, size: int) -> Resource:
        return self._resource(self._call(self._driver.cuMemAlloc, size), self._driver.cuMemFree)

    def _pinned_memory(self, size: int) -> Resource:
        address = self._call(self._driver.cuMemHostAlloc, size, 0)
        return self._resource(address, self._driver.cuMemFreeHost)

    def stream(self) -> Resource:
        stream = self._call(self._driver.cuStreamCreate, _NON_BLOCKING)
        return self._resource(stream, self._driver.cuStreamDestroy)

    def event(self) -> Resource:
        event = self._call(self._driver.cuEventCreate, 0)
        return self._resource(event, self._driver.cuEventDestroy)

    def copy_in(self, address: int, array: NDArray[Any], stream: Resource) -> None:
        source = _address(array)
        self._call(self._driver.cuMemcpyHtoDAsync, address, source, array.nbytes, stream.native)

    def copy_out(self, array: NDArray[Any], address: int, stream: Resource) -> None:
        target = _address(array)
        self._call(self._driver.cuMemcpyDtoHAsync, target, address, array.nbytes, stream.native)

    def synchronize(self, stream: Resource) -> None:
        self._call(self._driver.cuStreamSynchronize, stream.native)

    def record(self, event: Resource, stream: Resource) -> None:
        self._call(self._driver.cuEventRecord, event.native, stream.native)

    def milliseconds(self, start: Resource, end: Resource) -> float:
        return float(self._call(self._driver.cuEventElapsedTime, start.native, end.native))

    def module(self, ptx: bytes) -> Resource:
        module = self._call(self._driver.cuModuleLoadData, ptx)
        return self._resource(module, self._driver.cuModuleUnload)

    def kernel(self, module: Resource, name: str) -> Resource:
        function = self._call(self._driver.cuModuleGetFunction, module.native, name.encode())
        return Resource(self, function)

    def launch(
        self,
        kernel: Resource,
        grid: Size,
        block: Size,
        arguments: Sequence[np.generic],
        stream: Resource,
    ) -> None:
        values = [np.array(argument) for argument in arguments]
        addresses = np.array([value.ctypes.data for value in values], np.uint64)
        self._call(
            self._driver.cuLaunchKernel,
            kernel.native,
            *grid,
            *block,
            0,
            stream.native,
            addresses.ctypes.data,
            0,
        )


class PyCuda(CudaApi):
    """CUDA through pycuda.

    Raises:
        ImportError: it is not installed.
        BackendError: it does not start.
    """

    def __init__(self) -> None:
        self._driver = importlib.import_module("pycuda.driver")
        self.name = f"pycuda {importlib.import_module('pycuda').VERSION_TEXT}"
        with self._errors():
            self._driver.init()
            self._context = self._driver.Device(0).retain_primary_context()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise BackendError(str(error)) from error

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        with self._errors():
            self._context.push()
        try:
            yield
        finally:
            with self._errors():
                self._context.pop()

    def memory(self, size: int) -> Resource:
        with self._errors():
            allocation = self._driver.mem_alloc(size)
        return Resource(self, allocation, int(allocation))

    def _pinned_memory(self, size: int) -> Resource:
        with self._errors():
            array = self._driver.pagelocked_empty(size, np.uint8)
        return Resource(self, array, array.ctypes.data)

    def stream(self) -> Resource:
        with self._errors():
            stream = self._driver.Stream(_NON_BLOCKING)
        return Resource(self, stream, stream.handle)

    def event(self) -> Resource:
        with self._errors():
            return Resource(self, self._driver.Event())

    def copy_in(self, address: int, array: NDArray[Any], stream: Resource) -> None:
        with self._errors():
            self._driver.memcpy_htod_async(address, array, stream.native)

    def copy_out(self, array: NDArray[Any], address: int, stream: Resource) -> None:
        with self._errors():
            self._driver.memcpy_dtoh_async(array, address, stream.native)

    def synchronize(self, stream: Resource) -> None:
        with self._errors():
            stream.native.synchronize()

    def record(self, event: Resource, stream: Resource) -> None:
        with self._errors():
            event.native.record(stream.native)

    def milliseconds(self, start: Resource, end: Resource) -> float:
        with self._errors():
            return float(start.native.time_till(end.native))

    def module(self, ptx: bytes) -> Resource:
        with self._errors():
            return Resource(self, self._driver.module_from_buffer(ptx))

    def kernel(self, module: Resource, name: str) -> Resource:
        with self._errors():
            return Resource(self, module.native.get_function(name))

    def launch(
        self,
        kernel: Resource,
        grid: Size,
        block: Size,
        arguments: Sequence[np.generic],
        stream: Resource,
    ) -> None:
        with self._errors():
            kernel.native(*arguments, grid=grid, block=block, stream=stream.native)


def _address(array: NDArray[Any]) -> int:
    if not array.flags.c_contiguous:
        raise ValueError("only contiguous arrays are copied to and from the device")
    return array.ctypes.data


@functools.cache
def cuda_api() -> CudaApi:
    """The CUDA of this process, kept until it ends: cuda-python, or else pycuda.

    TensorRT uses the same context, and releasing it would break networks that still live.

    Raises:
        BackendError: neither is installed, or the driver does not work.
    """
    troubles = []
    for library in (CudaPython, PyCuda):
        try:
            cuda = library()
        except (ImportError, OSError) as error:
            troubles.append(str(error))
            continue
        except BackendError as error:
            raise BackendError(f"CUDA does not start: {error}") from error
        atexit.register(cuda_api.cache_clear)  # while the driver is still there
        return cuda
    newest = int(cuda_device().cuda.split(".")[0])
    raise BackendError(
        f"no cuda-python or pycuda for this Python ({'; '.join(troubles)}): "
        f'pip install "cuda-bindings<{newest + 1}"'
    )
