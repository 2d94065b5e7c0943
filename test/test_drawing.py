"""Boxes, scores and landmarks are drawn where they are, into a copy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from scrfd_ros.drawing import draw_faces
from scrfd_ros.faces import Faces

GREY = np.full((720, 960, 3), 128, np.uint8)
BOX = [300.0, 200.0, 400.0, 350.0]
LANDMARKS = [[330.0, 250.0], [370.0, 250.0], [350.0, 280.0], [335.0, 310.0], [365.0, 310.0]]


def faces(box: list[float], landmarks: list[list[float]] | None = None) -> Faces:
    return Faces(
        np.array([box], np.float32),
        np.array([0.9], np.float32),
        None if landmarks is None else np.array([landmarks], np.float32),
    )


def changed(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (picture != 128).any(axis=2)


def test_leaves_the_picture_alone() -> None:
    before = GREY.copy()
    drawn = draw_faces(GREY, faces(BOX, LANDMARKS))
    np.testing.assert_array_equal(GREY, before)
    assert drawn.shape == GREY.shape and drawn.dtype == np.uint8


def test_box_lies_on_its_four_sides() -> None:
    drawn = changed(draw_faces(GREY, faces(BOX)))
    assert drawn[350, 300:401].all() and drawn[200, 300:401].all()
    assert drawn[200:351, 300].all() and drawn[200:351, 400].all()
    assert not drawn[204:347, 304:397].any(), "inside"
    drawn[170:355, 295:405] = False
    assert not drawn.any(), "outside, but for the label above"


def test_score_stands_above_the_box() -> None:
    label = changed(draw_faces(GREY, faces(BOX)))[:198]
    y, x = np.nonzero(label)
    assert y.min() > 170 and x.min() == 300


@pytest.mark.parametrize("row", range(5))
def test_landmark_lies_on_its_point(row: int) -> None:
    without = draw_faces(GREY, faces(BOX))
    # The others are out of the picture.
    landmarks = [point if at == row else [-100.0, -100.0] for at, point in enumerate(LANDMARKS)]
    y, x = np.nonzero((draw_faces(GREY, faces(BOX, landmarks)) != without).any(axis=2))
    np.testing.assert_allclose([x.mean(), y.mean()], LANDMARKS[row], atol=0.5)
    assert 2 < np.ptp(x) < 10


def test_label_of_a_face_at_the_upper_edge_stays_in_the_picture() -> None:
    drawn = changed(draw_faces(GREY, faces([300, -50, 400, 100])))
    assert drawn[:12, 300:340].all()


@pytest.mark.parametrize(
    "box",
    [
        pytest.param([-500, -500, 5000, 5000], id="larger than the picture"),
        pytest.param([2000, 2000, 2100, 2100], id="outside"),
        pytest.param([10, 10, 10, 10], id="no area"),
    ],
)
def test_odd_boxes_do_no_harm(box: list[float]) -> None:
    assert draw_faces(GREY, faces(box)).shape == GREY.shape


def test_no_faces_nothing_drawn() -> None:
    none = Faces(
        np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty((0, 5, 2), np.float32)
    )
    np.testing.assert_array_equal(draw_faces(GREY, none), GREY)


def test_small_picture() -> None:
    assert changed(draw_faces(GREY[:16, :16], faces([2, 2, 12, 12]))).any()
