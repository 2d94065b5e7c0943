# SPDX-License-Identifier: Apache-2.0
"""The faces equal the reference implementation's on the same files, and earlier results.

The reference's x are corrected for its use of one scale for both axes: see `insightface_stretch`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from insightface.model_zoo.scrfd import SCRFD
from insightface.utils.face_align import norm_crop
from numpy.typing import NDArray
from pipelines import detector_of, pipeline_of
from skimage.data import astronaut

from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.detection.views import plan_views
from scrfd_ros.engines.agreement import insightface_stretch
from scrfd_ros.faces import Faces
from scrfd_ros.inference.load import load_network
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.recognition.arcface import ArcFace

IMAGES = ["t1.jpg", "solvay_conference_1927.jpg", "obama.jpg", "players.jpg", "gdp.jpg"]
MORE_IMAGES = ["obama2.jpg", "obama3.jpg", "biden.jpg", "yaoming.jpg", "Tom_Hanks_54745.png"]

Image = Callable[[str], NDArray[np.uint8]]
Find = Callable[[str, str], Faces]


@pytest.fixture(scope="module")
def model_path(detector_path: Callable[[str], Path], det_500m_path: Path) -> Callable[[str], Path]:
    return lambda name: det_500m_path if name == "det_500m" else detector_path(name)


@pytest.fixture(scope="module")
def arcface(recognizer_path: Callable[[str], Path]) -> ArcFace:
    return ArcFace(load_network(recognizer_path("w600k_mbf")))


@pytest.fixture(scope="module")
def detector(model_path: Callable[[str], Path]) -> Callable[..., Scrfd]:
    """Detectors by name and input size."""
    return lru_cache(
        lambda name, size=(640, 640): detector_of(load_network(model_path(name)), size)
    )


@pytest.fixture(scope="module")
def embedded(detector: Callable[..., Scrfd], arcface: ArcFace, image: Image) -> Find:
    """Faces with embeddings by detector and image."""
    return lru_cache(lambda model, name: pipeline_of(detector(model), arcface)(image(name)).faces)


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("2.5g", (640, 640)),
        ("500m", (640, 640)),
        ("500m", (320, 320)),
        ("500m", (1280, 1280)),
        ("500m", (640, 384)),
        ("det_500m", (640, 640)),
        ("det_500m", (320, 320)),
    ],
    ids=lambda value: "{}x{}".format(*value) if isinstance(value, tuple) else value,
)
def test_same_detections(
    detector: Callable[..., Scrfd],
    model_path: Callable[[str], Path],
    image: Image,
    model: str,
    size: tuple[int, int],
) -> None:
    reference = SCRFD(str(model_path(model)))
    reference.prepare(-1, input_size=size, det_thresh=0.5, nms_thresh=0.4)
    images = {name: image(name) for name in (*IMAGES, *MORE_IMAGES)}
    images["astronaut.png"] = np.ascontiguousarray(astronaut()[:, :, ::-1])
    count = 0
    for name, each in images.items():
        expected, landmarks = reference.detect(each)
        faces = detector(model, size).detect(each)
        assert len(faces) == len(expected) and faces.landmarks is not None, name
        np.testing.assert_allclose(faces.scores, expected[:, 4], rtol=0, atol=1e-5, err_msg=name)
        whole = each.shape[1::-1]
        scales = np.array(plan_views(*whole, *size).views[0].scales)
        stretch = (insightface_stretch(whole, size), 1)
        for ours, theirs in (
            (faces.boxes.reshape(-1, 2, 2), expected[:, :4].reshape(-1, 2, 2)),
            (faces.landmarks, landmarks),
        ):
            in_image = theirs / stretch
            np.testing.assert_allclose(ours, in_image, rtol=0, atol=0.01, err_msg=name)
            on_input = theirs * scales[1]  # as the network gave them
            np.testing.assert_allclose(ours * scales, on_input, rtol=0, atol=0.01, err_msg=name)
        count += len(faces)
    assert len(images) == 11 and count > 40


@pytest.mark.filterwarnings("ignore:`estimate` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", IMAGES)
def test_same_embeddings(
    detector: Callable[..., Scrfd], arcface: ArcFace, image: Image, name: str
) -> None:
    landmarks = detector("2.5g").detect(image(name)).landmarks
    assert landmarks is not None
    landmarks = landmarks[:10]  # only the best, as one at a time takes long
    embeddings, norms = arcface.embed(align_faces(image(name), landmarks))
    reference = ArcFaceONNX(str(arcface.network.path))
    crops = [norm_crop(image(name), points) for points in landmarks]
    raw = np.concatenate([reference.get_feat(crop) for crop in crops])
    expected_norms = np.linalg.norm(raw, axis=1)
    assert ((embeddings * raw).sum(axis=1) / expected_norms).min() > 0.9999
    np.testing.assert_allclose(norms, expected_norms, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:`estimate` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("name", "stretched", "minimum"),
    [
        ("t1.jpg", False, 0.9999),
        ("solvay_conference_1927.jpg", True, 0.98),
        ("obama.jpg", True, 0.98),
    ],
)
def test_same_embeddings_from_image_to_end(
    embedded: Find,
    arcface: ArcFace,
    model_path: Callable[[str], Path],
    image: Image,
    name: str,
    stretched: bool,
    minimum: float,
) -> None:
    detector = SCRFD(str(model_path("500m")))
    detector.prepare(-1, input_size=(640, 640), det_thresh=0.5, nms_thresh=0.4)
    reference = ArcFaceONNX(str(arcface.network.path))
    whole = image(name)
    assert (insightface_stretch(whole.shape[1::-1], (640, 640)) != 1) == stretched
    _, landmarks = detector.detect(whole)
    raw = np.concatenate([reference.get_feat(norm_crop(whole, points)) for points in landmarks])
    found = embedded("500m", name).embeddings
    cosines = (found * raw).sum(axis=1) / np.linalg.norm(raw, axis=1)
    assert cosines.min() >= minimum


SIX_PEOPLE = [
    [745.8, 339.2, 845.7, 480.6],
    [465.4, 265.4, 573.4, 416.1],
    [58.5, 262.9, 168.8, 395.6],
    [1131.4, 271.1, 1225.7, 398.9],
    [904.8, 54.2, 1013.2, 204.2],
    [269.0, 147.3, 371.2, 265.1],
]


def matched(faces: Faces, others: Faces) -> NDArray[np.intp]:
    """For each face the row of the other face with the nearest center."""
    distances = np.linalg.norm(faces.centers[:, None] - others.centers, axis=2)
    rows = distances.argmin(axis=1)
    assert sorted(rows) == list(range(len(others)))
    return rows


def test_six_people_with_2_5g(embedded: Find) -> None:
    faces = embedded("2.5g", "t1.jpg")
    np.testing.assert_allclose(faces.boxes, SIX_PEOPLE, rtol=0, atol=0.1)
    np.testing.assert_allclose([faces.scores.max(), faces.scores.min()], [0.917, 0.858], atol=6e-4)


@pytest.mark.parametrize("model", ["500m", "det_500m"])
def test_six_people_with_500m(detector: Callable[..., Scrfd], image: Image, model: str) -> None:
    faces = detector(model).detect(image("t1.jpg"))
    assert len(faces) == 6
    np.testing.assert_allclose([faces.scores.max(), faces.scores.min()], [0.879, 0.823], atol=6e-4)


@pytest.mark.parametrize("model", ["2.5g", "500m", "det_500m"])
def test_29_people(detector: Callable[..., Scrfd], image: Image, model: str) -> None:
    assert len(detector(model).detect(image("solvay_conference_1927.jpg"))) == 29


# The ranges have two digits, so half of the last one is allowed.
HALF_DIGIT = 0.005


def assert_within(cosines: NDArray[np.float32], low: float, high: float) -> None:
    assert cosines.min() >= low - HALF_DIGIT
    assert cosines.max() <= high + HALF_DIGIT


def test_different_people_are_far_apart(embedded: Find) -> None:
    embeddings = embedded("2.5g", "t1.jpg").embeddings
    assert embeddings is not None
    cosines = embeddings @ embeddings.T
    assert_within(cosines[~np.eye(6, dtype=bool)], -0.03, 0.19)


def test_a_face_found_by_two_detectors_is_the_same(embedded: Find) -> None:
    faces, others = embedded("2.5g", "t1.jpg"), embedded("500m", "t1.jpg")
    assert faces.embeddings is not None and others.embeddings is not None
    cosines = (faces.embeddings * others.embeddings[matched(faces, others)]).sum(axis=1)
    assert_within(cosines, 0.93, 0.97)


def test_a_face_and_its_mirror_image_are_alike(
    embedded: Find, arcface: ArcFace, image: Image
) -> None:
    faces = embedded("2.5g", "t1.jpg")
    assert faces.landmarks is not None and faces.embeddings is not None
    crops = align_faces(image("t1.jpg"), faces.landmarks)
    mirrored, _ = arcface.embed(crops[:, :, ::-1])
    assert_within((faces.embeddings * mirrored).sum(axis=1), 0.95, 0.98)


def test_one_person_in_three_photographs(embedded: Find) -> None:
    names = ("obama.jpg", "obama2.jpg", "obama3.jpg")
    found = [embedded("2.5g", name).embeddings for name in names]
    assert all(embeddings is not None and len(embeddings) == 1 for embeddings in found)
    embeddings = np.concatenate(found)
    cosines = embeddings @ embeddings.T
    assert_within(cosines[~np.eye(3, dtype=bool)], 0.63, 0.71)


def test_another_person_is_not_that_person(embedded: Find) -> None:
    obama = embedded("2.5g", "obama.jpg").embeddings
    biden = embedded("2.5g", "biden.jpg").embeddings
    assert obama is not None and biden is not None
    assert (obama @ biden.T).max() < 0.2
