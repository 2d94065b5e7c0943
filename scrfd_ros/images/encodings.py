# SPDX-License-Identifier: Apache-2.0
"""Decode raw image messages: numpy and OpenCV, no ROS.

To add an encoding, add it to `LAYOUTS`. If its lines of values are arranged in a new way, extend
`Layout.lines` and `bgr_from_image`.
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
    """The fields of a sensor_msgs/Image that are used here, whichever library made the message."""

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
        """A buffer of bytes, such as rclpy's array.array or rosbags' ndarray."""


class Layout(NamedTuple):
    """How an encoding stores an image.

    Attributes:
        channels: values per pixel in a line.
        conversion: OpenCV's conversion to BGR; None if the values are BGR already.
        value_bytes: bytes per value.
        shared: columns and rows of pixels that share one color. If rows share it (4:2:0), half as
            many lines with colors follow the lines with brightness.
    """

    channels: int
    conversion: int | None
    value_bytes: int = 1
    shared: tuple[int, int] = (1, 1)

    def lines(self, height: int) -> int:
        """Number of lines of values in an image of this height."""
        return height if self.shared[1] == 1 else height * 3 // 2


# ROS names a Bayer pattern after its top left 2 x 2 pixels, OpenCV after the second and third pixel
# of the second row.
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

LAYOUTS = {
    f"{name}{8 * value_bytes}": Layout(channels, conversion, value_bytes)
    for value_bytes in (1, 2)
    for name, (channels, conversion) in _8_OR_16_BITS.items()
}
LAYOUTS |= {
    # Generic types do not name colors; OpenCV programs use them for these.
    "8UC1": Layout(1, cv2.COLOR_GRAY2BGR),
    "8UC3": Layout(3, None),
    "8UC4": Layout(4, cv2.COLOR_BGRA2BGR),
    "uyvy": Layout(2, cv2.COLOR_YUV2BGR_UYVY, shared=(2, 1)),
    "yuv422": Layout(2, cv2.COLOR_YUV2BGR_UYVY, shared=(2, 1)),
    "yuyv": Layout(2, cv2.COLOR_YUV2BGR_YUY2, shared=(2, 1)),
    "yuv422_yuy2": Layout(2, cv2.COLOR_YUV2BGR_YUY2, shared=(2, 1)),
    "nv12": Layout(1, cv2.COLOR_YUV2BGR_NV12, shared=(2, 2)),
    "nv21": Layout(1, cv2.COLOR_YUV2BGR_NV21, shared=(2, 2)),
}
"""How each encoding stores an image."""

ENCODINGS = tuple(LAYOUTS)
"""The encodings that `bgr_from_image` decodes."""

_NAMES = {name.lower(): name for name in LAYOUTS}

_DEPTH = frozenset(("16uc1", "32fc1", "64fc1", "16sc1"))

_COMPRESSED = frozenset(("jpeg", "jpg", "mjpeg", "mjpg", "png", "h264", "h265", "hevc"))

NO_DEPTH = (
    "this is a depth image, in which no faces can be found; choose the topic of the camera's "
    "color image"
)
"""Why a depth image is refused, and what to do."""


def is_depth(encoding: str) -> bool:
    """Whether the one value per pixel is depth, disparity or confidence instead of brightness."""
    return encoding.strip().lower() in _DEPTH


def bayer_conversion(encoding: str) -> int | None:
    """OpenCV's code to convert a Bayer pattern to BGR; None for other encodings."""
    return (
        LAYOUTS[encoding].conversion
        if encoding.startswith("bayer") and encoding in LAYOUTS
        else None
    )


def known_encoding(encoding: str) -> str | None:
    """The name in `ENCODINGS`, regardless of capitals and blanks; None if there is none.

    Raises:
        ImageError: the encoding is known to hold depth or compressed data.
    """
    if encoding in LAYOUTS:  # almost always
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
    """Decode a raw image message.

    16-bit values are divided by 257 and rounded, so that white stays white, as in cv_bridge. YUV
    is BT.601 with black at 16.

    Mistakes of drivers are accepted if they have only one meaning: capitals and blanks in the
    encoding; a last row without its padding; a step of 0 or of the width in pixels, if the data has
    exactly the size of the pixels.

    Returns:
        uint8 [H, W, 3] BGR. For bgr8 and 8UC3 a read-only view of the message's data, whose rows
        may be padded; otherwise a new array.

    Raises:
        UnknownEncodingError: the encoding is not in `ENCODINGS`.
        ImageError: the encoding holds no image, there are no pixels, or size, step and data do not
            agree.
    """
    name = known_encoding(message.encoding)
    if name is None:
        raise UnknownEncodingError(
            f"unknown image encoding {message.encoding[:100]!r}; expected one of "
            f"{', '.join(ENCODINGS)}; "
            f"choose one in the camera's driver, preferably bgr8"
        )
    layout = LAYOUTS[name]
    pixels = _view(message, layout)
    if layout.value_bytes == 2:
        pixels = cv2.convertScaleAbs(pixels.astype(np.uint16), alpha=1 / 257)
    if layout.conversion is not None:
        if pixels.shape[:2] == (1, 1):  # refused by OpenCV 4.5
            pixels = cv2.cvtColor(np.repeat(pixels, 2, axis=0), layout.conversion)[:1]
        else:
            pixels = cv2.cvtColor(pixels, layout.conversion)
    return np.asarray(pixels, np.uint8)


def _view(message: ImageMessage, layout: Layout) -> NDArray[Any]:
    """A read-only view of a message's values, [lines, width, channels].

    Raises:
        ImageError: size, step and data do not agree. No memory is allocated before this check,
            whatever size the message claims.
    """
    height, width, step = message.height, message.width, message.step
    columns, rows = layout.shared
    lines = layout.lines(height)
    pixel_bytes = layout.channels * layout.value_bytes
    size = memoryview(message.data).nbytes
    row_bytes = width * pixel_bytes
    if step in (0, width) and size == lines * row_bytes:
        step = row_bytes  # the step was not set, or counts pixels; the data allows no other
    smallest = (lines - 1) * step + row_bytes  # without the padding of the last row
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
    elif not smallest <= size <= lines * step:
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
