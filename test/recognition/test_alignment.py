# SPDX-License-Identifier: Apache-2.0
"""Faces are cut out by the least-squares similarity transform, for any landmarks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from insightface.utils.face_align import estimate_norm
from numpy.typing import NDArray

from scrfd_ros.recognition.alignment import TEMPLATE, align_faces, similarity_transforms

RANDOM = np.random.default_rng(0)


def lstsq_transform(landmarks: NDArray[np.float32]) -> NDArray[np.float64]:
    """a, b, tx, ty that minimize |(a x - b y + tx, b x + a y + ty) - template|^2, in double."""
    rows, wanted = [], []
    for (x, y), (to_x, to_y) in zip(landmarks.astype(np.float64), TEMPLATE, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        wanted += [to_x, to_y]
    a, b, tx, ty = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
    return np.array([[a, -b, tx], [b, a, ty]])


def turned(degrees: float, scale: float, shift: tuple[float, float]) -> NDArray[np.float32]:
    """The template's landmarks, turned and scaled about the origin, then shifted."""
    angle = np.radians(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (scale * TEMPLATE @ rotation.T + shift).astype(np.float32)


LANDMARKS = [
    pytest.param(TEMPLATE.astype(np.float32), id="the template itself"),
    pytest.param(turned(30, 2.0, (500, 300)), id="turned, doubled"),
    pytest.param(turned(180, 0.1, (3, 4)), id="upside down, small"),
    pytest.param(turned(-90, 9.0, (-4000, 3000)), id="on its side, outside the image"),
    pytest.param((TEMPLATE * [-1, 1] + [112, 0]).astype(np.float32), id="mirrored"),
    pytest.param((TEMPLATE * [0.2, 1]).astype(np.float32), id="in profile"),
    pytest.param(RANDOM.uniform(0, 1000, (5, 2)).astype(np.float32), id="random"),
    pytest.param(np.array([[x, 2 * x] for x in range(5)], np.float32), id="on a line"),
]


@pytest.mark.parametrize("landmarks", LANDMARKS)
def test_is_the_least_squares_solution(landmarks: NDArray[np.float32]) -> None:
    (found,) = similarity_transforms(landmarks[None])
    np.testing.assert_allclose(found, lstsq_transform(landmarks), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("landmarks", LANDMARKS)
@pytest.mark.filterwarnings("ignore:`estimate` is deprecated:FutureWarning")
def test_equals_umeyama_of_the_reference(landmarks: NDArray[np.float32]) -> None:
    # scikit-image's, with an SVD and a template in single precision.
    reference = estimate_norm(landmarks)
    (found,) = similarity_transforms(landmarks[None])
    np.testing.assert_allclose(found, reference, rtol=1e-6, atol=1e-5)


def test_each_face_has_its_own() -> None:
    landmarks = RANDOM.uniform(0, 1000, (7, 5, 2)).astype(np.float32)
    together = similarity_transforms(landmarks)
    assert together.shape == (7, 2, 3) and together.dtype == np.float64
    for face, transform in zip(landmarks, together, strict=True):
        np.testing.assert_array_equal(similarity_transforms(face[None])[0], transform)


def test_all_landmarks_in_one_point() -> None:
    landmarks = np.full((1, 5, 2), 300, np.float32)
    (found,) = similarity_transforms(landmarks)
    np.testing.assert_allclose(found, np.column_stack((np.zeros((2, 2)), TEMPLATE.mean(axis=0))))
    crops = align_faces(RANDOM.integers(0, 256, (400, 400, 3), np.uint8), landmarks)
    assert crops.shape == (1, 112, 112, 3)


def test_crop_of_the_template_is_the_image() -> None:
    image = RANDOM.integers(0, 256, (112, 112, 3), np.uint8)
    np.testing.assert_array_equal(align_faces(image, TEMPLATE[None].astype(np.float32))[0], image)


def test_crop_follows_the_landmarks() -> None:
    image = np.zeros((600, 800, 3), np.uint8)
    landmarks = turned(25, 1.5, (300, 200))
    for x, y in landmarks:
        cv2.circle(image, (round(float(x)), round(float(y))), 3, (255, 255, 255), cv2.FILLED)
    (crop,) = align_faces(image, landmarks[None])
    for x, y in TEMPLATE:
        top, left = round(y) - 6, round(x) - 6
        at_y, at_x = np.nonzero(crop[top : top + 13, left : left + 13, 0] > 128)
        np.testing.assert_allclose([left + at_x.mean(), top + at_y.mean()], [x, y], atol=0.7)


def test_black_beyond_the_image() -> None:
    white = np.full((50, 100, 3), 255, np.uint8)
    # Twice as large as the crop, and its middle on the right edge of the image.
    (crop,) = align_faces(white, (TEMPLATE[None] / 2 + (72, 0)).astype(np.float32))
    assert (crop[:98, :55] == 255).all()
    assert (crop[:, 57:] == 0).all() and (crop[101:] == 0).all()


def test_an_image_of_one_pixel_is_as_with_black_around_it() -> None:
    image = np.zeros((5, 5, 3), np.uint8)
    image[2, 2] = 250, 120, 60
    landmarks = (TEMPLATE[None] / 60).astype(np.float32)
    (crop,) = align_faces(image[2:3, 2:3], landmarks)
    (expected,) = align_faces(image, landmarks + 2)
    assert crop.max() > 100
    assert np.abs(crop.astype(int) - expected).max() <= 1  # rounded from other coordinates


def test_no_faces() -> None:
    none = np.empty((0, 5, 2), np.float32)
    assert similarity_transforms(none).shape == (0, 2, 3)
    assert align_faces(np.zeros((10, 10, 3), np.uint8), none).shape == (0, 112, 112, 3)
