# SPDX-License-Identifier: Apache-2.0
"""Decode image messages, with cv_bridge for unknown encodings, and make image messages."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from scrfd_ros.errors import ImageError
from scrfd_ros.images import message as images
from scrfd_ros.images.compressed import CompressedMessage
from scrfd_ros.images.decoded import DecodedImage
from scrfd_ros.images.encodings import ENCODINGS, ImageMessage, UnknownEncodingError


def decode_message(
    message: ImageMessage | CompressedMessage,
    rotation: int = 0,
    fit: tuple[int, int] | None = None,
) -> DecodedImage:
    """Decode an image message as `scrfd_ros.images.message.decode_message` does.

    An encoding that is unknown there is converted by cv_bridge, if that is installed.

    Raises:
        ImageError: the message cannot be decoded.
    """
    try:
        return images.decode_message(message, rotation, fit)
    except UnknownEncodingError:
        return DecodedImage(_through_cv_bridge(message), rotation=rotation)


def image_message(image: NDArray[np.uint8], header: Header) -> Image:
    """A bgr8 message with a copy of an image, uint8 [H, W, 3] BGR."""
    height, width = image.shape[:2]
    message = Image(header=header, height=height, width=width, encoding="bgr8", step=3 * width)
    # The setter takes only this type as it is, and checks others byte by byte.
    data = array("B")
    data.frombytes(np.ascontiguousarray(image).data)
    message.data = data
    return message


def _through_cv_bridge(message: Any) -> NDArray[np.uint8]:
    try:
        from cv_bridge import CvBridge

        return np.asarray(CvBridge().imgmsg_to_cv2(message, "bgr8"), np.uint8)
    except Exception as error:  # of cv_bridge, numpy or OpenCV
        raise ImageError(
            f"unknown image encoding {message.encoding[:100]!r}; expected one of "
            f"{', '.join(ENCODINGS)}, or one that cv_bridge converts if it is installed "
            f"(tried: {error}); choose one in the camera's driver, preferably bgr8"
        ) from error
