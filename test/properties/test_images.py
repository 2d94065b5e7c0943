# SPDX-License-Identifier: Apache-2.0
"""Image messages of any size, step, padding and byte order, read pixel by pixel for comparison."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from raw_images import BAYER, Message, by_hand, largest_difference
from rosbags.typesys import Stores, get_typestore

from scrfd_ros.errors import ImageError
from scrfd_ros.images.compressed import bgr_from_compressed
from scrfd_ros.images.encodings import ENCODINGS, LAYOUTS, bgr_from_image
from scrfd_ros.images.serialized import parse_image

TYPES = get_typestore(Stores.ROS2_JAZZY)

OTHERS = [name for name in ENCODINGS if name not in BAYER]
WORDS = [name for name in ENCODINGS if LAYOUTS[name].value_bytes == 2]


def row_bytes(message: Message) -> int:
    """Bytes of a row without its padding."""
    layout = LAYOUTS[message.encoding]
    return message.width * layout.channels * layout.value_bytes


@st.composite
def messages(draw: st.DrawFn, encodings: list[str], shortest: int = 1) -> Message:
    encoding = draw(st.sampled_from(encodings))
    layout = LAYOUTS[encoding]
    lengths = st.integers(shortest, 9)
    width, height = (share * draw(lengths) for share in layout.shared)
    message = Message(height, width, encoding, 0, b"", draw(st.integers(0, 1)))
    message.step = row_bytes(message) + draw(st.integers(0, 7))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    message.data = random.bytes(layout.lines(height) * message.step)
    return message


def values(message: Message) -> NDArray[Any]:
    """The values of a message, [lines, width, channels]."""
    layout = LAYOUTS[message.encoding]
    dtype = f"{'>' if message.is_bigendian else '<'}u{layout.value_bytes}"
    starts = range(0, len(message.data), message.step)
    rows = [message.data[start:][: row_bytes(message)] for start in starts]
    return np.frombuffer(b"".join(rows), dtype).reshape(len(rows), -1, layout.channels)


@given(st.one_of(messages(OTHERS), messages(BAYER, shortest=3)))
def test_every_pixel_of_every_encoding(message: Message) -> None:
    image = bgr_from_image(message)
    assert image.shape == (message.height, message.width, 3) and image.dtype == np.uint8
    exact = message.encoding not in BAYER and LAYOUTS[message.encoding].shared == (1, 1)
    tolerance = 0.501 if exact else 1.01  # OpenCV rounds means and YUV's factors too
    expected = by_hand(values(message), message.encoding)
    assert largest_difference(image, expected, message.encoding) <= tolerance


@given(messages(list(ENCODINGS), shortest=3), st.integers(1, 9), st.integers(0, 255))
def test_what_follows_a_row_is_not_seen(message: Message, padding: int, rubbish: int) -> None:
    lines = len(message.data) // message.step
    rows = np.frombuffer(message.data, np.uint8).reshape(lines, message.step)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=rubbish)
    wider = replace(message, step=message.step + padding, data=padded.tobytes())
    np.testing.assert_array_equal(bgr_from_image(wider), bgr_from_image(message))


@given(messages(WORDS, shortest=3))
def test_the_other_byte_order(message: Message) -> None:
    if message.step % 2:
        message = replace(message, step=message.step - 1, data=message.data[: -message.height])
    swapped = np.frombuffer(message.data, np.uint16).byteswap().tobytes()
    other = replace(message, is_bigendian=1 - message.is_bigendian, data=swapped)
    np.testing.assert_array_equal(bgr_from_image(other), bgr_from_image(message))


def is_whole(message: Message) -> bool:
    columns, rows = LAYOUTS[message.encoding].shared
    lines = LAYOUTS[message.encoding].lines(message.height)
    row = row_bytes(message)
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
@example(Message(2, 2, "bgr8", 6, bytes(12)), 0, 0, 0, {0, 1, 2})
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
        read.height, read.width, read.encoding, read.step, bytes(read.data), read.is_bigendian
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
