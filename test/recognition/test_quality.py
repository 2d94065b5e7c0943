# SPDX-License-Identifier: Apache-2.0
"""Quality falls with size, sharpness and score, in figures known by construction and on real faces.

Faces below a threshold are those that are not recognized.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pipelines import loaded

from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.recognition.alignment import CROP_SIZE, TEMPLATE, align_faces
from scrfd_ros.recognition.quality import (
    ENOUGH_PIXELS,
    ENOUGH_SHARPNESS,
    face_quality,
    face_sizes,
    pose,
    sharpness,
)

FACE = TEMPLATE[None].astype(np.float32)


def turned(points: NDArray[np.float32], degrees: float) -> NDArray[np.float32]:
    """Points of an image that is turned clockwise."""
    angle = np.radians(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points @ matrix.T).astype(np.float32)


def stripes(period: float) -> NDArray[np.uint8]:
    """Aligned faces, [1, 112, 112, 3], of gray upright waves."""
    wave = 128 + 100 * np.sin(2 * np.pi * np.arange(CROP_SIZE) / period)
    return np.broadcast_to(wave[None, None, :, None], (1, CROP_SIZE, CROP_SIZE, 3)).astype(np.uint8)


@pytest.mark.parametrize("scale", [0.1, 1, 7])
def test_size_is_the_side_of_what_is_cut_out(scale: float) -> None:
    landmarks = turned(FACE * scale, 30) + np.array([500, -20])
    assert face_sizes(landmarks.astype(np.float32))[0] == pytest.approx(112 * scale, rel=1e-4)


@pytest.mark.parametrize("period", [4, 8, 20, 40])
def test_sharpness_of_waves_is_what_the_means_leave_of_them(period: float) -> None:
    def left(pixels: int) -> float:
        """The amplitude that a wave keeps after a mean over this many pixels."""
        angle = np.pi / period
        return float(np.sin(pixels * angle) / (pixels * np.sin(angle)))

    # Approximately: the pixels mirrored at the border are no wave.
    assert sharpness(stripes(period))[0] == pytest.approx(abs(left(3) - left(7)), abs=0.05)


def test_sharpness_does_not_depend_on_light_and_contrast() -> None:
    crops = stripes(8)
    darker = (crops // 4 + 7).astype(np.uint8)
    assert sharpness(darker)[0] == pytest.approx(sharpness(crops)[0], rel=0.02)


def test_a_face_without_contrast_is_useless() -> None:
    crops = np.full((1, CROP_SIZE, CROP_SIZE, 3), 90, np.uint8)
    assert face_quality(np.ones(1, np.float32), FACE, crops).tolist() == [0]


def test_useful_is_the_product_of_its_parts() -> None:
    scores = np.array([0.5, 0.8, 0.9, 0.9], np.float32)
    landmarks = FACE * np.array([5, 0.25, 1, 0])[:, None, None].astype(np.float32)
    crops = np.concatenate([stripes(8), stripes(8), stripes(60), stripes(8)])
    assert sharpness(crops[:1])[0] > ENOUGH_SHARPNESS
    blur = sharpness(crops[2:3])[0] / ENOUGH_SHARPNESS
    assert blur < 1
    expected = [0.5, 0.8 * 28 / ENOUGH_PIXELS, 0.9 * blur, 0]
    figures = face_quality(scores, landmarks, crops)
    assert figures.tolist() == pytest.approx(expected, rel=1e-4)
    assert figures.dtype == np.float32


def test_no_faces() -> None:
    none = np.empty((0, 5, 2), np.float32)
    crops = np.empty((0, CROP_SIZE, CROP_SIZE, 3), np.uint8)
    assert face_quality(np.empty(0, np.float32), none, crops).shape == (0,)
    assert pose(none).shape == (0, 3)


def head(yaw: float, pitch: float) -> NDArray[np.float32]:
    """Landmarks of a head with the template's face on a plane and the nose before it, turned.

    Args:
        yaw, pitch: degrees, to the right of the image and down.
    """
    middle = TEMPLATE[:2].mean(axis=0)
    points = np.column_stack((TEMPLATE - middle, np.zeros(5)))
    points[2, 2] = np.hypot(*(TEMPLATE[1] - TEMPLATE[0])) / 2
    a, b = np.radians((yaw, pitch))
    right = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    down = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    return (points @ (right @ down).T)[None, :, :2].astype(np.float32)


@pytest.mark.parametrize("angle", [-40, -15, 0, 15, 40])
def test_pose_of_a_simple_head(angle: float) -> None:
    yaw, pitch, roll = pose(head(angle, 0))[0]
    assert (yaw, pitch, roll) == pytest.approx((angle, 0, 0), abs=3)
    yaw, pitch, roll = pose(head(0, angle))[0]
    # The sine, where the distance of the eyes does not shrink as with yaw.
    assert pitch == pytest.approx(np.degrees(np.arctan(np.sin(np.radians(angle)))), abs=1)
    assert (yaw, roll) == pytest.approx((0, 0), abs=3)
    yaw, pitch, roll = pose(turned(head(20, 10), angle))[0]
    assert roll == pytest.approx(angle, abs=3)
    assert (yaw, pitch) == pytest.approx(pose(head(20, 10))[0, :2], abs=0.01)


def test_pose_is_what_its_formula_says_wherever_the_face_is() -> None:
    # Eyes 2 apart: the nose is at (0.1, 0.5) and the middle of the mouth 1.0 below, in that unit.
    simple = np.array([[-1, 0], [1, 0], [0.2, 1], [-1, 1], [1, 3]])
    landmarks = np.stack((TEMPLATE, 50 * simple + (640, 360)))
    yaw, pitch, roll = pose(landmarks.astype(np.float32))[1]
    assert yaw == pytest.approx(np.degrees(np.arctan(0.2)), abs=1e-3)
    assert pitch == pytest.approx(np.degrees(np.arctan(2 * (0.5 - 0.495))), abs=1e-3)
    assert roll == pytest.approx(0, abs=1e-3)


def test_pose_of_landmarks_in_one_point_is_finite() -> None:
    assert np.isfinite(pose(np.zeros((1, 5, 2), np.float32))).all()


@pytest.fixture(scope="module")
def pipeline(
    detector_path: Callable[[str], Path], recognizer_path: Callable[[str], Path]
) -> FacePipeline:
    return loaded(detector_path("2.5g"), recognizer_path("w600k_mbf"))


def test_real_faces_that_are_blurred_or_made_small_are_less_useful(
    pipeline: FacePipeline, image: Callable[[str], NDArray[np.uint8]]
) -> None:
    whole = image("t1.jpg")
    faces = pipeline(whole).faces
    assert faces.landmarks is not None
    good = face_quality(faces.scores, faces.landmarks, align_faces(whole, faces.landmarks))
    assert (good > 0.7).all()
    for sigma in (4, 8):
        blurred = cv2.GaussianBlur(whole, (0, 0), sigma)
        worse = face_quality(faces.scores, faces.landmarks, align_faces(blurred, faces.landmarks))
        assert (worse < 0.9 * good).all()
        good = worse
    small = cv2.resize(whole, None, fx=0.2, fy=0.2, interpolation=cv2.INTER_AREA)
    landmarks = (faces.landmarks * 0.2).astype(np.float32)
    worse = face_quality(faces.scores, landmarks, align_faces(small, landmarks))
    assert (worse < 0.8 * faces.scores).all()


def test_the_faces_left_out_are_those_that_are_not_recognized(
    pipeline: FacePipeline, image: Callable[[str], NDArray[np.uint8]]
) -> None:
    cosines, figures = [], []
    for name in ("t1.jpg", "solvay_conference_1927.jpg"):
        whole = image(name)
        sharp = pipeline(whole).faces
        assert sharp.embeddings is not None
        for sigma in (1, 2, 4, 6):
            blurred = cv2.GaussianBlur(whole, (0, 0), sigma).astype(np.uint8)
            found = pipeline(blurred).faces
            assert found.embeddings is not None and found.landmarks is not None
            near = np.abs(found.centers[:, None] - sharp.centers).sum(axis=2).argmin(axis=1)
            cosines += (found.embeddings * sharp.embeddings[near]).sum(axis=1).tolist()
            crops = align_faces(blurred, found.landmarks)
            figures += face_quality(found.scores, found.landmarks, crops).tolist()
    missed = np.array(cosines) < 0.4
    assert len(missed) > 100
    assert 0.1 < missed.mean() < 0.3
    kept = np.argsort(figures)[len(figures) // 4 :]
    assert missed[kept].mean() < missed.mean() / 3
