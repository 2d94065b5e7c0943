# SPDX-License-Identifier: Apache-2.0
"""The topic that a camera subscribes to, by the user's remappings, as rcl resolves them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rclpy.lifecycle import LifecycleNode

from scrfd_ros.node.camera import Camera


@contextmanager
def camera(
    *remappings: str, name: str = "", compressed: bool = True, namespace: str = "/robot"
) -> Iterator[Camera]:
    arguments = ["--ros-args"] + [word for one in remappings for word in ("-r", one)]
    node = LifecycleNode("names", namespace=namespace, cli_args=arguments)
    camera = Camera(node, name, compressed, tracker=None)
    try:
        camera.subscribe(lambda *_: None)
        (subscription,) = (s for s in node.subscriptions if "image" in s.topic_name)
        assert subscription.topic_name == camera.topic
        yield camera
    finally:
        camera.destroy()
        node.destroy_node()


@pytest.mark.parametrize(
    ("remappings", "topic"),
    [
        ([], "/robot/image/compressed"),
        (["image:=/camera/image_raw"], "/camera/image_raw/compressed"),
        (["image:=image_raw"], "/robot/image_raw/compressed"),
        (["image:=~/image_raw"], "/robot/names/image_raw/compressed"),
        (["/robot/image:=/camera/image_raw"], "/camera/image_raw/compressed"),
        (["image/compressed:=/camera/jpeg_image"], "/camera/jpeg_image"),
        (["image:=/a/image", "image/compressed:=/b/image"], "/b/image"),
        (["image/compressed:=/b/image", "image:=/a/image"], "/b/image"),
        (["image:=/a/image", "image/compressed:=/a/image/compressed"], "/a/image/compressed"),
        (["image:=/cam/image/compressed"], "/cam/image/compressed"),
        (["detections:=/image/compressed"], "/robot/image/compressed"),
    ],
)
def test_compressed_follows_the_image(remappings: list[str], topic: str) -> None:
    with camera(*remappings) as one:
        assert one.topic == topic


@pytest.mark.parametrize(
    ("remappings", "topic"),
    [
        ([], "/robot/front/image/compressed"),
        (["front/image:=/usb_cam/image_raw"], "/usb_cam/image_raw/compressed"),
        (["front/image:=front/image_raw"], "/robot/front/image_raw/compressed"),
        (["front/image/compressed:=/b/image"], "/b/image"),
        (["rear/image:=/other/image"], "/robot/front/image/compressed"),
    ],
)
def test_each_of_several_cameras_has_its_own(remappings: list[str], topic: str) -> None:
    with camera(*remappings, name="front") as one:
        assert one.topic == topic


def test_raw_images_are_remapped_as_ever() -> None:
    with camera("image:=/camera/image_raw", compressed=False) as one:
        assert one.topic == "/camera/image_raw"


def test_without_a_namespace() -> None:
    with camera("image:=/camera/image_raw", namespace="/") as one:
        assert one.topic == "/camera/image_raw/compressed"


def test_qos_overrides_are_named_by_the_topic_that_is_subscribed() -> None:
    with camera("image:=/camera/image_raw") as one:
        name = "qos_overrides./camera/image_raw/compressed.subscription.reliability"
        assert one._node.has_parameter(name)
