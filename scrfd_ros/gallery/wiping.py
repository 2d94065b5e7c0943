# SPDX-License-Identifier: Apache-2.0
"""Memory that is freed while a gallery is read or written does not keep what was in it.

SQLite, psycopg, Python and numpy copy names and embeddings, and free the copies as they are. Nobody
else can overwrite them, but the allocator can.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_M_PERTURB = -6  # malloc.h: what is freed is filled with a byte
_BYTE = 0x5A
_CACHED = range(16, 1033, 16)  # glibc keeps some freed blocks of these sizes for each thread, as is
_CACHED_BLOCKS = 7  # of each size
_OBJECTS = range(64, 513, 16)  # Python has an allocator of its own for objects of these sizes
_OBJECT_BLOCKS = 200

_P = ParamSpec("_P")
_T = TypeVar("_T")

_lock = threading.Lock()
_depth = 0  # calls under way


class _OfThread(threading.local):
    depth = 0


_of_thread = _OfThread()


def leaves_no_copies(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Have memory overwritten that is freed while a function runs, by all threads.

    With the allocator of glibc; others have nothing of the kind.
    """

    @functools.wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        _change_depth(1)
        try:
            return function(*args, **kwargs)
        finally:
            if _of_thread.depth == 1:
                _overwrite_free_blocks()
            _change_depth(-1)

    return wrapped


def _change_depth(by: int) -> None:
    global _depth
    _of_thread.depth += by
    if _LIBC is None:
        return
    with _lock:
        _depth += by
        _LIBC.mallopt(_M_PERTURB, _BYTE if _depth else 0)


def _overwrite_free_blocks() -> None:
    """Take the small blocks that are free, or that this thread keeps, and fill them."""
    if _LIBC is not None:
        blocks = [
            (_LIBC.malloc(size - 8), size - 8) for size in _CACHED for _ in range(_CACHED_BLOCKS)
        ]
        for block, size in blocks:
            ctypes.memset(block, _BYTE, size)
            _LIBC.free(block)
    for size in _OBJECTS:
        # A block of bytes has a head of 33 bytes.
        _ = [bytes([_BYTE]) * (size - 33) for _ in range(_OBJECT_BLOCKS)]


def _libc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return None
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    return libc


_LIBC = _libc()
