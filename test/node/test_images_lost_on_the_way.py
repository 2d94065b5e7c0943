# SPDX-License-Identifier: Apache-2.0
"""Images that a camera sent and that did not reach the node are counted, over real DDS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
from camera_process import BURST, CameraProcess, read_sent
from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image

from scrfd_ros.images.serialized import parse_image
from scrfd_ros.node.camera import IMAGE_QOS, Camera


@pytest.fixture
def node() -> Iterator[LifecycleNode]:
    node = LifecycleNode("lost_images", namespace="/test_lost_images")
    yield node
    node.destroy_node()


@pytest.fixture
def taken() -> list[int]:
    """Widths of the images that the camera took in."""
    return []


@pytest.fixture
def camera(node: LifecycleNode, taken: list[int]) -> Camera:
    camera = Camera(node, "", compressed=False, tracker=None)
    camera.subscribe(lambda _, received: taken.append(parse_image(received.message).width))
    return camera


def spin_until(node: LifecycleNode, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        rclpy.spin_once(node, timeout_sec=0.05)


def publisher(node: LifecycleNode, subscriptions: int = 1) -> Publisher:
    publisher = node.create_publisher(Image, "image", IMAGE_QOS)
    spin_until(node, lambda: publisher.get_subscription_count() == subscriptions)
    return publisher


def send(node: LifecycleNode, images: Publisher, taken: list[int], *widths: int) -> None:
    """Publish at once, so that of a queue of one only the last stays, and take that in."""
    for width in widths:
        images.publish(Image(width=width))
    spin_until(node, lambda: bool(taken) and taken[-1] == widths[-1])


def test_replaced_in_the_queue(node: LifecycleNode, camera: Camera, taken: list[int]) -> None:
    images = publisher(node)
    send(node, images, taken, 1)
    send(node, images, taken, 2, 3, 4)
    send(node, images, taken, 5)
    assert (camera.counts.received, camera.counts.lost) == (3, 2)
    assert taken == [1, 4, 5]


def test_a_camera_started_anew_lost_nothing(
    node: LifecycleNode, camera: Camera, taken: list[int]
) -> None:
    images = publisher(node)
    for width in (1, 2, 3):
        send(node, images, taken, width)
    node.destroy_publisher(images)
    images = publisher(node)
    send(node, images, taken, 4)
    send(node, images, taken, 5, 6)
    assert (camera.counts.received, camera.counts.lost) == (5, 1)


def test_it_is_not_known_before_the_first_image(camera: Camera) -> None:
    assert camera.counts.lost is None


def test_two_cameras_are_told_apart(node: LifecycleNode, camera: Camera, taken: list[int]) -> None:
    one, other = publisher(node), publisher(node)
    for width in (1, 2, 3, 4):
        send(node, one, taken, width)
    for width in (5, 6, 7, 8, 9, 10):
        send(node, other if width % 2 else one, taken, width)
    assert (camera.counts.received, camera.counts.lost) == (10, 0)
    assert camera.numbers.is_mixed(time.monotonic(), seconds=60)
    send(node, one, taken, 11, 12, 13)
    assert (camera.counts.received, camera.counts.lost) == (11, 2)


def test_one_camera_is_not_mixed(node: LifecycleNode, camera: Camera, taken: list[int]) -> None:
    images = publisher(node)
    for width in range(1, 10):
        send(node, images, taken, 100 + width, width)
    assert not camera.numbers.is_mixed(time.monotonic(), seconds=60)


def test_after_a_camera_was_killed(
    node: LifecycleNode, camera: Camera, taken: list[int], tmp_path: Path
) -> None:
    np.save(tmp_path / "images.npy", np.zeros((1, 48, 64, 3), np.uint8))

    def start(name: str) -> CameraProcess:
        images, sent = tmp_path / "images.npy", tmp_path / name
        return CameraProcess(node.get_namespace(), images, sent, 20.0, name)

    mortal = start("mortal")
    spin_until(node, lambda: len(taken) > 5)
    mortal.kill()
    count = len(taken)
    reborn = start("reborn")
    try:
        spin_until(node, lambda: len(taken) > count + 5)
        lost, sent = camera.counts.lost, len(read_sent(tmp_path / "reborn"))
        assert lost is not None
        reborn.say("burst")
        end = time.monotonic() + 30
        while len(read_sent(tmp_path / "reborn")) < sent + BURST:  # meanwhile nobody takes images
            assert time.monotonic() < end
            time.sleep(0.01)
        # Fewer than were lost, if the last number of the killed one lies in between.
        spin_until(node, lambda: (camera.counts.lost or 0) > lost)
    finally:
        reborn.kill()
