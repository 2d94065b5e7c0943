# SPDX-License-Identifier: Apache-2.0
"""From an image message, raw or compressed, to an image: the one way, for node and bags alike.

A message is any object with the fields of a sensor_msgs/Image or CompressedImage: one of rclpy, one
of rosbags, or a `scrfd_ros.images.serialized.SerializedImage`.
"""

from __future__ import annotations

from scrfd_ros.images.compressed import CompressedMessage, bgr_from_compressed
from scrfd_ros.images.decoded import DecodedImage
from scrfd_ros.images.encodings import ImageMessage, bgr_from_image
from scrfd_ros.images.orientation import size_before_turn


def decode_message(
    message: ImageMessage | CompressedMessage,
    rotation: int = 0,
    fit: tuple[int, int] | None = None,
) -> DecodedImage:
    """Decode an image message.

    Args:
        rotation: one of `scrfd_ros.images.orientation.ROTATIONS`; turns the image upright.
        fit: width and height, pixels, that the upright image will be fitted into. A JPEG may then
            be decoded at a smaller scale that still fills them, see `bgr_from_compressed`. None to
            decode it at full scale. See `FacePipeline.fit`.

    Raises:
        ImageError: the message cannot be decoded; `UnknownEncodingError` if its encoding is not in
            `scrfd_ros.images.encodings.ENCODINGS`.
    """
    if isinstance(message, ImageMessage):
        return DecodedImage(bgr_from_image(message), rotation=rotation)
    smallest = None if fit is None else size_before_turn(fit, rotation)
    decoded = bgr_from_compressed(message.format, message.data, smallest)
    return decoded._replace(rotation=rotation)
