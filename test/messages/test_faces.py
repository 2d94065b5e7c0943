# SPDX-License-Identifier: Apache-2.0
"""Faces in messages: what each field holds, and what is refused. The bytes: test/properties."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from message_objects import Rosbags, detection_array_object, face_array_object

from scrfd_ros.bags.message_types import DETECTION_ARRAY, FACE_ARRAY, deserialize
from scrfd_ros.errors import MessageError
from scrfd_ros.faces import Faces
from scrfd_ros.messages.faces import ModelNames, detection_array, face_array, faces_of

LIBRARY = Rosbags()
MODELS = ModelNames("scrfd", "a" * 64, "arcface", "b" * 64)


def some_faces(count: int, landmarks: bool = True, embeddings: bool = True) -> Faces:
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
        ids=random.permutation(count).astype(np.int64) + 1,
    )


def read(faces: Faces, models: ModelNames = MODELS) -> Any:
    """A FaceArray of these faces, after its way through bytes."""
    header = LIBRARY.header(7, 11, "camera")
    return deserialize(face_array(faces, header, models), FACE_ARRAY)


@pytest.mark.parametrize("frame_id", ["", "a", "camera_optical_frame", "Überwachung"])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize(("landmarks", "embeddings"), [(True, True), (True, False), (False, False)])
def test_the_bytes_are_those_of_rosbags(
    count: int, landmarks: bool, embeddings: bool, frame_id: str
) -> None:
    faces = some_faces(count, landmarks, embeddings)
    header = LIBRARY.header(1_700_000_000, 7, frame_id)
    detections = detection_array_object(LIBRARY, faces, header)
    assert detection_array(faces, header) == LIBRARY.bytes_of(detections)
    expected = LIBRARY.bytes_of(face_array_object(LIBRARY, faces, detections, MODELS))
    assert face_array(faces, header, MODELS) == expected


@pytest.mark.parametrize("count", [0, 1, 6, 29])
def test_faces_come_back(count: int) -> None:
    faces = some_faces(count)
    back = faces_of(read(faces))
    np.testing.assert_allclose(back.boxes, faces.boxes, atol=1e-3)
    np.testing.assert_array_equal(back.scores, faces.scores)
    if count:
        for name in ("embeddings", "embedding_norms", "landmarks", "ids"):
            np.testing.assert_array_equal(getattr(back, name), getattr(faces, name))


def test_faces_that_were_not_embedded_have_no_embedding() -> None:
    faces = some_faces(3)
    assert faces.embeddings is not None and faces.embedding_norms is not None
    faces.embeddings[1] = faces.embedding_norms[1] = 0
    message = read(faces)
    assert [len(face.embedding) for face in message.faces] == [512, 0, 512]
    back = faces_of(message)
    np.testing.assert_array_equal(back.embeddings, faces.embeddings)
    assert back.embedded.tolist() == [True, False, True]


def test_without_landmarks_and_embeddings_the_fields_are_empty() -> None:
    message = read(some_faces(3, landmarks=False, embeddings=False), ModelNames("scrfd", "a" * 64))
    assert (message.recognizer, message.recognizer_sha256) == ("", "")
    for face in message.faces:
        assert len(face.landmarks) == len(face.embedding) == face.embedding_norm == 0
    back = faces_of(message)
    assert back.landmarks is None and back.embeddings is None and len(back) == 3


def test_center_and_size_are_those_of_the_box() -> None:
    box = np.array([[10.5, 20, 30.5, 60]], np.float32)
    header = LIBRARY.header(7, 11, "camera")
    data = detection_array(Faces(boxes=box, scores=np.ones(1, np.float32)), header)
    (detection,) = deserialize(data, DETECTION_ARRAY).detections
    assert detection.bbox.center.position.x == 20.5
    assert detection.bbox.center.position.y == 40
    assert (detection.bbox.size_x, detection.bbox.size_y) == (20, 40)
    assert detection.header == header


def test_the_models_are_named() -> None:
    def network(name: str) -> SimpleNamespace:
        return SimpleNamespace(name=name, sha256=name * 2)

    pipeline: Any = SimpleNamespace(networks={"detector": network("a"), "recognizer": network("b")})
    models = ModelNames.of(pipeline)
    message = read(some_faces(1), models)
    assert (message.detector, message.detector_sha256) == ("a", "aa")
    assert (message.recognizer, message.recognizer_sha256) == ("b", "bb")
    del pipeline.networks["recognizer"]
    assert ModelNames.of(pipeline) == ModelNames("a", "aa", "", "")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda face: face.detection.results.clear(), id="no score"),
        pytest.param(lambda face: face.landmarks.clear(), id="landmarks of some"),
        pytest.param(lambda face: face.landmarks.pop(), id="4 landmarks"),
        pytest.param(lambda face: setattr(face.detection, "id", ""), id="ids of some"),
        pytest.param(lambda face: setattr(face.detection, "id", "Ann"), id="an id in letters"),
        pytest.param(lambda face: setattr(face.detection, "id", str(2**63)), id="a huge id"),
        pytest.param(lambda face: setattr(face, "embedding", np.ones(8)), id="8 of 512 numbers"),
        pytest.param(lambda face: setattr(face, "embedding", np.ones(0)), id="a norm alone"),
        pytest.param(lambda face: setattr(face, "embedding_norm", 0.0), id="no norm"),
    ],
)
def test_contradictions_are_refused(damage: Callable[[Any], None]) -> None:
    message = read(some_faces(3))
    damage(message.faces[1])
    with pytest.raises(MessageError, match="FaceArray contradict"):
        faces_of(message)
