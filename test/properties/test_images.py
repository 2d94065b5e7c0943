# SPDX-License-Identifier: Apache-2.0
"""Image messages of any size, step, padding and byte order, read pixel by pixel for comparison."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from scrfd_ros.errors import ImageError
from scrfd_ros.images.compressed import bgr_from_compressed
from scrfd_ros.images.encodings import ENCODINGS, bgr_from_image
from scrfd_ros.images.serialized import parse_image

TYPES = get_typestore(Stores.ROS2_JAZZY)

# The positions of blue, green and red among the values of a pixel, and their number.
PLAIN = {
    "bgr": ((0, 1, 2), 3),
    "rgb": ((2, 1, 0), 3),
    "bgra": ((0, 1, 2), 4),
    "rgba": ((2, 1, 0), 4),
    "mono": ((0, 0, 0), 1),
}
GENERIC = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8"}
YUV422 = {"uyvy": (1, 0, 2), "yuv422": (1, 0, 2), "yuyv": (0, 1, 3), "yuv422_yuy2": (0, 1, 3)}
YUV420 = {"nv12": (0, 1), "nv21": (1, 0)}
SHARING = {**dict.fromkeys(YUV422, (2, 1)), **dict.fromkeys(YUV420, (2, 2))}
BAYER = sorted(name for name in ENCODINGS if name.startswith("bayer"))
OTHERS = sorted(set(ENCODINGS) - set(BAYER))


@dataclass
class Message:
    """An image message that needs no ROS."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


def value_bytes(encoding: str) -> int:
    return 2 if encoding.endswith("16") else 1


def values_per_pixel(encoding: str) -> int:
    if encoding in YUV422:
        return 2
    name = GENERIC.get(encoding, encoding).rstrip("0123456789")
    return PLAIN[name][1] if name in PLAIN else 1


@st.composite
def messages(draw: st.DrawFn, encodings: list[str], shortest: int = 1) -> Message:
    encoding = draw(st.sampled_from(encodings))
    columns, rows = SHARING.get(encoding, (1, 1))
    lengths = st.integers(shortest, 9)
    width, height = columns * draw(lengths), rows * draw(lengths)
    lines = height * 3 // 2 if encoding in YUV420 else height
    step = width * values_per_pixel(encoding) * value_bytes(encoding) + draw(st.integers(0, 7))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    data = random.integers(0, 256, lines * step, np.uint8).tobytes()
    return Message(height, width, encoding, draw(st.integers(0, 1)), step, data)


def value(message: Message, line: int, number: int) -> float:
    """A value of a line, 0 to 255."""
    if value_bytes(message.encoding) == 1:
        return float(message.data[line * message.step + number])
    order = ">H" if message.is_bigendian else "<H"
    return float(struct.unpack_from(order, message.data, line * message.step + 2 * number)[0]) / 257


def pixel(message: Message, x: int, y: int) -> list[float]:
    """Blue, green and red before rounding."""
    if message.encoding in YUV422:
        of_luma, of_u, of_v = YUV422[message.encoding]
        pair = 4 * (x // 2)
        luma = value(message, y, 2 * x + of_luma)
        return bt601(luma, value(message, y, pair + of_u), value(message, y, pair + of_v))
    if message.encoding in YUV420:
        line, pair = message.height + y // 2, 2 * (x // 2)
        u, v = (value(message, line, pair + at) for at in YUV420[message.encoding])
        return bt601(value(message, y, x), u, v)
    places, count = PLAIN[GENERIC.get(message.encoding, message.encoding).rstrip("0123456789")]
    return [value(message, y, count * x + place) for place in places]


def bt601(luma: float, u: float, v: float) -> list[float]:
    """ITU-R BT.601: luma from 16 to 235, chroma from 16 to 240. Darker than black is black."""
    y, pb, pr = (max(luma, 16) - 16) / 219, (u - 128) / 224, (v - 128) / 224
    red, blue = y + 2 * (1 - 0.299) * pr, y + 2 * (1 - 0.114) * pb
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    return [255 * min(max(color, 0), 1) for color in (blue, green, red)]


@given(messages(OTHERS))
def test_every_pixel_of_every_encoding(message: Message) -> None:
    image = bgr_from_image(message)
    assert image.shape == (message.height, message.width, 3) and image.dtype == np.uint8
    expected = [[pixel(message, x, y) for x in range(message.width)] for y in range(message.height)]
    tolerance = 1.01 if message.encoding in SHARING else 0.501  # OpenCV rounds YUV's factors too
    assert np.abs(image - np.array(expected)).max() <= tolerance


@given(messages(BAYER, shortest=3))
def test_bayer_pixels_keep_the_color_they_have(message: Message) -> None:
    """The two others are means of their neighbors, except at the edge."""
    image = bgr_from_image(message)
    pattern = message.encoding.rstrip("0123456789")[-4:]
    for y in range(1, message.height - 1):
        for x in range(1, message.width - 1):
            around = {
                (x + right, y + down): pattern[2 * ((y + down) % 2) + (x + right) % 2]
                for right in (-1, 0, 1)
                for down in (-1, 0, 1)
            }
            for place, color in enumerate("bgr"):
                samples = [
                    value(message, at_y, at_x)
                    for (at_x, at_y), name in around.items()
                    if name == color and (around[x, y] == color) == ((at_x, at_y) == (x, y))
                    # Green has only the neighbors beside, above and below.
                ]
                assert abs(image[y, x, place] - np.mean(samples)) <= 1


@given(messages(list(ENCODINGS), shortest=3), st.integers(1, 9), st.integers(0, 255))
def test_what_follows_a_row_is_not_seen(message: Message, padding: int, rubbish: int) -> None:
    lines = len(message.data) // message.step
    rows = np.frombuffer(message.data, np.uint8).reshape(lines, message.step)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=rubbish)
    wider = replace(message, step=message.step + padding, data=padded.tobytes())
    np.testing.assert_array_equal(bgr_from_image(wider), bgr_from_image(message))


@given(messages([name for name in ENCODINGS if name.endswith("16")], shortest=3))
def test_the_other_byte_order(message: Message) -> None:
    if message.step % 2:
        message = replace(message, step=message.step - 1, data=message.data[: -message.height])
    swapped = np.frombuffer(message.data, np.uint16).byteswap().tobytes()
    other = replace(message, is_bigendian=1 - message.is_bigendian, data=swapped)
    np.testing.assert_array_equal(bgr_from_image(other), bgr_from_image(message))


def is_whole(message: Message) -> bool:
    columns, rows = SHARING.get(message.encoding, (1, 1))
    lines = message.height * 3 // 2 if message.encoding in YUV420 else message.height
    row = message.width * values_per_pixel(message.encoding) * value_bytes(message.encoding)
    return (
        min(message.height, message.width) > 0
        and message.width % columns == message.height % rows == 0
        and (
            len(message.data) == lines * row and message.step in (0, message.width)
            if message.step < row
            else (lines - 1) * message.step + row <= len(message.data) <= lines * message.step
        )
    )


sizes = st.one_of(st.integers(0, 12), st.sampled_from((2**16, 2**31, 2**32 - 1)))


@given(messages(list(ENCODINGS)), sizes, sizes, sizes, st.sets(st.integers(0, 2)))
@example(Message(2, 2, "bgr8", 0, 6, bytes(12)), 0, 0, 0, {0, 1, 2})
def test_fields_that_do_not_agree_are_refused(
    message: Message, height: int, width: int, step: int, chosen: set[int]
) -> None:
    changes = {"height": height, "width": width, "step": step}
    names = [name for number, name in enumerate(changes) if number in chosen]
    message = replace(message, **{name: changes[name] for name in names})
    if is_whole(message):
        assert bgr_from_image(message).shape == (message.height, message.width, 3)
    else:
        with pytest.raises(ImageError, match=f"{message.width} x {message.height} pixels"):
            bgr_from_image(message)


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@given(
    message=messages(list(ENCODINGS)),
    frame=texts,
    seconds=st.integers(-(2**31), 2**31 - 1),
    nanoseconds=st.integers(0, 2**32 - 1),
    is_little_endian=st.booleans(),
)
def test_serialized_fields_are_read_as_rosbags_writes_them(
    message: Message, frame: str, seconds: int, nanoseconds: int, is_little_endian: bool
) -> None:
    known = TYPES.types
    stamp = known["builtin_interfaces/msg/Time"](seconds, nanoseconds)
    whole = known["sensor_msgs/msg/Image"](
        header=known["std_msgs/msg/Header"](stamp, frame),
        height=message.height,
        width=message.width,
        encoding=message.encoding,
        is_bigendian=message.is_bigendian,
        step=message.step,
        data=np.frombuffer(message.data, np.uint8),
    )
    serialized = bytes(
        TYPES.serialize_cdr(whole, whole.__msgtype__, little_endian=is_little_endian)
    )
    read = parse_image(serialized)
    assert read[:3] == (seconds, nanoseconds, frame)
    same = Message(
        read.height, read.width, read.encoding, read.is_bigendian, read.step, bytes(read.data)
    )
    assert same == message
    np.testing.assert_array_equal(bgr_from_image(read), bgr_from_image(message))
    data_begins = len(serialized) - len(message.data)
    for end in {0, 3, data_begins - 1, data_begins, len(serialized) - 1}:
        with pytest.raises(ImageError, match=f"of {end} bytes"):
            parse_image(serialized[:end])


images = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
    lambda size: arrays(np.uint8, (*size, 3), elements=st.integers(0, 255))
)


@given(images, st.sampled_from(("bgr8; png compressed bgr8", "png", "")))
def test_png_is_lossless(image: NDArray[np.uint8], format: str) -> None:
    content = cv2.imencode(".png", image)[1].tobytes()
    decoded, reduction, *_ = bgr_from_compressed(format, content, (8, 8))
    assert reduction == 1
    np.testing.assert_array_equal(decoded, image)


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    smallest=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    color=st.tuples(*[st.integers(0, 255)] * 3),
)
def test_a_reduced_jpeg_still_fills_what_it_is_for(
    size: tuple[int, int], smallest: tuple[int, int], color: tuple[int, int, int]
) -> None:
    image = np.full((*size[::-1], 3), color, np.uint8)
    content = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, 100))[1].tobytes()
    reduced, reduction, *_ = bgr_from_compressed("jpeg", content, smallest)
    assert reduction in (1, 2, 4, 8)
    assert reduced.shape == (-(-size[1] // reduction), -(-size[0] // reduction), 3)
    # One side decides how an image is fitted.
    fills = [reduced.shape[1 - axis] >= smallest[axis] for axis in (0, 1)]
    assert any(fills) or reduction == 1
    further = [size[axis] / (2 * reduction) >= smallest[axis] for axis in (0, 1)]
    assert reduction == 8 or not any(further), "it could have been smaller"
    assert np.abs(reduced.astype(int) - color).max() <= 4
