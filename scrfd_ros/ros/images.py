"""From sensor_msgs/Image to the picture that the pipeline takes, and back."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.errors import ImageError

if TYPE_CHECKING:
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header


class ImageMessage(Protocol):
    """The fields of a sensor_msgs/Image that matter here, whichever library made the message."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any  # any buffer of bytes: array.array from rclpy, ndarray from rosbags


class _Layout(NamedTuple):
    """How an encoding stores a picture.

    Attributes:
        channels: values per pixel in a line.
        conversion: OpenCV's conversion to BGR; None where it is BGR already.
        value_bytes: bytes per value.
        shared: columns and rows of pixels that share their colour. Where rows do, the colour
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
    # Generic types say nothing of colour; these are what OpenCV programs mean by them.
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


def bgr_from_image(message: ImageMessage) -> NDArray[np.uint8]:
    """The picture in a message.

    16-bit values are divided by 257 and rounded, so that white stays white, as in cv_bridge. YUV
    is taken as BT.601 with black at 16. An encoding that is not known here goes to cv_bridge.

    Returns:
        uint8 [H, W, 3] BGR: for bgr8 and 8UC3 a read-only view of the message's data, rows
        perhaps padded; else a new array.

    Raises:
        ImageError: unknown encoding, no pixels, or a size, step and data that do not agree.
    """
    layout = _LAYOUTS.get(message.encoding)
    if layout is None:
        return _through_cv_bridge(message)
    pixels = _view(message, layout)
    if layout.value_bytes == 2:
        pixels = cv2.convertScaleAbs(pixels.astype(np.uint16), alpha=1 / 257)
    if layout.conversion is not None:
        pixels = cv2.cvtColor(pixels, layout.conversion)
    return np.asarray(pixels, np.uint8)


def image_message(picture: NDArray[np.uint8], header: Header) -> Image:
    """A bgr8 message of a picture, uint8 [H, W, 3] BGR."""
    from sensor_msgs.msg import Image  # reading messages, from a bag for one, needs no ROS

    height, width = picture.shape[:2]
    message = Image(header=header, height=height, width=width, encoding="bgr8", step=3 * width)
    # The one type that the setter takes as it is; it would check others byte by byte.
    data = array("B")
    data.frombytes(np.ascontiguousarray(picture).data)
    message.data = data
    return message


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
    problem = ""
    if height < 1 or width < 1:
        problem = "expected at least one pixel; check the resolution set in the camera's driver"
    elif width % columns or height % rows:
        problem = (
            f"{columns} x {rows} pixels share a colour in this encoding, expected a size that is "
            f"a multiple of that; choose such a resolution, or bgr8, in the camera's driver"
        )
    elif step < width * pixel_bytes:
        problem = (
            f"step is {step}, expected at least {width * pixel_bytes} (width x {pixel_bytes} "
            f"bytes); the publisher must set it to the length of a row in bytes"
        )
    elif size != lines * step:
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


def _through_cv_bridge(message: ImageMessage) -> NDArray[np.uint8]:
    try:
        from cv_bridge import CvBridge

        return np.asarray(CvBridge().imgmsg_to_cv2(message, "bgr8"), np.uint8)
    except Exception as error:  # cv_bridge, numpy and OpenCV raise a kind of error each
        raise ImageError(
            f"unknown image encoding {message.encoding!r}; expected one of {', '.join(_LAYOUTS)}, "
            f"or one that cv_bridge converts where it is installed (tried: {error}); choose one "
            f"in the camera's driver, best bgr8"
        ) from error
