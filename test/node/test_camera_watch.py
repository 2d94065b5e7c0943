# SPDX-License-Identifier: Apache-2.0
"""What is reported about a camera's losses and publishers, and how often.

The node and the camera are stand-ins with only what the watch uses.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from rclpy.exceptions import InvalidTopicNameException

from scrfd_ros.node.camera import IMAGE_QOS
from scrfd_ros.node.camera_watch import CameraWatch
from scrfd_ros.node.counts import Counts
from scrfd_ros.node.lost_images import PublisherNumbers


class Node:
    """A stand-in for the node: its log, and how many publishers the graph has."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.publishers = 1
        self.topics: list[tuple[str, list[str]]] = []

    def get_logger(self) -> SimpleNamespace:
        return SimpleNamespace(warning=self.said.append, info=self.said.append)

    def get_fully_qualified_name(self) -> str:
        return "/face_node"

    def resolve_topic_name(self, topic: str) -> str:
        return f"/{topic}"

    def get_topic_names_and_types(self) -> list[tuple[str, list[str]]]:
        return self.topics

    def count_publishers(self, topic: str) -> int:
        return self.publishers

    def get_publishers_info_by_topic(self, topic: str) -> list[object]:
        return []


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def camera() -> SimpleNamespace:
    return SimpleNamespace(
        topic="/image",
        image_name="image",
        type_name="sensor_msgs/msg/Image",
        counts=Counts(),
        waiting_since=0.0,
        has_images=True,
        is_refusing=False,
        is_numbered=True,
        numbers=PublisherNumbers(),
        qos=IMAGE_QOS,
    )


def look(
    watch: CameraWatch,
    camera: SimpleNamespace,
    now: float,
    received: int,
    lost: int | None,
    in_hand: int = 0,
) -> str:
    """A second in which images came and got lost; returns the warning about it."""
    camera.waiting_since = now
    camera.counts.received += received
    camera.counts.handled = camera.counts.received - camera.counts.failed - in_hand
    if lost is not None:
        camera.counts.lost = (camera.counts.lost or 0) + lost
    watch.look(now, stale_after=2.0, is_paused=False)
    return str(camera.counts.warnings.get("losses", ""))


def test_a_few_lost_images_are_no_warning(node: Node, camera: SimpleNamespace) -> None:
    watch = CameraWatch(node, camera)
    assert [look(watch, camera, float(now), 30, 1) for now in range(100)] == [""] * 100
    assert node.said == []


def test_losses_are_told_while_they_last_and_in_the_log_once_a_minute(
    node: Node, camera: SimpleNamespace
) -> None:
    watch = CameraWatch(node, camera)
    look(watch, camera, 0.0, 30, 0)
    for now in range(1, 100):
        assert "were lost on the way: with Fast DDS" in look(watch, camera, float(now), 1, 9)
    assert len(node.said) == 2
    assert "9 of the last 10 images on /image were lost on the way" in node.said[0]
    told = [bool(look(watch, camera, 100.0 + now, 10, 0)) for now in range(40)]
    assert told == sorted(told, reverse=True) and not told[31]


def test_single_losses_of_a_slow_camera_are_no_warning(node: Node, camera: SimpleNamespace) -> None:
    watch = CameraWatch(node, camera)
    said = {
        look(watch, camera, float(now), int(now % 2 == 0), int(now % 10 == 0)) for now in range(300)
    }
    assert said == {""}


def test_losses_that_are_not_known_are_no_warning(node: Node, camera: SimpleNamespace) -> None:
    watch = CameraWatch(node, camera)
    camera.is_numbered = False
    assert [look(watch, camera, float(now), 1, None) for now in range(20)] == [""] * 20


def test_images_that_fail_now_and_then_are_a_warning_all_the_time(
    node: Node, camera: SimpleNamespace
) -> None:
    watch = CameraWatch(node, camera)
    look(watch, camera, 0.0, 0, 0)
    for now in range(1, 50):  # each ninth image fails, the diagnostics never see it last
        camera.counts.failed += 1
        camera.counts.last_reason = "image skipped: broken"
        look(watch, camera, float(now), 9, 0)
    assert camera.counts.warnings["failures"] == (
        "30 of the last 270 images on /image were skipped: image skipped: broken"
    )


def test_a_network_that_hangs_is_a_warning(node: Node, camera: SimpleNamespace) -> None:
    watch = CameraWatch(node, camera)
    camera.counts.busy_since = 0.0
    look(watch, camera, 10.0, 10, 0)
    assert camera.counts.warnings == {}, "nothing is in hand"
    look(watch, camera, 12.0, 1, 0, in_hand=1)
    assert camera.counts.warnings["results"].startswith(
        "no image on /image has been finished for 12 s, although images arrive: "
    )
    look(watch, camera, 13.0, 1, 0, in_hand=2)
    assert "results" in camera.counts.warnings
    camera.counts.busy_since = 13.0
    look(watch, camera, 14.0, 1, 0, in_hand=1)
    assert camera.counts.warnings == {}


def test_topics_whose_names_are_none_of_ros(node: Node, camera: SimpleNamespace) -> None:
    def refuse(topic: str) -> list[object]:
        raise InvalidTopicNameException(topic, "must not contain spaces", 0)

    node.get_publishers_info_by_topic = refuse  # type: ignore[method-assign]
    node.topics = [("/my camera", ["sensor_msgs/msg/Image"])]
    camera.has_images = False
    CameraWatch(node, camera).look(10.0, stale_after=2.0, is_paused=False)
    assert camera.counts.silence.startswith("nobody publishes on /image, nor images on any other")


def test_without_numbers_two_publishers_are_told_when_none_of_them_can_be_dead(
    node: Node, camera: SimpleNamespace
) -> None:
    camera.is_numbered = False
    watch = CameraWatch(node, camera)
    look(watch, camera, 0.0, 1, None)
    node.publishers = 2
    for now in range(31):
        look(watch, camera, float(now), 1, None)
        assert not node.said
    look(watch, camera, 31.0, 1, None)
    assert "several programs publish images on /image" in node.said[0]
    node.publishers = 1
    look(watch, camera, 32.0, 1, None)
    assert camera.counts.warnings == {}


def test_of_a_camera_that_nobody_wants_nothing_is_told(node: Node, camera: SimpleNamespace) -> None:
    watch = CameraWatch(node, camera)
    look(watch, camera, 0.0, 0, 0)
    assert look(watch, camera, 1.0, 0, 10)
    camera.waiting_since = None
    watch.look(2.0, stale_after=2.0, is_paused=False)
    assert camera.counts.warnings == {}
