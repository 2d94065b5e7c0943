# SPDX-License-Identifier: Apache-2.0
"""What the node says when no images arrive, or something is wrong with them, over real DDS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from harness import Harness, running_face_node
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from scrfd_ros.node.images import image_message

LIGHT = {"detector.model": "500m", "detector.input_size": [320, 320], "recognizer.enabled": False}
SENSOR = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
BLACK = image_message(np.zeros((48, 64, 3), np.uint8), Header(frame_id="camera"))


class Observer:
    """A running node, and its newest diagnostics by camera."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.namespace = harness.node.get_namespace()
        self.statuses: dict[str, DiagnosticStatus] = {}
        self.stamps: list[int] = []
        harness.node.create_subscription(DiagnosticArray, "/diagnostics", self._take, 10)

    def _take(self, message: DiagnosticArray) -> None:
        for status in message.status:
            node, _, camera = status.name.partition(": ")
            if node == f"{self.namespace}/face_node".removeprefix("/"):
                self.statuses[camera] = status
                self.stamps.append(message.header.stamp.sec)

    def wait_for(self, level: bytes, text: str, camera: str = "image") -> DiagnosticStatus:
        """Wait for diagnostics of a camera."""
        text = text.replace("NS", self.namespace)

        def is_there() -> bool:
            status = self.statuses.get(camera)
            return status is not None and status.level == level and text in status.message

        self.harness.wait_for(is_there, f"{text} in the diagnostics, not {self.statuses}")
        return self.statuses[camera]

    def wait_for_log(self, text: str) -> None:
        text = text.replace("NS", self.namespace)
        self.harness.wait_for(lambda: text in self.harness.log(), f"the line {text}")

    def send_until(self, condition: Callable[[], bool], *publishers: Publisher) -> None:
        """Publish images in turns until a condition holds."""
        for number in range(10_000):
            if condition():
                return
            publishers[number % len(publishers)].publish(BLACK)
            due = time.monotonic() + 0.1
            self.harness.wait_for(lambda due=due: time.monotonic() > due, "the next turn")


@contextmanager
def node(folder: Path, arguments: Sequence[str] = (), **parameters: object) -> Iterator[Observer]:
    with running_face_node(folder, LIGHT | parameters, arguments=arguments) as harness:
        yield Observer(harness)


@contextmanager
def camera(observer: Observer, name: str, *publishers: tuple[type, str, Any]) -> Iterator[Node]:
    """A node with publishers; the remappings of the harness do not reach it."""
    driver = Node(name, namespace=observer.namespace)
    try:
        for kind, topic, qos in publishers:
            driver.create_publisher(kind, topic, qos)
        yield driver
    finally:
        driver.destroy_node()


@pytest.fixture(autouse=True)
def weights(detector_path: Callable[[str], Path]) -> None:
    detector_path("500m")


def test_nobody_publishes_until_somebody_does(tmp_path: Path) -> None:
    with node(tmp_path, ["-r", "image:=camera/image"]) as observer:
        topic = f"{observer.namespace}/camera/image"
        with camera(observer, "driver", (Image, "camera/image_raw", 1)):
            observer.wait_for_log(
                f"no images arrive: nobody publishes on {topic}; images are on {topic}_raw "
                f"(Image): remap image:={topic}_raw"
            )
            observer.wait_for(
                DiagnosticStatus.STALE,
                "no image yet: nobody publishes on NS/camera/image; images are on NS",
            )
        images = observer.harness.node.create_publisher(Image, "camera/image", SENSOR)
        observer.send_until(lambda: f"images arrive on {topic}" in observer.harness.log(), images)
        observer.send_until(lambda: "no image" not in observer.statuses["image"].message, images)
        observer.wait_for(DiagnosticStatus.STALE, "publishes on NS/camera/image, but sends no")
        observer.harness.node.destroy_publisher(images)
        observer.wait_for(DiagnosticStatus.STALE, "s: nobody publishes on NS")


def test_another_transport_is_published(tmp_path: Path) -> None:
    with (
        node(tmp_path, ["-r", "image:=camera/image_raw"]) as observer,
        camera(observer, "driver", (CompressedImage, "camera/image_raw/compressed", 1)),
    ):
        # The harness' own camera is on image, and not meant.
        sentence = "/camera/image_raw/compressed (CompressedImage): set the parameter"
        observer.wait_for_log(f"on NS/camera/image_raw; images are on NS{sentence}")
        observer.wait_for(DiagnosticStatus.STALE, f"{sentence} image_transport to compressed")


def test_each_camera_has_its_own_reason(tmp_path: Path) -> None:
    with (
        node(tmp_path, cameras="[front, rear]", image_transport="compressed") as observer,
        camera(
            observer,
            "driver",
            (Image, "front/image", 1),
            (Image, "rear/image/compressed", 1),
        ),
    ):
        observer.wait_for(
            DiagnosticStatus.STALE,
            "nobody publishes on NS/front/image/compressed; images are on NS/front/image (Image): "
            "set the parameter image_transport to raw",
            "front",
        )
        observer.wait_for(
            DiagnosticStatus.STALE,
            "NS/driver publishes sensor_msgs/msg/Image on NS/rear/image/compressed, expected "
            "sensor_msgs/msg/CompressedImage: set the parameter image_transport to raw",
            "rear",
        )


def test_without_clock_all_goes_on(tmp_path: Path) -> None:
    # On a topic of the test's own: other tests publish /clock.
    arguments = ["-r", "/clock:=clock"]
    with node(tmp_path, arguments, use_sim_time=True, lazy=True) as observer:
        observer.harness.wait_until_active()
        said = "use_sim_time is true, but nobody publishes /clock"
        observer.wait_for_log(said)
        observer.wait_for(DiagnosticStatus.STALE, said)
        assert min(observer.stamps) > 0
        faces = observer.harness.faces  # the harness listens: the lazy node takes images
        observer.harness.publish_until(BLACK, lambda: bool(faces), "an answer")
        clock = observer.harness.node.create_publisher(Clock, "clock", 1)
        time_now = Clock()
        time_now.clock.sec = 7

        def is_well() -> bool:
            clock.publish(time_now)
            return said not in observer.statuses["image"].message

        observer.harness.wait_for(is_well, "a clock")
        # It stands still from here on, and is not called missing.
        observer.wait_for(DiagnosticStatus.STALE, "but the time of /clock stands still: is the")
        assert observer.harness.log().count(said) == 1


def test_diagnostics_in_every_state(tmp_path: Path) -> None:
    with node(tmp_path, autostart=False, cameras="[front, rear]") as observer:
        name = "NS/face_node"
        for which in ("front", "rear"):
            observer.wait_for(
                DiagnosticStatus.WARN, f"not configured: ros2 lifecycle set {name} configure", which
            )
        observer.harness.set_parameter("detector.engine_path", "/no/such/file.onnx")
        assert not observer.harness.change_state("configure")
        observer.wait_for(DiagnosticStatus.ERROR, "not configured: /no/such/file.onnx", "rear")
        observer.harness.set_parameter("detector.engine_path", "")
        assert observer.harness.change_state("configure")
        not_active = f"not active: ros2 lifecycle set {name} activate"
        observer.wait_for(DiagnosticStatus.WARN, not_active, "rear")
        assert observer.harness.change_state("activate")
        status = observer.wait_for(DiagnosticStatus.STALE, "no image yet", "rear")
        assert {value.key: value.value for value in status.values}["lost"] == "unknown"
        assert observer.harness.change_state("deactivate")
        observer.wait_for(DiagnosticStatus.WARN, not_active, "front")
        assert observer.harness.change_state("cleanup")
        observer.wait_for(DiagnosticStatus.WARN, "not configured: ros2 lifecycle", "front")


def test_images_that_get_lost_are_a_warning(tmp_path: Path) -> None:
    with node(tmp_path) as observer:
        images = observer.harness.node.create_publisher(Image, "image", SENSOR)
        observer.harness.wait_for(lambda: images.get_subscription_count() == 1, "the node")

        def is_told() -> bool:
            for _ in range(5):  # at once, so that the queue of one keeps the last only
                images.publish(BLACK)
            return "were lost on the way" in observer.harness.log()

        observer.send_until(is_told, images)
        observer.wait_for(DiagnosticStatus.WARN, "the program that publishes them needs the")
        assert observer.harness.log().count("were lost on the way") == 1


def test_two_publishers_are_told(tmp_path: Path) -> None:
    with node(tmp_path) as observer:
        driver, bag = Node("driver"), Node("bag")
        try:
            publishers = [
                one.create_publisher(Image, f"{observer.namespace}/image", SENSOR)
                for one in (driver, bag)
            ]
            observer.send_until(lambda: "publish images on" in observer.harness.log(), *publishers)
            status = observer.wait_for(DiagnosticStatus.WARN, "several programs publish images on")
            assert "/bag" in status.message and "/driver" in status.message
            bag.destroy_node()
            observer.send_until(
                lambda: "several programs" not in observer.statuses["image"].message,
                publishers[0],
            )
        finally:
            driver.destroy_node()
