# SPDX-License-Identifier: Apache-2.0
"""Write messages as ROS 2 sends and records them."""

from __future__ import annotations

import struct
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

_HEAD = b"\0\1\0\0"  # plain CDR, little-endian


class Stamp(Protocol):
    """The fields of a builtin_interfaces/Time, whichever library made the message."""

    @property
    def sec(self) -> int: ...
    @property
    def nanosec(self) -> int: ...


class Header(Protocol):
    """The fields of a std_msgs/Header, whichever library made the message."""

    @property
    def stamp(self) -> Stamp: ...
    @property
    def frame_id(self) -> str: ...


class CdrWriter:
    """Adds the fields of a message one after the other.

    The format is the Common Data Representation of OMG DDSI-RTPS 2.3, section 10: after four bytes
    that name the byte order, numbers lie at multiples of their size, counted from there, and
    strings end with a zero.
    """

    def __init__(self) -> None:
        self._content = bytearray()

    def numbers(self, kinds: str, *values: float) -> None:
        """Add numbers of 4 bytes; `kinds` is a format of the module struct: i, I or f for each."""
        self._align(4)
        self._content += struct.pack(f"<{kinds}", *values)

    def text(self, text: str) -> None:
        """Add a string."""
        data = text.encode()
        self.numbers("I", len(data) + 1)
        self._content += data
        self._content.append(0)

    def octet(self, value: int) -> None:
        """Add a number of one byte, 0 to 255."""
        self._content.append(value)

    def fields(self, written: bytes) -> None:
        """Add fields that another writer has written at its beginning, of at most 4 bytes each."""
        self._align(4)
        self._content += written

    def array(self, values: NDArray[Any], dtype: DTypeLike) -> None:
        """Add the numbers of an array, without their count, as `dtype`: "<f4" or "<f8"."""
        array = np.asarray(values, dtype)
        self._align(array.itemsize)
        self._content += array.tobytes()

    def header(self, header: Header) -> None:
        """Add a std_msgs/Header."""
        self.numbers("iI", header.stamp.sec, header.stamp.nanosec)
        self.text(header.frame_id)

    @property
    def written(self) -> bytes:
        """The fields, without what comes before them in a message."""
        return bytes(self._content)

    def message(self) -> bytes:
        """The whole message."""
        return _HEAD + self._content

    def _align(self, size: int) -> None:
        self._content += bytes(-len(self._content) % size)
