# SPDX-License-Identifier: Apache-2.0
"""Which results of an image are published, and when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from scrfd_ros.faces import Faces
from scrfd_ros.images.decoded import DecodedImage, WholeImage
from scrfd_ros.node.results import RESULT_QOS, ImageResult, ResultPublishers
from scrfd_ros.tracking.frame_clock import FrameTime

TIMEOUT = 30.0  # seconds
NETWORK = SimpleNamespace(name="detector", sha256="0" * 64)
PIPELINE = SimpleNamespace(networks={"detector": NETWORK})
FACES = Faces(np.array([[1, 2, 11, 22]], np.float32), np.array([0.5], np.float32))
RESULT = ImageResult(
    Header(frame_id="camera"),
    FrameTime(0.0, 0),
    DecodedImage(
        np.zeros((50, 60, 3), np.uint8),
        reduction=2,
        rotation=180,
        source=WholeImage((119, 100), lambda: np.zeros((100, 119, 3), np.uint8)),
    ),
    FACES,
    PIPELINE,
)


@pytest.fixture
def node() -> Iterator[LifecycleNode]:
    node = LifecycleNode("results")
    yield node
    node.destroy_node()


@pytest.fixture
def listener() -> Iterator[Node]:
    node = Node("listener_of_results")
    yield node
    node.destroy_node()


def active(node: LifecycleNode, camera: str, humans: object = None) -> ResultPublishers:
    """The publishers of a node that is configured with them, and active."""
    results = ResultPublishers(node, camera, humans)
    node.trigger_configure()
    node.trigger_activate()
    return results


def spin_until(node: Node, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end
        rclpy.spin_once(node, timeout_sec=0.05)


def test_an_overlay_is_drawn_for_subscribers_only(
    node: LifecycleNode, listener: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = active(node, "front")
    assert not results.are_wanted
    with monkeypatch.context() as patch:
        patch.setattr("scrfd_ros.node.results.draw_faces", None)  # fails if it is called
        results.publish(RESULT)
    overlays: list[Image] = []
    listener.create_subscription(Image, "front/overlay", overlays.append, 1)
    spin_until(listener, lambda: results.are_wanted)
    results.publish(RESULT)
    spin_until(listener, lambda: bool(overlays))
    assert (overlays[0].width, overlays[0].height) == (119, 100), "as sent"
    results.destroy()


def test_detections_are_in_pixels_of_the_image_as_sent(node: LifecycleNode, listener: Node) -> None:
    results = active(node, "")
    got: list[Detection2DArray] = []
    listener.create_subscription(Detection2DArray, "detections", got.append, 1)
    spin_until(listener, lambda: results.are_wanted)
    spin_until(listener, lambda: listener.count_publishers("detections") == 1)
    results.publish(RESULT)
    spin_until(listener, lambda: bool(got))
    (detection,) = got[0].detections
    assert got[0].header == detection.header == RESULT.header
    center = detection.bbox.center.position
    assert (center.x, center.y) == pytest.approx((119 - 6, 100 - 12))
    results.destroy()


def test_whoever_wants_humans_wants_every_camera(node: LifecycleNode) -> None:
    seen: list[tuple[object, ...]] = []
    humans = SimpleNamespace(is_wanted=True, publish=lambda *arguments: seen.append(arguments))
    results = active(node, "front", humans)
    assert results.are_wanted
    results.publish(RESULT)
    ((camera, faces, image, header, frame_time),) = seen
    assert (camera, header, frame_time) == ("front", RESULT.header, RESULT.time)
    assert image is RESULT.image.whole and faces is RESULT.faces
    results.destroy()


def test_an_override_of_one_topic_leaves_the_others() -> None:
    arguments = ["--ros-args", "-p", "qos_overrides./front/faces.publisher.depth:=3"]
    node = LifecycleNode("overridden", cli_args=arguments)
    every = [ResultPublishers(node, camera) for camera in ("front", "rear")]
    depths = {publisher.topic_name: publisher.qos_profile.depth for publisher in node.publishers}
    assert depths["/front/faces"] == 3
    assert {depths["/front/detections"], depths["/rear/faces"], RESULT_QOS.depth} == {10}
    for results in every:
        results.destroy()
    node.destroy_node()


def test_what_was_made_before_a_failure_is_removed(node: LifecycleNode) -> None:
    before = len(list(node.publishers))
    node.declare_parameter("qos_overrides./faces.publisher.depth", -1)
    with pytest.raises(Exception, match="create_publisher"):
        ResultPublishers(node, "")
    assert len(list(node.publishers)) == before
