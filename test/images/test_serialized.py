# SPDX-License-Identifier: Apache-2.0
"""Serialized images are read as rclpy reads them, whatever they contain, and without a copy."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from scrfd_ros.errors import ImageError
from scrfd_ros.images.serialized import SerializedImage, parse_image


def image(frame_id: str, encoding: str) -> Image:
    return Image(
        header=Header(stamp=Time(sec=-3, nanosec=999_999_999), frame_id=frame_id),
        height=2,
        width=3,
        encoding=encoding,
        is_bigendian=1,
        step=4,
        data=array("B", range(8)),
    )


def fields(message: Image) -> SerializedImage:
    stamp = message.header.stamp
    return SerializedImage(
        stamp.sec,
        stamp.nanosec,
        message.header.frame_id,
        message.height,
        message.width,
        message.encoding,
        message.is_bigendian,
        message.step,
        memoryview(message.data),
    )


@pytest.mark.parametrize("encoding", ["", "8", "bgr8", "bayer_rggb16"])
@pytest.mark.parametrize("frame_id", ["", "a", "ab", "abc", "abcd", "cämera", "a/b" * 500])
def test_fields_are_those_that_rclpy_reads(frame_id: str, encoding: str) -> None:
    serialized = serialize_message(image(frame_id, encoding))
    expected = fields(deserialize_message(serialized, Image))
    found = parse_image(serialized)
    assert found == expected


def test_other_byte_order() -> None:
    """A message of a big-endian machine, put together by hand."""
    text = b"\0\0\0\4cam\0"
    serialized = (
        b"\0\0\0\0"
        + (7).to_bytes(4, "big")
        + (9).to_bytes(4, "big")
        + text
        + b"".join(number.to_bytes(4, "big") for number in (1, 2))
        + b"\0\0\0\6mono8\0"
        + b"\1\0"  # and a byte of padding
        + b"".join(number.to_bytes(4, "big") for number in (2, 2))
        + b"\5\6"
    )
    found = parse_image(serialized)
    assert found[:-1] == (7, 9, "cam", 1, 2, "mono8", 1, 2)
    assert found.data == b"\5\6"


def test_pixels_are_not_copied() -> None:
    serialized = serialize_message(image("camera", "bgr8"))
    data = np.frombuffer(parse_image(serialized).data, np.uint8)
    assert np.shares_memory(data, np.frombuffer(serialized, np.uint8))


def test_every_cut_is_refused() -> None:
    serialized = serialize_message(image("camera", "bgr8"))
    whole = serialized[: serialized.rindex(bytes(range(8))) + 8]  # the rest is padding
    assert parse_image(whole).data == bytes(range(8))
    for length in range(len(whole)):
        with pytest.raises(ImageError, match=f"image message of {length} bytes: expected a whole"):
            parse_image(serialized[:length])


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\2", "00 02, which is a list of"),
        (b"\0\7", "00 07, which is XCDR2"),
        (b"\1\1", "01 01"),
    ],
)
def test_other_representations_are_refused(start: bytes, name: str) -> None:
    serialized = serialize_message(image("camera", "bgr8"))
    with pytest.raises(ImageError, match=f"plain CDR \\(it begins with {name}"):
        parse_image(start + serialized[2:])
