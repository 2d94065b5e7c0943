# SPDX-License-Identifier: Apache-2.0
"""From raw image messages to images: numpy and OpenCV, no ROS.

A message is any object with the fields of a sensor_msgs/Image, whichever library
made it.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.errors import ImageError


class UnknownEncodingError(ImageError):
    """The encoding of a raw image is not in `ENCODINGS`."""


@runtime_checkable
class ImageMessage(Protocol):
    """The fields of a sensor_msgs/Image that matter here, whichever library made the message."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def encoding(self) -> str: ...
    @property
    def is_bigendian(self) -> int: ...
    @property
    def step(self) -> int: ...
    @property
    def data(self) -> Any:
        """Any buffer of bytes: array.array from rclpy, ndarray from rosbags."""


class _Layout(NamedTuple):
    """How an encoding stores an image.

    Attributes:
        channels: values per pixel in a line.
        conversion: OpenCV's conversion to BGR; None where it is BGR already.
        value_bytes: bytes per value.
        shared: columns and rows of pixels that share their color. Where rows do, the color
            follows the brightness in half as many lines more (4:2:0).
    """

    channels: int
    conversion: int | None
    value_bytes: int = 1
    shared: tuple[int, int] = (1, 1)


# ROS names a Bayer pattern by its top left 2 x 2 pixels. OpenCV names it by the second and third
# pixel of its second row.
_8_OR_16_BITS = {
    "bgr": (3, None),
    "rgb": (3, cv2.COLOR_RGB2BGR),
    "bgra": (4, cv2.COLOR_BGRA2BGR),
    "rgba": (4, cv2.COLOR_RGBA2BGR),
    "mono": (1, cv2.COLOR_GRAY2BGR),
    "bayer_rggb": (1, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr": (1, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg": (1, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg": (1, cv2.COLOR_BayerGB2BGR),
}

_LAYOUTS = {
    f"{name}{8 * value_bytes}": _Layout(channels, conversion, value_bytes)
    for value_bytes in (1, 2)
    for name, (channels, conversion) in _8_OR_16_BITS.items()
}
_LAYOUTS |= {
    # Generic types say nothing of color; these are what OpenCV programs mean by them.
    "8UC1": _Layout(1, cv2.COLOR_GRAY2BGR),
    "8UC3": _Layout(3, None),
    "8UC4": _Layout(4, cv2.COLOR_BGRA2BGR),
    "uyvy": _Layout(2, cv2.COLOR_YUV2BGR_UYVY, shared=(2, 1)),
    "yuv422": _Layout(2, cv2.COLOR_YUV2BGR_UYVY, shared=(2, 1)),
    "yuyv": _Layout(2, cv2.COLOR_YUV2BGR_YUY2, shared=(2, 1)),
    "yuv422_yuy2": _Layout(2, cv2.COLOR_YUV2BGR_YUY2, shared=(2, 1)),
    "nv12": _Layout(1, cv2.COLOR_YUV2BGR_NV12, shared=(2, 2)),
    "nv21": _Layout(1, cv2.COLOR_YUV2BGR_NV21, shared=(2, 2)),
}

ENCODINGS = tuple(_LAYOUTS)
"""What `bgr_from_image` knows."""

_NAMES = {name.lower(): name for name in _LAYOUTS}

_DEPTH = frozenset(("16uc1", "32fc1", "64fc1", "16sc1"))

_COMPRESSED = frozenset(("jpeg", "jpg", "mjpeg", "mjpg", "png", "h264", "h265", "hevc"))

NO_DEPTH = (
    "this is a depth image, in which no faces can be found; choose the topic of the camera's "
    "color image"
)
"""Why an image of depth is refused, and what to do."""


def is_depth(encoding: str) -> bool:
    """Whether an encoding has one value that is no brightness: depth, disparity, confidence."""
    return encoding.strip().lower() in _DEPTH


def bayer_conversion(encoding: str) -> int | None:
    """OpenCV's conversion of a Bayer pattern to BGR; None for other encodings."""
    return (
        _LAYOUTS[encoding].conversion
        if encoding.startswith("bayer") and encoding in _LAYOUTS
        else None
    )


def known_encoding(encoding: str) -> str | None:
    """The one of `ENCODINGS` that is meant, whatever its capitals and blanks; None for others.

    Raises:
        ImageError: it is known to be no image of brightness or color.
    """
    if encoding in _LAYOUTS:  # almost always
        return encoding
    plain = encoding.strip().lower()
    if is_depth(plain):
        raise ImageError(f"image encoding {encoding!r}: {NO_DEPTH}")
    if plain in _COMPRESSED:
        raise ImageError(
            f"image encoding {encoding!r}: compressed data in a raw image; have the camera's "
            f"driver decode it, or publish it as sensor_msgs/CompressedImage and set the parameter "
            f"image_transport to compressed"
        )
    return _NAMES.get(plain)


def bgr_from_image(message: ImageMessage) -> NDArray[np.uint8]:
    """The image in a message.

    16-bit values are divided by 257 and rounded, so that white stays white, as in cv_bridge. YUV
    is taken as BT.601 with black at 16.

    What drivers leave wrong is taken where it can mean but one thing: capitals and blanks in the
    encoding; a last row without its padding; a step of 0 or of the width, where the data has
    exactly the pixels.

    Returns:
        uint8 [H, W, 3] BGR: for bgr8 and 8UC3 a read-only view of the message's data, rows
        perhaps padded; else a new array.

    Raises:
        ImageError: unknown encoding, no pixels, or a size, step and data that do not agree.
    """
    name = known_encoding(message.encoding)
    if name is None:
        raise UnknownEncodingError(
            f"unknown image encoding {message.encoding!r}; expected one of {', '.join(ENCODINGS)}; "
            f"choose one in the camera's driver, best bgr8"
        )
    layout = _LAYOUTS[name]
    pixels = _view(message, layout)
    if layout.value_bytes == 2:
        pixels = cv2.convertScaleAbs(pixels.astype(np.uint16), alpha=1 / 257)
    if layout.conversion is not None:
        pixels = cv2.cvtColor(pixels, layout.conversion)
    return np.asarray(pixels, np.uint8)


def _view(message: ImageMessage, layout: _Layout) -> NDArray[Any]:
    """The values of a message, [lines, width, channels], read-only and without a copy.

    Raises:
        ImageError: size, step and data do not agree. Found before any memory is taken, whatever
            size the message claims.
    """
    height, width, step = message.height, message.width, message.step
    columns, rows = layout.shared
    lines = height if rows == 1 else height * 3 // 2
    pixel_bytes = layout.channels * layout.value_bytes
    size = memoryview(message.data).nbytes
    row_bytes = width * pixel_bytes
    if step in (0, width) and size == lines * row_bytes:
        step = row_bytes  # never set, or counted in pixels; the data has no room for another
    problem = ""
    if height < 1 or width < 1:
        problem = "expected at least one pixel; check the resolution set in the camera's driver"
    elif width % columns or height % rows:
        problem = (
            f"{columns} x {rows} pixels share a color in this encoding, expected a size that is "
            f"a multiple of that; choose such a resolution, or bgr8, in the camera's driver"
        )
    elif step < row_bytes:
        problem = (
            f"step is {step}, expected at least {row_bytes} (width x {pixel_bytes} "
            f"bytes); the publisher must set it to the length of a row in bytes"
        )
    elif not (lines - 1) * step + row_bytes <= size <= lines * step:  # perhaps without padding
        problem = (
            f"data has {size} bytes, expected {lines * step} ({lines} lines x step {step}); the "
            f"publisher must send whole rows and the step they have"
        )
    if problem:
        raise ImageError(f"image of {width} x {height} pixels, {message.encoding}: {problem}")
    byte_order = ">" if message.is_bigendian else "<"
    view: NDArray[Any] = np.ndarray(
        (lines, width, layout.channels),
        f"{byte_order}u{layout.value_bytes}",
        message.data,
        strides=(step, pixel_bytes, layout.value_bytes),
    )
    view.flags.writeable = False
    return view
