# SPDX-License-Identifier: Apache-2.0
"""Direct calls of the CUDA driver: the device and its memory.

The device is probed before TensorRT is used: without a device TensorRT's classes raise various
exceptions, and trt.Runtime of 8.6 ends the process. Functions and numbers: CUDA Driver API,
cuda.h, 11.4 and newer.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from scrfd_ros.errors import BackendError

_LIBRARY = "libcuda.so.1"
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76  # of CUdevice_attribute
_NAME_SIZE = 256
# Of CUresult: errors of the device, after which all calls fail until the process ends: an ECC
# error, illegal addresses and instructions, time-outs and failed launches.
_DEVICE_LOST = frozenset((214, 700, 702, *range(714, 720)))


@dataclass(frozen=True)
class CudaDevice:
    """The first CUDA device; `CUDA_VISIBLE_DEVICES` can select it.

    Attributes:
        name: of the GPU, such as "Orin".
        compute_capability: of the GPU, such as "8.7".
        cuda: newest CUDA version that the driver supports, such as "12.6".
    """

    name: str
    compute_capability: str
    cuda: str


def cuda_device() -> CudaDevice:
    """The CUDA device that networks run on.

    Raises:
        BackendError: there is none; names what is missing.
    """
    try:
        driver = Driver()
        number, device = ctypes.c_int(), ctypes.c_int()
        driver.call("cuInit", 0)
        driver.call("cuDeviceGetCount", ctypes.byref(number))
        if number.value == 0:
            raise BackendError("the NVIDIA driver finds 0 devices")
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
    """Bytes of the first CUDA device: used by all programs together, and in total.

    If no network is loaded, this creates and removes a CUDA context, which is slow.

    Raises:
        BackendError: there is no device, or the driver cannot read its memory.
    """
    driver = Driver()
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


def failure(function: str, status: int, text: bytes) -> BackendError:
    """What a failed call of the driver is raised as.

    Args:
        function: its name.
        status: a CUresult.
        text: the driver's description of it.
    """
    what = f"{function} failed with {status}, {text.decode(errors='replace')}"
    if status in _DEVICE_LOST:
        what += "; this process cannot use the GPU any more: start it again"
    return BackendError(what)


class Driver:
    """The CUDA driver's functions.

    Raises:
        BackendError: there is no driver.
    """

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise BackendError(
                f"the NVIDIA driver is not installed ({_LIBRARY} cannot be loaded)"
            ) from error

    def call(self, function: str, *arguments: object) -> None:
        """Call a function by the name that the driver exports.

        Raises:
            BackendError: the driver lacks it, or it fails.
        """
        try:
            status = self._library[function](*arguments)
        except AttributeError:
            raise BackendError(f"the NVIDIA driver is too old: it has no {function}") from None
        if status != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(status, ctypes.byref(text))
            raise failure(function, status, text.value or b"unknown error")
