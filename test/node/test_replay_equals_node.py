# SPDX-License-Identifier: Apache-2.0
"""What is replayed from a bag is what the node sends for the same images."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_files import IMAGE, Entry, write_bag
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseWithCovariance
from harness import Harness, running_face_node
from numpy.typing import NDArray
from pipelines import loaded
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.rosbag2 import Reader
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from scrfd_ros.bags.replay import replay
from scrfd_ros.faces import Faces
from scrfd_ros.messages import bag_codec
from scrfd_ros.msg import FaceArray
from scrfd_ros.node import messages
from scrfd_ros.node.images import image_message
from scrfd_ros.pipeline import FacePipeline

REPEAT = 3.0  # seconds without an answer after which an image is sent again


@pytest.fixture(scope="module")
def pipelines(
    detector_path: Callable[[str], Path], recognizer_path: Callable[[str], Path]
) -> dict[bool, FacePipeline]:
    """With and without a recognizer."""
    return {
        recognizes: loaded(
            detector_path("500m"),
            recognizer_path("w600k_mbf") if recognizes else None,
            backend="onnxruntime",
        )
        for recognizes in (True, False)
    }


def random_faces(count: int, landmarks: bool, embeddings: bool, ids: bool) -> Faces:
    random = np.random.default_rng(count)
    return Faces(
        boxes=random.uniform(-100, 4000, (count, 4)).astype(np.float32),
        scores=random.uniform(0, 1, count).astype(np.float32),
        landmarks=random.uniform(0, 4000, (count, 5, 2)).astype(np.float32) if landmarks else None,
        embeddings=random.normal(size=(count, 512)).astype(np.float32) if embeddings else None,
        embedding_norms=random.uniform(0, 30, count).astype(np.float32) if embeddings else None,
        ids=random.permutation(count).astype(np.int64) + 1 if ids else None,
    )


@pytest.mark.parametrize("frame_id", ["", "a", "camera_optical_frame", "Überwachung"])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize(
    ("landmarks", "embeddings", "ids"),
    [(True, True, True), (True, True, False), (True, False, True), (False, False, False)],
)
def test_both_builders_give_the_same_bytes(
    count: int,
    landmarks: bool,
    embeddings: bool,
    ids: bool,
    frame_id: str,
    pipelines: dict[bool, FacePipeline],
) -> None:
    faces = random_faces(count, landmarks, embeddings, ids)
    header = Header(stamp=Time(sec=1_700_000_000, nanosec=7), frame_id=frame_id)
    detections = messages.detection_array(faces, header)
    sent = messages.face_array(detections, faces, pipelines[embeddings])

    own_header = bag_codec.decoded(serialize_message(header), "std_msgs/msg/Header")
    own_detections = bag_codec.detection_array(faces, own_header)
    own = bag_codec.face_array(own_detections, faces, pipelines[embeddings])
    for message, own_message, kind in (
        (detections, own_detections, bag_codec.DETECTION_ARRAY),
        (sent, own, bag_codec.FACE_ARRAY),
    ):
        assert_same_bytes(bytes(bag_codec.encoded(own_message, kind)), message, kind)
    back, own_back = messages.faces_of(sent), bag_codec.faces_of(own)
    for name in ("boxes", "scores", "landmarks", "embeddings", "embedding_norms"):
        np.testing.assert_array_equal(getattr(own_back, name), getattr(back, name))


def test_the_pose_that_is_not_used_is_that_of_ros() -> None:
    pose = bag_codec.encoded(bag_codec._no_pose(), "geometry_msgs/msg/PoseWithCovariance")
    assert bytes(pose) == serialize_message(PoseWithCovariance())


def assert_same_bytes(own: bytes, message: Any, kind: str) -> None:
    """Hold bytes of ours against a message of ROS.

    ROS leaves in the bytes that pad fields whatever was there; ours are 0.
    """
    sent = serialize_message(message)
    assert len(own) == len(sent)
    assert own == bytes(bag_codec.encoded(bag_codec.decoded(sent, kind), kind))
    assert deserialize_message(own, type(message)) == message


def key(header: Any) -> tuple[int, int]:
    return header.stamp.sec, header.stamp.nanosec


def by_stamp(received: list[Any]) -> dict[tuple[int, int], Any]:
    return {key(message.header): message for message in received}


def send(harness: Harness, message: Any, sent: dict[tuple[int, int], bytes]) -> None:
    """Send an image until it is answered; notes each that was sent."""
    mine: set[tuple[int, int]] = set()
    again = 0.0

    def answered() -> bool:
        nonlocal again
        if time.monotonic() > again:
            stamp = key(harness.publish(message))
            sent[stamp] = serialize_message(message)
            mine.add(stamp)
            again = time.monotonic() + REPEAT
        return bool(mine & by_stamp(harness.detections).keys() & by_stamp(harness.faces).keys())

    harness.wait_for(answered, "an answer")


def test_node_and_replay_give_the_same(
    pipelines: dict[bool, FacePipeline],
    image: Callable[[str], NDArray[np.uint8]],
    tmp_path: Path,
) -> None:
    """With ids: the tracker's work is part of what has to be the same."""
    people = image("t1.jpg")
    images = [people[:, :850], people[4:, 8:858], np.zeros((48, 64, 3), np.uint8), people]
    pipeline = pipelines[True]
    assert pipeline.recognizer is not None
    parameters = {
        "backend": "onnxruntime",
        "detector.engine_path": pipeline.detector.network.path,
        "recognizer.engine_path": pipeline.recognizer.network.path,
    }
    sent: dict[tuple[int, int], bytes] = {}
    with running_face_node(tmp_path, parameters) as harness:
        harness.wait_until_active()
        for image in images:
            send(harness, image_message(image, Header()), sent)
        detections, faces = by_stamp(harness.detections), by_stamp(harness.faces)

    # An image sent again may have been answered twice, or not at all.
    assert detections.keys() == faces.keys() and len(detections) >= len(images)
    entries = [
        Entry("/image", IMAGE, sec * 10**9 + nanosec, sent[sec, nanosec])
        for sec, nanosec in detections
    ]
    bag = write_bag(tmp_path / "bag", entries)
    replay(bag, tmp_path / "out", pipeline)
    with Reader(tmp_path / "out") as reader:
        replayed = [(entry.msgtype, bytes(data)) for entry, _, data in reader.messages()]
    expected = [
        message
        for pair in zip(detections.values(), faces.values(), strict=True)
        for message in pair
    ]
    for (kind, own), message in zip(replayed, expected, strict=True):
        assert_same_bytes(own, message, kind)
    first = deserialize_message(replayed[0][1], Detection2DArray)
    last = deserialize_message(replayed[-1][1], FaceArray)
    assert len(first.detections) == 4 and len(last.faces) == 6
    assert all(detection.id for detection in first.detections)
