# SPDX-License-Identifier: Apache-2.0
"""Stands in for pycuda.driver where there is no GPU: the device's memory is ordinary memory.

As strict as the real one where that matters: nothing works without a current context, contexts
are current in one thread, and memory is freed only with a current context. `memory_in_use` counts
the allocated bytes.
"""

from __future__ import annotations

import ctypes
import threading

import numpy as np
from numpy.typing import DTypeLike, NDArray

_threads = threading.local()
memory_in_use = 0


class Error(Exception):
    """Base class of pycuda's errors."""


class LogicError(Error):
    """A call that the driver does not allow."""


def _check_context() -> None:
    if not getattr(_threads, "stack", None):
        raise LogicError("invalid device context: no currently active context?")


def init() -> None:
    """Does nothing; the real one initializes the driver."""


class Context:
    def push(self) -> None:
        if not hasattr(_threads, "stack"):
            _threads.stack = []
        _threads.stack.append(self)

    @staticmethod
    def pop() -> None:
        _threads.stack.pop()


class Device:
    def __init__(self, ordinal: int) -> None:
        assert ordinal == 0

    def retain_primary_context(self) -> Context:
        return Context()


class Stream:
    def __init__(self) -> None:
        _check_context()
        self.handle = id(self)

    def synchronize(self) -> None:
        _check_context()


class Event:
    def __init__(self) -> None:
        _check_context()

    def record(self, stream: Stream) -> None:
        _check_context()

    def time_till(self, event: Event) -> float:
        _check_context()
        return 0.25


class DeviceAllocation:
    def __init__(self, size: int) -> None:
        global memory_in_use
        _check_context()
        self._memory = ctypes.create_string_buffer(size)
        memory_in_use += size

    def __int__(self) -> int:
        return ctypes.addressof(self._memory)

    def __del__(self) -> None:
        global memory_in_use
        if getattr(_threads, "stack", None):  # else pycuda warns, and the memory is lost
            memory_in_use -= len(self._memory)


def mem_alloc(size: int) -> DeviceAllocation:
    return DeviceAllocation(size)


def mem_get_info() -> tuple[int, int]:
    """Free and total memory, bytes."""
    _check_context()
    return (1 << 40) - memory_in_use, 1 << 40


def pagelocked_empty(shape: int, dtype: DTypeLike) -> NDArray[np.float32]:
    _check_context()
    return np.empty(shape, dtype)


def memcpy_htod_async(device: DeviceAllocation, array: NDArray[np.float32], stream: Stream) -> None:
    _check_context()
    assert array.flags.c_contiguous
    ctypes.memmove(int(device), array.ctypes.data, array.nbytes)


def memcpy_dtoh_async(array: NDArray[np.float32], device: DeviceAllocation, stream: Stream) -> None:
    _check_context()
    assert array.flags.c_contiguous
    ctypes.memmove(array.ctypes.data, int(device), array.nbytes)
