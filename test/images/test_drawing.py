# SPDX-License-Identifier: Apache-2.0
"""Boxes, scores and landmarks are drawn at their places, into a copy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from scrfd_ros.faces import Faces, Identity, IdentityState
from scrfd_ros.images.drawing import draw_faces, who

GREY = np.full((720, 960, 3), 128, np.uint8)
BOX = [300.0, 200.0, 400.0, 350.0]
LANDMARKS = [[330.0, 250.0], [370.0, 250.0], [350.0, 280.0], [335.0, 310.0], [365.0, 310.0]]


def faces(box: list[float], landmarks: list[list[float]] | None = None) -> Faces:
    return Faces(
        np.array([box], np.float32),
        np.array([0.9], np.float32),
        None if landmarks is None else np.array([landmarks], np.float32),
    )


def changed(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (image != 128).any(axis=2)


def test_leaves_the_image_alone() -> None:
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


@pytest.mark.parametrize("side", range(4))
@pytest.mark.parametrize("shift", [0, 0.25, 0.5, 0.75])
def test_lines_have_their_middle_on_the_side(side: int, shift: float) -> None:
    box = [value + shift for value in BOX]
    change = np.abs(draw_faces(GREY, faces(box)).astype(float) - 128).sum(axis=2)
    # Away from the label and the other sides.
    across = change[220:330].mean(axis=0) if side % 2 == 0 else change[:, 375:390].mean(axis=1)
    near = slice(int(BOX[side]) - 5, int(BOX[side]) + 6)
    middle = np.average(np.arange(len(across))[near] + 0.5, weights=across[near])
    assert middle == pytest.approx(box[side], abs=0.3)


def test_score_stands_above_the_box() -> None:
    label = changed(draw_faces(GREY, faces(BOX)))[:198]
    y, x = np.nonzero(label)
    assert y.min() > 170 and x.min() == 300


@pytest.mark.parametrize("row", range(5))
def test_landmark_lies_on_its_point(row: int) -> None:
    without = draw_faces(GREY, faces(BOX))
    # The others are outside the image.
    landmarks = [point if at == row else [-100.0, -100.0] for at, point in enumerate(LANDMARKS)]
    y, x = np.nonzero((draw_faces(GREY, faces(BOX, landmarks)) != without).any(axis=2))
    # The origin of faces is a pixel's outer corner, half a pixel from its center.
    np.testing.assert_allclose([x.mean() + 0.5, y.mean() + 0.5], LANDMARKS[row], atol=0.02)
    assert 2 < np.ptp(x) < 10


def test_label_of_a_face_at_the_upper_edge_stays_in_the_image() -> None:
    drawn = changed(draw_faces(GREY, faces([300, -50, 400, 100])))
    assert drawn[:12, 300:340].all()


def test_label_of_a_face_at_the_side_stays_in_the_image() -> None:
    def label(left: float, name: str) -> NDArray[np.bool_]:
        known = (Identity(IdentityState.KNOWN, "id", name),)
        one = replace(faces([left, 200, left + 100, 350]), identities=known)
        return changed(draw_faces(GREY, one))[:196]

    assert label(-60, "Anna").sum() == label(930, "Anna").sum() == label(300, "Anna").sum()
    np.testing.assert_array_equal(label(930, "Anna " * 50), label(0, "Anna " * 50))


@pytest.mark.parametrize(
    "box",
    [
        pytest.param([-500, -500, 5000, 5000], id="larger than the image"),
        pytest.param([2000, 2000, 2100, 2100], id="outside"),
        pytest.param([10, 10, 10, 10], id="no area"),
        pytest.param([-1e30, -3e9, 3e38, 1e12], id="beyond what OpenCV takes"),
    ],
)
def test_odd_boxes_do_no_harm(box: list[float]) -> None:
    assert draw_faces(GREY, faces(box)).shape == GREY.shape


def test_what_is_not_finite_is_not_drawn() -> None:
    for value in (np.nan, np.inf):
        np.testing.assert_array_equal(draw_faces(GREY, faces([300, value, 400, 350])), GREY)
    lost = [[np.nan, 250.0], [np.inf, np.nan], *LANDMARKS[2:]]
    elsewhere = [[-900.0, -900.0], [-900.0, -900.0], *LANDMARKS[2:]]
    np.testing.assert_array_equal(
        draw_faces(GREY, faces(BOX, lost)), draw_faces(GREY, faces(BOX, elsewhere))
    )


def test_no_faces_nothing_drawn() -> None:
    none = Faces(
        np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty((0, 5, 2), np.float32)
    )
    np.testing.assert_array_equal(draw_faces(GREY, none), GREY)


def test_small_image() -> None:
    assert changed(draw_faces(GREY[:16, :16], faces([2, 2, 12, 12]))).any()


@pytest.mark.parametrize(
    ("identity", "plain", "full"),
    [
        (Identity(), "", ""),
        (Identity(IdentityState.UNKNOWN, "stranger-0123456789"), "stranger 01234567", None),
        (Identity(IdentityState.TENTATIVE, "0123456789"), "?", "?"),
        (Identity(IdentityState.KNOWN, "0123456789", "Anna"), "Anna", "Anna"),
        (Identity(IdentityState.KNOWN, "0123456789", "Zoë Müßig"), "Zoe Mussig", "Zoë Müßig"),
        (Identity(IdentityState.KNOWN, "0123456789", "Łukasz Åse"), "Lukasz Ase", "Łukasz Åse"),
        (Identity(IdentityState.KNOWN, "0123456789", "李小龙"), "01234567", "李小龙"),
        (Identity(IdentityState.KNOWN, "0123456789", "Анна 2"), "01234567", "Анна 2"),
    ],
)
def test_who_a_face_belongs_to_is_written_with_the_letters_there_are(
    identity: Identity, plain: str, full: str | None
) -> None:
    assert who(identity, is_ascii=True) == plain
    assert who(identity) == (plain if full is None else full)


def test_the_label_says_who_it_is_instead_of_the_score() -> None:
    def label(identities: tuple[Identity, ...] | None, score: float) -> NDArray[np.bool_]:
        one = replace(faces(BOX), identities=identities, scores=np.array([score], np.float32))
        return draw_faces(GREY, one)[:198]

    anna = (Identity(IdentityState.KNOWN, "id", "Anna"),)
    assert (label(anna, 0.9) != label(None, 0.9)).any()
    np.testing.assert_array_equal(label(anna, 0.9), label(anna, 0.6))
    assert (label(None, 0.9) != label(None, 0.6)).any()
