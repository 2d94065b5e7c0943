# SPDX-License-Identifier: Apache-2.0
"""Faces for ROS4HRI: ids, places, and topics that come and go with the faces."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from harness import TIMEOUT, running_face_node
from message_packages import is_installed
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from scrfd_ros.faces import Faces, Identity, IdentityState
from scrfd_ros.images.encodings import bgr_from_image
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.tracking.frame_clock import FrameTime

Images = Callable[[str], NDArray[np.uint8]]

WIDTH, HEIGHT = 200, 100
MAX_AGE = 2.0
STAMP = Time(sec=1, nanosec=500_000_000)
IMAGE = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
LIGHT = {"detector.model": "500m", "recognizer.enabled": False, "hri": True}


class Robot:
    """A node with `HumanFaces`, and what comes of it."""

    def __init__(self, namespace: str = "", has_gallery: bool = False) -> None:
        from hri_msgs.msg import IdsList, IdsMatch

        from scrfd_ros.node.hri import HumanFaces

        self.node = Node("face_node", namespace=namespace)
        self.node.declare_parameter("diagnostics.stale_after", 1000.0)
        self.humans = HumanFaces(self.node, MAX_AGE, has_gallery=has_gallery)
        self.tracked: list[IdsList] = []
        self.matches: list[IdsMatch] = []
        self.listener = Node("listener")
        self.listener.create_subscription(
            IdsList, "/humans/faces/tracked", self.tracked.append, 100
        )
        self.listener.create_subscription(
            IdsMatch, "/humans/candidate_matches", self.matches.append, 100
        )
        self.wait_for(
            lambda: (
                self.listener.count_publishers("/humans/faces/tracked") > 0
                and self.listener.count_publishers("/humans/candidate_matches") == has_gallery
                and self.humans.is_wanted
            )
        )

    def wait_for(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < end
            rclpy.spin_once(self.node, timeout_sec=0.01)
            rclpy.spin_once(self.listener, timeout_sec=0.01)

    def see(
        self, *ids: int, at: float = 1.0, epoch: int = 0, camera: str = "", stamp: Time = STAMP
    ) -> list[str]:
        """Publish an image's faces with these ids; returns who is tracked then."""
        self.tracked.clear()
        header = Header(stamp=stamp, frame_id="optical")
        self.humans.publish(camera, faces(*ids), IMAGE, header, FrameTime(at, epoch))
        self.wait_for(lambda: bool(self.tracked))
        assert self.tracked[0].header == header
        return list(self.tracked[0].ids)

    def look(self, *identities: Identity, at: float = 1.0) -> list[tuple[str, str, float]]:
        """Publish an image with faces of these identities; returns the matches that are told."""
        self.matches.clear()
        self.tracked.clear()
        found = replace(faces(*range(1, len(identities) + 1)), identities=identities)
        self.humans.publish("", found, IMAGE, Header(stamp=STAMP), FrameTime(at, 0))
        self.wait_for(lambda: bool(self.tracked))  # sent after the matches, on another topic
        for _ in range(10):
            rclpy.spin_once(self.listener, timeout_sec=0.01)
        assert all((match.id1_type, match.id2_type) == (2, 1) for match in self.matches)
        return [(match.id1, match.id2, round(match.confidence, 3)) for match in self.matches]

    def topics(self) -> set[str]:
        """Topics below /humans/faces that the node publishes."""
        names = (publisher.topic_name for publisher in self.node.publishers)
        return {name for name in names if name.startswith("/humans")}


@pytest.fixture
def robot(optional_messages: object) -> Iterator[Robot]:
    robot = Robot()
    yield robot
    robot.node.destroy_node()
    robot.listener.destroy_node()


def faces(*ids: int) -> Faces:
    """One face over the left border, for each id."""
    landmarks = [[-4, 30], [20, 30], [10, 40], [0, 50], [16, 60]]
    return Faces(
        boxes=np.array([[-10, 20, 40, 80]] * len(ids), np.float32).reshape(-1, 4),
        scores=np.full(len(ids), 0.75, np.float32),
        landmarks=np.array([landmarks] * len(ids), np.float32).reshape(-1, 5, 2),
        ids=np.array(ids, np.int64),
    )


def test_region_landmarks_and_crop_of_a_face(robot: Robot) -> None:
    from hri_msgs.msg import FacialLandmarks, NormalizedRegionOfInterest2D

    assert robot.see(7) == ["face_7"]
    got: dict[str, Any] = {}
    for kind, name in (
        (NormalizedRegionOfInterest2D, "roi"),
        (FacialLandmarks, "landmarks"),
        (Image, "aligned"),
    ):
        robot.listener.create_subscription(
            kind, f"/humans/faces/face_7/{name}", lambda m, name=name: got.update({name: m}), 10
        )
    publishers = [publisher for publisher in robot.node.publishers if "7/" in publisher.topic_name]
    robot.wait_for(lambda: all(publisher.get_subscription_count() for publisher in publishers))
    robot.see(7, at=1.5)
    robot.wait_for(lambda: len(got) == 3)

    roi = got["roi"]
    assert [roi.xmin, roi.ymin, roi.xmax, roi.ymax, roi.c] == pytest.approx(
        [0, 0.2, 0.2, 0.8, 0.75]
    )
    landmarks = got["landmarks"]
    assert (landmarks.width, landmarks.height) == (WIDTH, HEIGHT)
    assert len(landmarks.landmarks) == 70
    known = {code: (p.x, p.y) for code, p in enumerate(landmarks.landmarks) if p.c}
    assert known == {
        68: pytest.approx((0.0, 0.3)),  # the person's right pupil, on the left in the image
        69: pytest.approx((0.1, 0.3)),
        30: pytest.approx((0.05, 0.4)),
        48: pytest.approx((0.0, 0.5)),  # the right corner of the mouth
        54: pytest.approx((0.08, 0.6)),
    }
    (crop,) = align_faces(IMAGE, faces(7).landmarks)
    np.testing.assert_array_equal(bgr_from_image(got["aligned"]), crop)
    assert {message.header.frame_id for message in got.values()} == {"optical"}
    assert {message.header.stamp.nanosec for message in got.values()} == {STAMP.nanosec}


def test_crops_are_made_for_subscribers_only(robot: Robot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scrfd_ros.node.hri.align_faces", None)  # fails if it is called
    assert robot.see(1) == ["face_1"]


def test_topics_are_there_as_long_as_the_track(robot: Robot) -> None:
    assert robot.topics() == {"/humans/faces/tracked"}
    assert robot.see(1, 2, at=1.0) == ["face_1", "face_2"]
    names = {f"/humans/faces/face_{n}/{t}" for n in (1, 2) for t in ("roi", "landmarks", "aligned")}
    assert robot.topics() == names | {"/humans/faces/tracked"}
    assert robot.see(2, at=1.0 + MAX_AGE) == ["face_1", "face_2"]  # missed, may come back
    assert robot.see(2, at=1.1 + MAX_AGE) == ["face_2"]
    assert not [name for name in robot.topics() if "face_1" in name]
    robot.wait_for(lambda: robot.listener.count_publishers("/humans/faces/face_1/roi") == 0)
    assert robot.see(3, at=3.2, epoch=1) == ["face_3"]  # a bag starts again
    for number in range(10, 100):
        assert robot.see(number, at=3.0 * number, epoch=1) == [f"face_{number}"]
    assert robot.see(at=1000.0, epoch=1) == []
    assert robot.topics() == {"/humans/faces/tracked"}


def test_faces_end_by_the_time_of_the_tracker_whatever_the_stamps(robot: Robot) -> None:
    """Stamps that are missing, go back a little or jump once are `FrameClock`'s to judge."""
    assert robot.see(1, 2, at=1.0, stamp=Time()) == ["face_1", "face_2"]
    assert robot.see(2, at=1.1, stamp=Time(sec=5)) == ["face_1", "face_2"]
    assert robot.see(2, at=1.2, stamp=Time(sec=2**31 - 1)) == ["face_1", "face_2"]
    assert robot.see(2, at=1.3, stamp=Time(sec=4)) == ["face_1", "face_2"]
    assert robot.see(2, at=1.1 + MAX_AGE, stamp=Time()) == ["face_2"]


def test_cameras_and_robots_have_ids_of_their_own(robot: Robot) -> None:
    assert robot.see(1, camera="front") == ["front_1"]
    assert robot.see(1, 2, at=50, camera="rear") == ["front_1", "rear_1", "rear_2"]
    assert robot.see(at=9, camera="front") == ["rear_1", "rear_2"]
    other = Robot("/second")
    assert other.see(1, camera="head/left") == ["second_head_left_1"]
    other.node.destroy_node()
    other.listener.destroy_node()


def test_faces_of_a_silent_camera_end(robot: Robot) -> None:
    assert robot.see(1, camera="front") == ["front_1"]
    robot.tracked.clear()
    robot.node.set_parameters([rclpy.Parameter("diagnostics.stale_after", value=0.1)])
    robot.wait_for(lambda: bool(robot.tracked))
    assert list(robot.tracked[0].ids) == []
    assert robot.topics() == {"/humans/faces/tracked"}
    rclpy.spin_once(robot.node, timeout_sec=1)  # said once only
    rclpy.spin_once(robot.listener, timeout_sec=0.1)
    assert len(robot.tracked) == 1


def test_the_last_word_is_that_nobody_is_tracked(robot: Robot) -> None:
    robot.see(1)
    robot.tracked.clear()
    robot.humans.destroy()
    robot.wait_for(lambda: bool(robot.tracked))
    assert list(robot.tracked[0].ids) == []
    assert not robot.topics()


def test_who_a_face_is_is_told_when_it_changes_and_taken_back(
    optional_messages: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = Robot(has_gallery=True)
    assert "/humans/candidate_matches" in robot.topics()
    anna = Identity(IdentityState.KNOWN, "0123-45", "Anna", 0.5, 0.25)
    ben = Identity(IdentityState.KNOWN, "6789-ab", "Ben", -0.5, 0.25)
    maybe = Identity(IdentityState.TENTATIVE, "0123-45", "", 0.5, 0.25)
    stranger = Identity(IdentityState.UNKNOWN, "stranger-1")
    assert robot.look(stranger, maybe) == []
    assert robot.look(anna, maybe) == [("face_1", "person_012345", 0.75)]
    assert robot.look(anna, maybe) == []
    monkeypatch.setattr("scrfd_ros.node.hri._MATCH_PERIOD", 0.0)
    assert robot.look(anna, maybe) == [("face_1", "person_012345", 0.75)]
    assert robot.look(ben) == [("face_1", "person_012345", 0.0), ("face_1", "person_6789ab", 0.5)]
    assert robot.look(maybe) == [("face_1", "person_6789ab", 0.0)]
    robot.look(anna)
    assert robot.look(at=2 + MAX_AGE) == [("face_1", "person_012345", 0.0)]
    robot.look(anna, at=3 + MAX_AGE)
    robot.matches.clear()
    robot.humans.destroy()
    robot.wait_for(lambda: bool(robot.matches))
    assert [(match.id1, match.confidence) for match in robot.matches] == [("face_1", 0.0)]
    assert not robot.topics()
    robot.node.destroy_node()
    robot.listener.destroy_node()


@pytest.mark.usefixtures("node_finds_optional_messages")
def test_node_publishes_for_ros4hri(
    tmp_path: Path, detector_path: Callable[[str], Path], image: Images
) -> None:
    from hri_msgs.msg import IdsList, NormalizedRegionOfInterest2D

    detector_path("500m")
    place = tmp_path.name.replace("-", "_")
    with running_face_node(tmp_path, LIGHT) as harness:
        harness.wait_until_active()
        tracked: list[IdsList] = []
        regions: list[NormalizedRegionOfInterest2D] = []
        harness.node.create_subscription(IdsList, "/humans/faces/tracked", tracked.append, 10)
        harness.wait_for(
            lambda: harness.node.count_publishers("/humans/faces/tracked") == 1, "tracked"
        )
        detections, _ = harness.ask(image("t1.jpg"))
        harness.wait_for(lambda: bool(tracked), "ids")
        ids = [detection.id for detection in detections.detections]
        assert tracked[-1].ids == [f"{place}_{number}" for number in ids]
        harness.node.create_subscription(
            NormalizedRegionOfInterest2D,
            f"/humans/faces/{tracked[-1].ids[0]}/roi",
            regions.append,
            10,
        )
        harness.wait_for(
            lambda: harness.node.count_publishers(f"/humans/faces/{place}_{ids[0]}/roi") == 1, "roi"
        )
        while not regions:
            detections, _ = harness.ask(image("t1.jpg"))
        best = detections.detections[0]
        left = best.bbox.center.position.x - best.bbox.size_x / 2
        assert regions[0].xmin == pytest.approx(left / 1280, abs=1e-6)
        assert harness.change_state("deactivate") and harness.change_state("cleanup")
        harness.wait_for(lambda: list(tracked[-1].ids) == [], "the end of the faces")
        assert harness.node.count_publishers("/humans/faces/tracked") == 0


def test_without_tracking_the_node_says_that_it_is_needed(
    tmp_path: Path, detector_path: Callable[[str], Path]
) -> None:
    detector_path("500m")
    with running_face_node(tmp_path, LIGHT | {"tracking.enabled": False}) as harness:
        assert harness.state() == "unconfigured"
        assert "cannot configure: hri is true, but tracking.enabled is false" in harness.log()


@pytest.mark.skipif(is_installed("hri_msgs"), reason="hri_msgs is installed")
def test_without_hri_msgs_the_node_says_what_to_do(
    tmp_path: Path, detector_path: Callable[[str], Path]
) -> None:
    detector_path("500m")
    with running_face_node(tmp_path, LIGHT) as harness:
        assert harness.state() == "unconfigured"
        assert "the ROS 2 package hri_msgs, 2.0 or newer, is missing" in harness.log()
        assert harness.set_parameter("hri", False)[0]
        assert harness.change_state("configure"), harness.log()
