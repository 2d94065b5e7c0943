# SPDX-License-Identifier: Apache-2.0
"""Faces survive the way into messages and back, through real serialization."""

from __future__ import annotations

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from pipelines import loaded
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from scrfd_ros.faces import Faces
from scrfd_ros.inference.network import Network
from scrfd_ros.msg import FaceArray
from scrfd_ros.node.messages import detection_array, face_array, faces_of
from scrfd_ros.pipeline import FacePipeline

HEADER = Header(stamp=Time(sec=7, nanosec=11), frame_id="camera")


@pytest.fixture(scope="module")
def pipelines(detector_path, recognizer_path) -> dict[str, FacePipeline]:  # type: ignore[no-untyped-def]

    detector = detector_path("500m")
    return {
        "recognizes": loaded(detector, recognizer_path("w600k_mbf")),
        "detects": loaded(detector),
    }


def _faces(count: int, landmarks: bool = True, embeddings: bool = True) -> Faces:
    random = np.random.default_rng(count)
    raw = random.standard_normal((count, 512)).astype(np.float32)
    norms = np.linalg.norm(raw, axis=1)
    corners = random.uniform(-20, 4000, (count, 2))
    return Faces(
        boxes=np.hstack((corners, corners + random.uniform(1, 500, (count, 2)))).astype(np.float32),
        scores=random.uniform(0, 1, count).astype(np.float32),
        landmarks=random.uniform(0, 4000, (count, 5, 2)).astype(np.float32) if landmarks else None,
        embeddings=raw / norms[:, None] if embeddings else None,
        embedding_norms=norms if embeddings else None,
    )


@pytest.mark.parametrize("count", [0, 1, 6, 29])
def test_round_trip(count: int, pipelines: dict[str, FacePipeline]) -> None:
    faces = _faces(count)
    message = face_array(detection_array(faces, HEADER), faces, pipelines["recognizes"])
    message = deserialize_message(serialize_message(message), FaceArray)
    back = faces_of(message)
    assert message.header == HEADER
    np.testing.assert_allclose(back.boxes, faces.boxes, atol=1e-3)
    np.testing.assert_array_equal(back.scores, faces.scores)
    if count:
        assert back.embeddings is not None and back.landmarks is not None
        np.testing.assert_array_equal(back.embeddings, faces.embeddings)
        np.testing.assert_array_equal(back.embedding_norms, faces.embedding_norms)
        np.testing.assert_array_equal(back.landmarks, faces.landmarks)


def test_faces_that_were_not_embedded_have_no_embedding(
    pipelines: dict[str, FacePipeline],
) -> None:
    faces = _faces(3)
    assert faces.embeddings is not None and faces.embedding_norms is not None
    faces.embeddings[1] = faces.embedding_norms[1] = 0
    message = face_array(detection_array(faces, HEADER), faces, pipelines["recognizes"])
    assert [len(face.embedding) for face in message.faces] == [512, 0, 512]
    back = faces_of(message)
    np.testing.assert_array_equal(back.embeddings, faces.embeddings)
    assert back.embedded.tolist() == [True, False, True]


def test_without_landmarks_and_embeddings_the_fields_are_empty(
    pipelines: dict[str, FacePipeline],
) -> None:
    faces = _faces(3, landmarks=False, embeddings=False)
    message = face_array(detection_array(faces, HEADER), faces, pipelines["detects"])
    assert (message.recognizer, message.recognizer_sha256) == ("", "")
    for face in message.faces:
        assert len(face.landmarks) == len(face.embedding) == face.embedding_norm == 0
    back = faces_of(deserialize_message(serialize_message(message), FaceArray))
    assert back.landmarks is None and back.embeddings is None and len(back) == 3


def test_center_and_size_are_those_of_the_box() -> None:
    box = np.array([[10.5, 20, 30.5, 60]], np.float32)
    faces = Faces(boxes=box, scores=np.ones(1, np.float32))
    (detection,) = detection_array(faces, HEADER).detections
    assert detection.bbox.center.position.x == 20.5
    assert detection.bbox.center.position.y == 40
    assert (detection.bbox.size_x, detection.bbox.size_y) == (20, 40)
    assert detection.header == HEADER


def test_the_models_are_named(pipelines: dict[str, FacePipeline]) -> None:
    pipeline = pipelines["recognizes"]
    faces = _faces(1)
    message = face_array(detection_array(faces, HEADER), faces, pipeline)
    assert pipeline.recognizer is not None
    networks: list[Network] = [pipeline.detector.network, pipeline.recognizer.network]
    assert [message.detector, message.recognizer] == [n.path.stem for n in networks]
    assert [message.detector_sha256, message.recognizer_sha256] == [n.sha256 for n in networks]
    assert len(message.recognizer_sha256) == 64
