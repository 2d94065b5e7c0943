# SPDX-License-Identifier: Apache-2.0
"""Images survive the way through real messages; cv_bridge converts other encodings."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from scrfd_ros.errors import ImageError
from scrfd_ros.images import encodings
from scrfd_ros.images.encodings import ENCODINGS
from scrfd_ros.node.images import decode_message, image_message

WIDTH, HEIGHT = 62, 48


def random_image(encoding: str, channels: int, value_bytes: int = 1) -> Image:
    random = np.random.default_rng(len(encoding))
    step = WIDTH * channels * value_bytes
    data = random.integers(16, 236, HEIGHT * step, np.uint8).tobytes()
    return Image(height=HEIGHT, width=WIDTH, encoding=encoding, step=step, data=data)


def test_unknown_encoding_lists_the_known_ones() -> None:
    with pytest.raises(ImageError, match=r"'i420'.*cv_bridge") as caught:
        decode_message(random_image("i420", 1))
    assert all(encoding in str(caught.value) for encoding in ENCODINGS)


@pytest.mark.parametrize(
    ("encoding", "channels", "value_bytes"),
    [("rgb8", 3, 1), ("mono16", 1, 2), ("bayer_grbg8", 1, 1), ("yuv422", 2, 1)],
)
def test_cv_bridge_takes_over_where_it_is_installed(
    encoding: str, channels: int, value_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cv_bridge", reason="cv_bridge comes with ROS from apt only")
    message = random_image(encoding, channels, value_bytes)
    expected = decode_message(message).image
    for known in ("LAYOUTS", "_NAMES"):
        monkeypatch.setattr(encodings, known, {})
    assert np.array_equal(decode_message(message).image, expected)


def test_what_cv_bridge_converts_is_turned_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class CvBridge:
        def imgmsg_to_cv2(self, message: Image, encoding: str) -> NDArray[np.uint8]:
            assert (message.encoding, encoding) == ("i420", "bgr8")
            return np.zeros((HEIGHT, WIDTH, 3), np.uint8)

    monkeypatch.setitem(sys.modules, "cv_bridge", SimpleNamespace(CvBridge=CvBridge))
    decoded = decode_message(random_image("i420", 1), rotation=90)
    assert decoded.image.shape == (HEIGHT, WIDTH, 3)
    assert decoded.upright.shape == (WIDTH, HEIGHT, 3)


@pytest.mark.parametrize("padding", [0, 7], ids=["contiguous", "cut out of a larger image"])
def test_an_image_survives_the_way_through_a_real_message(padding: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH + padding, 3), np.uint8)
    image = values[:, :WIDTH]
    header = Header(stamp=Time(sec=7, nanosec=11), frame_id="camera")
    message = deserialize_message(serialize_message(image_message(image, header)), Image)
    assert message.header == header
    assert (message.width, message.height, message.step) == (WIDTH, HEIGHT, 3 * WIDTH)
    assert message.encoding == "bgr8"
    received = decode_message(message).image
    assert np.array_equal(received, image)
    assert np.shares_memory(received, np.frombuffer(message.data, np.uint8))
