# SPDX-License-Identifier: Apache-2.0
"""rclpy reads and sends the bytes of messages with faces; the other messages of the node."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from message_objects import Rclpy, detection_array_object, face_array_object
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from scrfd_ros.config import DetectorConfig, PipelineConfig
from scrfd_ros.errors import ScrfdError
from scrfd_ros.faces import Faces, Identity, IdentityState
from scrfd_ros.messages.faces import ModelNames, detection_array, face_array, faces_of
from scrfd_ros.msg import Face, FaceArray
from scrfd_ros.node import messages
from scrfd_ros.node.messages import check_definitions, label_info, vision_info

HEADER = Header(stamp=Time(sec=7, nanosec=11), frame_id="camera")
MODELS = ModelNames("scrfd", "a" * 64, "arcface", "b" * 64)


def some_faces(count: int) -> Faces:
    random = np.random.default_rng(count)
    norms = random.uniform(0, 30, count).astype(np.float32)
    return Faces(
        boxes=random.uniform(-100, 4000, (count, 4)).astype(np.float32),
        scores=random.uniform(0, 1, count).astype(np.float32),
        landmarks=random.uniform(0, 4000, (count, 5, 2)).astype(np.float32),
        embeddings=random.normal(size=(count, 512)).astype(np.float32),
        embedding_norms=norms,
        ids=random.permutation(count).astype(np.int64) + 1,
        identities=tuple(
            Identity(IdentityState(row % 3), f"id {row}", "Zoë" * (row % 3 == 2), row / 32, 0.25)
            for row in range(count)
        ),
    )


@pytest.mark.parametrize("count", [0, 1, 6, 29])
def test_rclpy_reads_the_bytes(count: int) -> None:
    faces = some_faces(count)
    data = detection_array(faces, HEADER)
    detections = detection_array_object(Rclpy(), faces, HEADER)
    assert deserialize_message(data, Detection2DArray) == detections
    assert len(data) == len(serialize_message(detections))
    data = face_array(faces, HEADER, MODELS)
    expected = face_array_object(Rclpy(), faces, detections, MODELS)
    assert deserialize_message(data, FaceArray) == expected
    assert len(data) == len(serialize_message(expected))


@pytest.mark.parametrize("count", [0, 1, 6, 29])
def test_faces_come_back_from_what_rclpy_sends(count: int) -> None:
    faces = some_faces(count)
    detections = detection_array_object(Rclpy(), faces, HEADER)
    sent = serialize_message(face_array_object(Rclpy(), faces, detections, MODELS))
    back = faces_of(deserialize_message(sent, FaceArray))
    np.testing.assert_allclose(back.boxes, faces.boxes, atol=1e-3)
    np.testing.assert_array_equal(back.scores, faces.scores)
    if count:
        for name in ("embeddings", "embedding_norms", "landmarks", "ids"):
            np.testing.assert_array_equal(getattr(back, name), getattr(faces, name))
        assert back.identities == faces.identities


def test_the_states_of_an_identity_are_the_constants_of_the_message() -> None:
    for state in IdentityState:
        assert getattr(Face, f"IDENTITY_{state.name}") == state


def test_the_installed_definitions_are_those_that_are_written() -> None:
    check_definitions()


@pytest.mark.parametrize(
    "change", [lambda data: data[:-4], lambda data: data[:12] + data[16:]], ids=["cut", "shifted"]
)
def test_other_definitions_are_refused(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write = messages.face_array
    monkeypatch.setattr(messages, "face_array", lambda *arguments: change(write(*arguments)))
    with pytest.raises(ScrfdError, match="install vision_msgs 4"):
        check_definitions()


def test_what_detections_mean() -> None:
    def network(name: str) -> SimpleNamespace:
        return SimpleNamespace(name=name, backend="backend")

    config = PipelineConfig(detector=DetectorConfig(score_threshold=0.25))
    pipeline: Any = SimpleNamespace(
        config=config, networks={"detector": network("scrfd"), "recognizer": network("arcface")}
    )
    info = vision_info(pipeline, HEADER)
    assert info.method == "scrfd (backend) + arcface (backend)"
    assert (info.header, info.database_location) == (HEADER, "label_info")
    labels = label_info(pipeline, HEADER)
    assert (labels.header, labels.threshold) == (HEADER, 0.25)
    assert [(entry.class_id, entry.class_name) for entry in labels.class_map] == [(0, "face")]
    del pipeline.networks["recognizer"]
    assert vision_info(pipeline, HEADER).method == "scrfd (backend)"
