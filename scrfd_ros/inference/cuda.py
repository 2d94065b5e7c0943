# SPDX-License-Identifier: Apache-2.0
"""The little that is asked of the CUDA driver itself: the device, its memory, and CUDA graphs.

The device is probed before anything of TensorRT is touched, for TensorRT cannot be asked: without
a device its classes raise whatever they like, and trt.Runtime of 8.6 ends the process. pycuda has
no CUDA graphs. Functions and numbers: CUDA Driver API, cuda.h, 11.4 and newer.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from dataclasses import dataclass

from scrfd_ros.errors import BackendError, ModelError

_LIBRARY = "libcuda.so.1"
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76  # of CUdevice_attribute
_CAPTURE_MODE_THREAD_LOCAL = 1  # of CUstreamCaptureMode
_NAME_SIZE = 256


@dataclass(frozen=True)
class CudaDevice:
    """The first CUDA device, which `CUDA_VISIBLE_DEVICES` can choose.

    Attributes:
        name: of the GPU, such as "Orin".
        compute_capability: of the GPU, such as "8.7".
        cuda: newest CUDA version that the driver serves, such as "12.6".
    """

    name: str
    compute_capability: str
    cuda: str


def cuda_device() -> CudaDevice:
    """The CUDA device that networks run on.

    Raises:
        BackendError: there is none; says what is missing.
    """
    try:
        driver = _Driver()
        number, device = ctypes.c_int(), ctypes.c_int()
        driver.call("cuInit", 0)
        driver.call("cuDeviceGetCount", ctypes.byref(number))
        if number.value == 0:
            raise BackendError("the NVIDIA driver counts 0 devices")
        driver.call("cuDeviceGet", ctypes.byref(device), 0)
        name = ctypes.create_string_buffer(_NAME_SIZE)
        driver.call("cuDeviceGetName", name, _NAME_SIZE, device)
        version, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        driver.call("cuDriverGetVersion", ctypes.byref(version))
        for part, attribute in (
            (major, _COMPUTE_CAPABILITY_MAJOR),
            (minor, _COMPUTE_CAPABILITY_MINOR),
        ):
            driver.call("cuDeviceGetAttribute", ctypes.byref(part), attribute, device)
    except BackendError as error:
        raise BackendError(f"no CUDA device: {error}") from None
    return CudaDevice(
        name=name.value.decode(errors="replace"),
        compute_capability=f"{major.value}.{minor.value}",
        cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


def device_memory() -> tuple[int, int]:
    """Bytes of the first CUDA device that are in use, by whatever program, and in all.

    Where no network is loaded this makes and removes a CUDA context, which takes long.

    Raises:
        BackendError: there is no device, or it does not tell.
    """
    driver = _Driver()
    device, context, ours = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    driver.call("cuInit", 0)
    driver.call("cuDeviceGet", ctypes.byref(device), 0)
    driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    try:
        driver.call("cuCtxPushCurrent_v2", context)
        try:
            driver.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        finally:
            driver.call("cuCtxPopCurrent_v2", ctypes.byref(ours))
    finally:
        driver.call("cuDevicePrimaryCtxRelease_v2", device)
    return total.value - free.value, total.value


class CudaGraph:
    """Work recorded from a stream once, to be launched as a whole.

    Needs a current context, in the thread that records, launches and deletes.

    Args:
        stream: handle of a CUstream.
        work: puts work on that stream, without waiting for it.

    Raises:
        ModelError: the work cannot be recorded.
    """

    def __init__(self, stream: int, work: Callable[[], None]) -> None:
        self._driver = _Driver()
        self._stream = ctypes.c_void_p(stream)
        self._graph = ctypes.c_void_p()
        graph = ctypes.c_void_p()
        try:
            self._driver.call("cuStreamBeginCapture_v2", self._stream, _CAPTURE_MODE_THREAD_LOCAL)
            try:
                work()
            except ModelError:
                with contextlib.suppress(BackendError):  # what went wrong in the work matters more
                    self._driver.call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
                raise
            self._driver.call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
            self._driver.call(
                "cuGraphInstantiateWithFlags",
                ctypes.byref(self._graph),
                graph,
                ctypes.c_ulonglong(0),
            )
        except BackendError as error:
            raise ModelError(f"the work cannot be recorded: {error}") from error
        self._driver.call("cuGraphDestroy", graph)

    def launch(self) -> None:
        """Put the recorded work on the stream it was recorded from."""
        self._driver.call("cuGraphLaunch", self._graph, self._stream)

    def __del__(self) -> None:
        if self._graph:
            self._driver.call("cuGraphExecDestroy", self._graph)


class _Driver:
    """The CUDA driver's functions, whose failures are raised as `BackendError`."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise BackendError(
                f"the NVIDIA driver is not installed ({_LIBRARY} cannot be loaded)"
            ) from error

    def call(self, function: str, *arguments: object) -> None:
        try:
            status = self._library[function](*arguments)
        except AttributeError:
            raise BackendError(f"the NVIDIA driver is too old: it has no {function}") from None
        if status != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(status, ctypes.byref(text))
            meaning = (text.value or b"unknown error").decode()
            raise BackendError(f"{function} failed with {status}, {meaning}")
