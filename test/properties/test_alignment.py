# SPDX-License-Identifier: Apache-2.0
"""Faces are aligned by least squares at any place, angle and size."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from scrfd_ros.recognition.alignment import CROP_SIZE, TEMPLATE, align_faces, similarity_transforms
from scrfd_ros.recognition.quality import face_sizes, pose

Points = NDArray[np.float64]

coordinates = st.one_of(
    st.integers(-200, 4000).map(float), st.floats(-1e5, 1e5, allow_subnormal=False, width=32)
)
five_points = arrays(np.float32, (5, 2), elements=coordinates)
angles = st.floats(-180, 180)
scales = st.floats(1 / 64, 64)
shifts = st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))


def spread(points: NDArray[np.floating]) -> float:
    return float(np.abs(points - points.mean(axis=0, dtype=np.float64)).max())


def similarity(degrees: float, scale: float, shift: tuple[float, float]) -> Points:
    """3 x 3, for homogeneous coordinates."""
    cosine, sine = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return np.array([[cosine, -sine, shift[0]], [sine, cosine, shift[1]], [0, 0, 1]])


def applied(transform: Points, points: NDArray[np.floating]) -> Points:
    return np.asarray(points @ transform[:2, :2].T + transform[:2, 2])


@given(five_points)
def test_is_the_least_squares_solution(landmarks: NDArray[np.float32]) -> None:
    assume(spread(landmarks) > 1e-2)
    # Around their middle and in units of their spread, so that the system is well conditioned.
    middle, unit = landmarks.mean(axis=0, dtype=np.float64), spread(landmarks)
    points = (landmarks - middle) / unit
    rows = [row for x, y in points for row in ([x, -y, 1, 0], [y, x, 0, 1])]
    a, b, tx, ty = np.linalg.lstsq(np.array(rows), TEMPLATE.reshape(-1), rcond=None)[0]
    (found,) = similarity_transforms(landmarks[None])
    np.testing.assert_allclose(found[:, :2] * unit, [[a, -b], [b, a]], atol=1e-6)
    np.testing.assert_allclose(applied(found, middle), (tx, ty), atol=1e-6)


@given(five_points, angles, scales, shifts)
def test_faces_turned_scaled_and_moved_become_the_same(
    landmarks: NDArray[np.float32], degrees: float, scale: float, shift: tuple[float, float]
) -> None:
    assume(spread(landmarks) > 1)
    moved = applied(similarity(degrees, scale, shift), landmarks)
    (one,) = similarity_transforms(landmarks[None])
    # In double precision: the rounding of 32-bit coordinates is not tested here.
    (other,) = similarity_transforms(moved[None])  # type: ignore[arg-type]
    np.testing.assert_allclose(applied(other, moved), applied(one, landmarks), atol=1e-5)
    np.testing.assert_allclose(
        face_sizes(moved[None]),  # type: ignore[arg-type]
        scale * face_sizes(landmarks[None]),
        rtol=1e-6,
    )


@given(st.lists(five_points, max_size=5))
def test_one_face_does_not_touch_another(faces: list[NDArray[np.float32]]) -> None:
    together = similarity_transforms(np.array(faces, np.float32).reshape(-1, 5, 2))
    assert together.shape == (len(faces), 2, 3)
    for face, transform in zip(faces, together, strict=True):
        np.testing.assert_array_equal(similarity_transforms(face[None])[0], transform)


@given(coordinates, coordinates, st.integers(0, 2**5 - 1), st.booleans())
def test_points_in_one_place_or_nearly(x: float, y: float, moved: int, along: bool) -> None:
    landmarks = np.full((1, 5, 2), (x, y), np.float32)
    for number in range(5):
        if moved >> number & 1:  # by the smallest step
            value = landmarks[0, number, int(along)]
            landmarks[0, number, int(along)] = np.nextafter(value, np.float32(np.inf))
    (found,) = similarity_transforms(landmarks)
    assert np.isfinite(found).all()
    center = landmarks[0].mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(
        applied(found, center), TEMPLATE.mean(axis=0), atol=1e-6 * max(1, np.abs(found).max())
    )
    image = np.full((20, 20, 3), 255, np.uint8)
    assert align_faces(image, landmarks).shape == (1, CROP_SIZE, CROP_SIZE, 3)
    assert np.isfinite(pose(landmarks)).all() and np.isfinite(face_sizes(landmarks)).all()


@given(
    degrees=angles,
    scale=st.floats(0.25, 4),
    middle=st.tuples(st.floats(-50, 250), st.floats(-50, 250)),
    noise=arrays(np.float64, (5, 2), elements=st.floats(-5, 5)),
)
def test_each_pixel_comes_from_where_the_transform_says(
    degrees: float, scale: float, middle: tuple[float, float], noise: Points
) -> None:
    height, width = 120, 200
    y, x = np.mgrid[:height, :width]
    # Linear in x and in y, so that interpolation is exact but for its steps of 1/32 pixel.
    image = np.stack((x, 2 * y, 255 - x), axis=2).astype(np.uint8)
    turned = applied(similarity(degrees, scale, (0, 0)), TEMPLATE - CROP_SIZE / 2 + noise)
    landmarks = (turned + middle).astype(np.float32)
    (crop,) = align_faces(image, landmarks[None])
    (transform,) = similarity_transforms(landmarks[None])
    inverse = np.linalg.inv(np.vstack((transform, (0, 0, 1))))
    to_y, to_x = np.mgrid[:CROP_SIZE, :CROP_SIZE]
    from_x, from_y = applied(inverse, np.stack((to_x, to_y), axis=2)).transpose(2, 0, 1)
    inside = (from_x > 0) & (from_x < width - 1) & (from_y > 0) & (from_y < height - 1)
    expected = np.stack((from_x, 2 * from_y, 255 - from_x), axis=2)
    assert np.abs(crop - expected)[inside].max(initial=0) <= 1
    beyond = (from_x < -1.1) | (from_x > width + 0.1) | (from_y < -1.1) | (from_y > height + 0.1)
    assert not crop[beyond].any(), "black beyond the image"
