# SPDX-License-Identifier: Apache-2.0
"""Read a serialized sensor_msgs/Image without copying its pixels. Needs no ROS.

The format is plain CDR, the Common Data Representation of OMG DDSI-RTPS 2.3, section 10: after four
bytes that name the byte order, numbers lie at multiples of their size, counted from there, and
strings end with a zero.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from scrfd_ros.errors import ImageError

_BYTE_ORDERS = {b"\0\0": ">", b"\0\1": "<"}


class SerializedImage(NamedTuple):
    """The fields of a sensor_msgs/Image; `data` is a view of the message."""

    seconds: int
    nanoseconds: int
    frame_id: str
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


def parse_image(serialized: bytes) -> SerializedImage:
    """Read the fields of a serialized image.

    Raises:
        ImageError: the bytes are not a whole sensor_msgs/Image in plain CDR.
    """
    try:
        return _Reader(serialized).image()
    except (struct.error, IndexError, KeyError) as error:
        reason = error.args[0]
        raise ImageError(
            f"image message of {len(serialized)} bytes: expected a whole sensor_msgs/Image in "
            f"plain CDR ({reason}); check the publisher, and that it has the same message type"
        ) from error


def _kind_name(kind: bytes) -> str:
    """The name of the representation in a message's first two bytes (OMG DDS-XTypes 1.3, 7.6.3)."""
    number = int.from_bytes(kind, "big")
    if number in (2, 3):
        return "a list of parameters, PL_CDR"
    return "XCDR2" if 6 <= number <= 11 else "no representation of CDR"


class _Reader:
    def __init__(self, serialized: bytes) -> None:
        self._serialized = serialized
        kind = serialized[:2]
        if len(kind) == 2 and kind not in _BYTE_ORDERS:
            raise KeyError(f"it begins with {kind.hex(' ')}, which is {_kind_name(kind)}")
        self._byte_order = _BYTE_ORDERS[kind]
        self._position = 4

    def image(self) -> SerializedImage:
        stamp = self._number("i"), self._number("I")
        frame_id = self._text()
        size = self._number("I"), self._number("I")
        encoding = self._text()
        is_bigendian = self._number("B")
        step = self._number("I")
        data = memoryview(self._serialized)[self._skip(self._number("I"))]
        return SerializedImage(*stamp, frame_id, *size, encoding, is_bigendian, step, data)

    def _number(self, kind: str) -> int:
        layout = struct.Struct(self._byte_order + kind)
        self._position += -self._position % layout.size
        (number,) = layout.unpack_from(self._serialized, self._position)
        self._position += layout.size
        return int(number)

    def _text(self) -> str:
        text = self._serialized[self._skip(self._number("I"))]
        return text.rstrip(b"\0").decode(errors="replace")

    def _skip(self, count: int) -> slice:
        """The place of the next `count` bytes.

        Raises:
            IndexError: the message is shorter.
        """
        begin, end = self._position, self._position + count
        if end > len(self._serialized):
            raise IndexError(f"it ends before the {count} bytes at {begin}")
        self._position = end
        return slice(begin, end)
