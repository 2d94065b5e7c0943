# SPDX-License-Identifier: Apache-2.0
"""Non-maximum suppression of any boxes: equal ones, inverted ones, or many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from slow_detector import iou, slow_nms

from scrfd_ros.detection.nms import nms

Boxes = NDArray[np.float32]

# Box without extent or with its corners exchanged have no area; of two of those, IoU is 0 / 0.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

# Of whole and half pixels: sums and products of these are exact, and ties frequent.
halves = st.integers(-40, 40).map(lambda number: number / 2)


def array(rows: list[list[float]]) -> Boxes:
    return np.array(rows, np.float32).reshape(-1, 4)


def crowd(seed: int, count: int, width: float, decimals: int) -> Boxes:
    """Many boxes in a small area; one in five has its corners exchanged, or nearly so."""
    random = np.random.default_rng(seed)
    low = random.uniform(0, width, (count, 2))
    sides = random.uniform(-6, 24, (count, 2))
    return np.hstack((low, low + sides)).round(decimals).astype(np.float32)


few = st.lists(st.lists(halves, min_size=4, max_size=4), max_size=12).map(array)
many = st.builds(
    crowd, st.integers(0, 2**32 - 1), st.integers(0, 160), st.sampled_from((30, 300)), st.just(0)
)
boxes_best_first = st.one_of(few, many)
thresholds = st.one_of(
    st.sampled_from((0.0, 0.25, 1 / 3, 0.4, 0.5, 1.0)), st.floats(0, 1, width=32)
)


@given(boxes_best_first, thresholds, st.integers(1, 100))
def test_equals_the_definition(boxes: Boxes, threshold: float, max_boxes: int) -> None:
    kept = slow_nms(boxes, threshold)
    assert nms(boxes, threshold).tolist() == kept
    assert nms(boxes, threshold, max_boxes).tolist() == kept[:max_boxes]


@given(boxes_best_first, thresholds)
def test_who_stays_and_who_goes(boxes: Boxes, threshold: float) -> None:
    kept = nms(boxes, threshold)
    stays = np.zeros(len(boxes), np.bool_)
    stays[kept] = True
    assert (np.diff(kept) > 0).all()
    assert stays[:1].all(), "there is nothing better than the best"
    limit = np.float32(threshold)
    for row, box in enumerate(boxes):
        better = kept[kept < row]
        assert stays[row] == all(iou(boxes[other], box) <= limit for other in better)


@given(boxes_best_first, thresholds)
def test_what_stayed_stays(boxes: Boxes, threshold: float) -> None:
    kept = nms(boxes, threshold)
    assert nms(boxes[kept], threshold).tolist() == list(range(len(kept)))


@given(boxes_best_first, thresholds, st.integers(1, 4))
def test_equal_boxes_change_nothing(boxes: Boxes, threshold: float, times: int) -> None:
    boxes = boxes[(boxes[:, 2:] >= boxes[:, :2]).all(axis=1)]  # those with an area
    kept = nms(boxes, threshold)
    again = nms(np.repeat(boxes, times, axis=0), threshold)
    if threshold < 1:
        assert again.tolist() == [times * row for row in kept]
    else:
        assert len(again) == times * len(boxes)


@given(boxes_best_first, thresholds, st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_place_and_direction_do_not_matter(
    boxes: Boxes, threshold: float, right: int, down: int
) -> None:
    kept = nms(boxes, threshold).tolist()
    moved = boxes + np.array((right, down, right, down), np.float32)
    mirrored = boxes[:, [2, 1, 0, 3]] * np.array((-1, 1, -1, 1), np.float32)
    turned = boxes[:, [1, 0, 3, 2]]
    for other in (moved, mirrored, turned):
        assert nms(other, threshold).tolist() == kept


@given(boxes_best_first, thresholds, st.integers(0, 2**32 - 1))
def test_boxes_beyond_reach_do_not_matter(boxes: Boxes, threshold: float, seed: int) -> None:
    """Boxes of two distant places, mixed, are suppressed as if each place were alone."""
    far = boxes + np.float32(1000)
    is_far = np.random.default_rng(seed).permutation(np.arange(2 * len(boxes)) % 2 == 0)
    mixed = np.empty((2 * len(boxes), 4), np.float32)
    mixed[is_far], mixed[~is_far] = far, boxes
    kept = np.zeros(len(mixed), np.bool_)
    kept[nms(mixed, threshold)] = True
    alone = nms(boxes, threshold).tolist()
    assert np.flatnonzero(kept[is_far]).tolist() == alone
    assert np.flatnonzero(kept[~is_far]).tolist() == alone
