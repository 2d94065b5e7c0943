# SPDX-License-Identifier: Apache-2.0
"""Software that shares no code with this package understands the messages."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from ament_index_python.packages import get_package_share_directory
from builtin_interfaces.msg import Time
from cyclone_types import CycloneDetections, CycloneHeader, CycloneImage, CycloneTime
from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration
from harness import TIMEOUT, running_face_node
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore
from std_msgs.msg import Header

from scrfd_ros.messages.faces import ModelNames, face_array
from scrfd_ros.msg import FaceArray
from scrfd_ros.pipeline import load_pipeline

PUBLISHED_HASH = "RIHS01_21427412"
"""How the type hash of vision_msgs 4.1.1's Detection2DArray begins."""


def _typestore() -> Typestore:
    store = get_typestore(Stores.ROS2_JAZZY)
    types = {}
    for package in ("vision_msgs", "scrfd_ros"):
        for path in Path(get_package_share_directory(package), "msg").glob("*.msg"):
            types.update(get_types_from_msg(path.read_text(), f"{package}/msg/{path.stem}"))
    store.register({name: fields for name, fields in types.items() if name not in store.fielddefs})
    return store


@pytest.fixture(scope="module")
def content(image: Callable[[str], NDArray[np.uint8]]) -> bytes:
    """A real answer, to the image with six people."""
    header = Header(stamp=Time(sec=7, nanosec=11), frame_id="camera")
    pipeline = load_pipeline()
    faces = pipeline(image("t1.jpg")).faces
    return face_array(faces, header, ModelNames.of(pipeline))


def test_rosbags_reads_and_writes_faces(content: bytes) -> None:
    store = _typestore()
    message = deserialize_message(content, FaceArray)
    read = store.deserialize_cdr(content, "scrfd_ros/msg/FaceArray")
    assert read.recognizer == "w600k_mbf"
    assert len(read.faces) == 6
    np.testing.assert_array_equal(read.faces[0].embedding, message.faces[0].embedding)
    landmark = message.faces[5].landmarks[4]
    assert (read.faces[5].landmarks[4].x, read.faces[5].landmarks[4].y) == (landmark.x, landmark.y)
    assert bytes(store.serialize_cdr(read, "scrfd_ros/msg/FaceArray")) == content


@pytest.mark.skipif(
    not hasattr(TopicEndpointInfo, "topic_type_hash"), reason="Humble has no type hashes"
)
def test_type_hashes_are_those_of_the_published_definitions(tmp_path: Path) -> None:
    store = _typestore()
    with running_face_node(tmp_path) as harness:
        harness.wait_until_active()
        for topic, name in (
            ("detections", "vision_msgs/msg/Detection2DArray"),
            ("faces", "scrfd_ros/msg/FaceArray"),
        ):
            (endpoint,) = harness.node.get_publishers_info_by_topic(topic)
            assert str(endpoint.topic_type_hash) == store.hash_rihs01(name)
            if topic == "detections":
                assert str(endpoint.topic_type_hash).startswith(PUBLISHED_HASH)


@pytest.mark.skipif(
    os.environ.get("ROS_DISTRO") == "kilted",
    reason="Cyclone DDS for Python 11.0 calls Kilted's type objects invalid and does not match",
)
def test_a_camera_and_a_listener_on_cyclone_dds_are_served(
    tmp_path: Path, image: Callable[[str], NDArray[np.uint8]]
) -> None:
    frame = cv2.resize(image("t1.jpg"), (640, 443))
    header = CycloneHeader(CycloneTime(7, 11), "cyclone_camera")
    image = CycloneImage(header, *frame.shape[:2], "bgr8", 0, frame.shape[1] * 3, frame.tobytes())
    with running_face_node(tmp_path, {"recognizer.enabled": False}) as harness:
        harness.wait_until_active()
        participant = DomainParticipant(int(os.environ["ROS_DOMAIN_ID"]))
        qos = Qos(Policy.Reliability.Reliable(duration(seconds=1)), Policy.History.KeepLast(1))
        prefix = "rt" + harness.node.get_namespace()
        writer = DataWriter(
            participant, Topic(participant, f"{prefix}/image", CycloneImage, qos=qos), qos=qos
        )
        reader = DataReader(
            participant,
            Topic(participant, f"{prefix}/detections", CycloneDetections, qos=qos),
            qos=qos,
        )
        answers: list[CycloneDetections] = []
        # On a busy machine the first announcements can be lost; Cyclone's come every 30 s.
        end = time.monotonic() + 3 * TIMEOUT
        while not answers and time.monotonic() < end:
            writer.write(image)
            answers = list(reader.take_iter(timeout=duration(seconds=1)))
        assert answers, harness.log()

        def listener_is_served() -> bool:
            writer.write(image)  # again, as announcements may be late on this side too
            return bool(harness.detections)

        harness.wait_for(listener_is_served, "the same detections over Fast DDS")
    assert answers[0].header == header
    assert len(answers[0].detections) == 6
    expected = sorted(box.bbox.center.position.x for box in harness.detections[-1].detections)
    assert sorted(box.bbox.center.position.x for box in answers[0].detections) == expected
