# SPDX-License-Identifier: Apache-2.0
"""The comparison with RetinaFace runs it as its own package does, and counts correctly."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import retinaface
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench"))

from against_retinaface.detectors import RETINAFACE, Detector, letterboxed, load_detectors
from against_retinaface.landmarks import compatibility
from against_retinaface.scenes import (
    Photograph,
    Portrait,
    Scene,
    collages,
    grids,
    portraits,
    scaled_down,
    surroundings,
)
from against_retinaface.scoring import outcome
from against_retinaface.speed import multiplications, parameters

from scrfd_ros.faces import Faces, FloatArray, ious
from scrfd_ros.inference.load import load_network
from scrfd_ros.recognition.arcface import ArcFace

Images = Callable[[str], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def detectors(
    detector_path: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Detector]:
    detector_path("500m"), detector_path("2.5g")  # skips where they cannot be had
    return load_detectors(tmp_path_factory.mktemp("networks"), 320)


@pytest.fixture
def photo(detectors: dict[str, Detector], image: Images) -> Photograph:
    """Six people, and their faces as 2.5g finds them."""
    found = detectors["2.5g"].detect(image("t1.jpg"))
    return Photograph("t1.jpg", image("t1.jpg"), found.boxes[:6])


def test_retinaface_finds_what_its_own_package_finds(
    detectors: dict[str, Detector], image: Images
) -> None:
    picture, _ = letterboxed(image("t1.jpg"), 320)
    theirs = retinaface.detect_faces(picture[..., ::-1], score_threshold=0.02)
    ours = detectors[RETINAFACE].detect(picture)
    assert len(theirs) == len(ours) >= 6
    assert ours.landmarks is not None
    for face, box, score, landmarks in zip(
        theirs, ours.boxes, ours.scores, ours.landmarks, strict=True
    ):
        assert face.score == pytest.approx(score, abs=1e-4)
        # The package cuts off what follows the point, of the corner and of the size.
        corner, size = box[:2], box[2:] - box[:2]
        np.testing.assert_allclose(np.subtract(corner, (face.x, face.y)), 0.5, atol=0.51)
        np.testing.assert_allclose(size - (face.width, face.height), 0.5, atol=0.51)
        points = [(point.x, point.y) for point in face.landmarks]
        np.testing.assert_allclose(landmarks - points, 0.5, atol=0.51)


def test_all_find_the_six_faces_at_half_the_published_size(
    detectors: dict[str, Detector], image: Images
) -> None:
    found = {name: each.detect(image("t1.jpg")) for name, each in detectors.items()}
    for name, faces in found.items():
        assert (faces.scores >= 0.5).sum() == 6, name
        overlaps = ious(faces.boxes[:6], found["2.5g"].boxes[:6])
        assert (overlaps.max(axis=1) > 0.6).all(), name


def test_landmarks_have_one_order_and_embeddings_stay_comparable(
    detectors: dict[str, Detector],
    photo: Photograph,
    recognizer_path: Callable[[str], Path],
) -> None:
    recognizer = ArcFace(load_network(recognizer_path("w600k_mbf")))
    people = np.array(list("abcdef"))
    found = compatibility(detectors[RETINAFACE], detectors["2.5g"], recognizer, [photo], people)
    assert len(found.own) == len(found.distances) == 6
    assert len(found.others) == 6 * 5
    assert found.distances.max() < 0.1
    assert found.own.min() > 0.7
    assert found.others.max() < 0.4


def test_multiplications_and_parameters_of_a_convolution() -> None:
    weights = np.ones((8, 3, 3, 3), np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1])
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w_"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = model.SerializeToString()
    assert multiplications(content, 32) == 16 * 16 * 8 * 27
    assert parameters(content) == 8 * 27


def test_multiplications_of_scrfd_are_those_that_it_is_named_after(
    detector_path: Callable[[str], Path],
) -> None:
    """For 640x480, as published; the figures there are without the branch for landmarks."""
    content = detector_path("2.5g").read_bytes()
    assert multiplications(content, 640) * 480 / 640 == pytest.approx(2.53e9, rel=0.03)


class Fixed:
    """A detector that finds the same in each image."""

    def __init__(self, boxes: FloatArray, scores: list[float]) -> None:
        self._faces = Faces(boxes, np.float32(scores))

    def detect(self, image: NDArray[np.uint8]) -> Faces:
        return self._faces


def test_a_face_counts_once_and_what_is_on_no_face_is_false() -> None:
    faces = np.float32([[0, 0, 10, 10], [50, 50, 90, 90], [200, 0, 220, 20]])
    found = np.float32([[1, 1, 11, 11], [51, 50, 91, 90], [0, 0, 10, 9], [120, 0, 130, 10]])
    detector = Fixed(found, [0.9, 0.8, 0.7, 0.6])
    result = outcome(detector, [Scene(np.zeros((640, 640, 3), np.uint8), faces)])
    assert result.heights.tolist() == [10, 40, 20]
    np.testing.assert_allclose(result.scores, [0.9, 0.8, 0])
    np.testing.assert_allclose(result.false_scores, [0.7, 0.6])
    assert result.recall(0.85) == pytest.approx(1 / 3)
    assert result.recall(0.5, low=40) == 1
    assert result.recall(0.5, high=40) == 0.5
    thresholds, precisions, recalls = result.precisions()
    np.testing.assert_allclose(thresholds, [0.9, 0.8, 0.7, 0.6])
    np.testing.assert_allclose(precisions, [1, 1, 2 / 3, 1 / 2])
    np.testing.assert_allclose(recalls, [1 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert result.average_precision() == pytest.approx(2 / 3)
    assert result.threshold_for(0.6) == pytest.approx(0.7)


def test_the_faces_are_where_the_scenes_say(
    detectors: dict[str, Detector], photo: Photograph
) -> None:
    """Found by the network there, in collages, in grids, shifted, slightly turned and scaled."""
    faces = portraits([photo])
    assert len(faces) == 6

    def place(face: Portrait, height: float, side: int) -> object:
        return surroundings(face, height, side, 10, (5, -3))

    scenes = [
        scaled_down(photo, 0.7),
        *grids(faces, 100, place),
        *collages(faces, 2, (90, 150), np.random.default_rng(0)),
    ]
    for scene in scenes:
        assert scene.image.shape == (640, 640, 3)
        result = outcome(detectors["2.5g"], [scene])
        assert len(scene.boxes) and result.recall(0.4) == 1
        best = ious(scene.boxes, detectors["2.5g"].detect(scene.image).boxes).max(axis=1)
        assert best.mean() > 0.75
