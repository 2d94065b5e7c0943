# SPDX-License-Identifier: Apache-2.0
"""Stands in for pycuda.driver where there is no GPU, on the simulated CUDA driver.

Like the real one, it calls the driver, raises its failures as errors, and frees what it
allocated with the last reference. Where no context is current then, the real one warns and
loses the memory; this one only loses it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import struct
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scrfd_ros.inference import cuda


class Error(Exception):
    """Base class of pycuda's errors."""


class LogicError(Error):
    """A call that the driver does not allow."""


class MemoryError(Error):
    """Not enough memory."""


class LaunchError(Error):
    """Work on a stream failed."""


_OUT_OF_MEMORY, _ILLEGAL_ADDRESS = 2, 700
_ERRORS = {_OUT_OF_MEMORY: MemoryError, _ILLEGAL_ADDRESS: LaunchError}


@functools.cache  # what is deleted after a test still finds the driver
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL(cuda._LIBRARY)


def _call(function: str, *arguments: Any) -> None:
    library = _driver()
    status = library[function](*arguments)
    if status:
        text = ctypes.c_char_p()
        library.cuGetErrorString(status, ctypes.byref(text))
        name = function.partition("_")[0]
        raise _ERRORS.get(status, LogicError)(f"{name} failed: {(text.value or b'').decode()}")


def _new(function: str, *arguments: Any) -> ctypes.c_void_p:
    handle = ctypes.c_void_p()
    _call(function, ctypes.byref(handle), *arguments)
    return handle


class _Owned:
    """What the driver gives out, until the last reference is gone."""

    _free: str

    def __init__(self, function: str, *arguments: Any) -> None:
        self._handle: ctypes.c_void_p | None = None
        self._handle = _new(function, *arguments)

    def __del__(self) -> None:
        if self._handle is not None:
            with contextlib.suppress(Error):
                _call(self._free, self._handle)


def init() -> None:
    _call("cuInit", 0)


class Context:
    def __init__(self, device: int) -> None:
        self._handle = _new("cuDevicePrimaryCtxRetain", device)
        self._device = device

    def push(self) -> None:
        _call("cuCtxPushCurrent_v2", self._handle)

    @staticmethod
    def pop() -> None:
        _call("cuCtxPopCurrent_v2", None)

    def __del__(self) -> None:
        if hasattr(self, "_device"):
            _call("cuDevicePrimaryCtxRelease_v2", self._device)


class Device:
    def __init__(self, ordinal: int) -> None:
        self._ordinal = ordinal

    def retain_primary_context(self) -> Context:
        return Context(self._ordinal)


class Stream(_Owned):
    _free = "cuStreamDestroy_v2"

    def __init__(self, flags: int = 0) -> None:
        super().__init__("cuStreamCreate", flags)

    @property
    def handle(self) -> int:
        assert self._handle is not None
        return self._handle.value or 0

    def synchronize(self) -> None:
        _call("cuStreamSynchronize", self._handle)


class Event(_Owned):
    _free = "cuEventDestroy_v2"

    def __init__(self, flags: int = 0) -> None:
        super().__init__("cuEventCreate", flags)

    def record(self, stream: Stream) -> Event:
        _call("cuEventRecord", self._handle, stream._handle)
        return self

    def time_till(self, event: Event) -> float:
        milliseconds = ctypes.c_float()
        _call("cuEventElapsedTime", ctypes.byref(milliseconds), self._handle, event._handle)
        return milliseconds.value


class DeviceAllocation(_Owned):
    _free = "cuMemFree_v2"

    def __init__(self, size: int) -> None:
        super().__init__("cuMemAlloc_v2", ctypes.c_size_t(size))

    def __int__(self) -> int:
        assert self._handle is not None
        return self._handle.value or 0


class PagelockedHostAllocation(_Owned):
    _free = "cuMemFreeHost"

    def __init__(self, size: int) -> None:
        super().__init__("cuMemHostAlloc", ctypes.c_size_t(size), 0)
        assert self._handle is not None
        self.__array_interface__ = {
            "shape": (size,),
            "typestr": "|u1",
            "data": (self._handle.value, False),
            "version": 3,
        }


def mem_alloc(size: int) -> DeviceAllocation:
    return DeviceAllocation(size)


def pagelocked_empty(shape: int, dtype: DTypeLike) -> NDArray[Any]:
    return np.asarray(PagelockedHostAllocation(shape * np.dtype(dtype).itemsize)).view(dtype)


def _memory(array: NDArray[Any]) -> tuple[int, ctypes.c_size_t]:
    if not array.flags.c_contiguous:
        raise ValueError("ndarray is not contiguous")
    return array.ctypes.data, ctypes.c_size_t(array.nbytes)


def memcpy_htod_async(device: int, array: NDArray[Any], stream: Stream) -> None:
    address, size = _memory(array)
    pointers = ctypes.c_void_p(int(device)), ctypes.c_void_p(address)
    _call("cuMemcpyHtoDAsync_v2", *pointers, size, stream._handle)


def memcpy_dtoh_async(array: NDArray[Any], device: int, stream: Stream) -> None:
    address, size = _memory(array)
    pointers = ctypes.c_void_p(address), ctypes.c_void_p(int(device))
    _call("cuMemcpyDtoHAsync_v2", *pointers, size, stream._handle)


class Module(_Owned):
    _free = "cuModuleUnload"

    def __init__(self, image: bytes) -> None:
        super().__init__("cuModuleLoadData", image)

    def get_function(self, name: str) -> Function:
        return Function(self, _new("cuModuleGetFunction", self._handle, name.encode()))


def module_from_buffer(image: bytes) -> Module:
    return Module(image)


class Function:
    def __init__(self, module: Module, handle: ctypes.c_void_p) -> None:
        self._module, self._handle = module, handle

    def __call__(
        self,
        *arguments: np.generic,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        stream: Stream,
    ) -> None:
        kinds = "".join(argument.dtype.char for argument in arguments)
        values = ctypes.create_string_buffer(struct.pack(kinds, *arguments))
        size = ctypes.c_size_t(struct.calcsize(kinds))
        extra = (ctypes.c_void_p * 5)(1, ctypes.addressof(values), 2, ctypes.addressof(size), None)
        _call("cuLaunchKernel", self._handle, *grid, *block, 0, stream._handle, None, extra)
