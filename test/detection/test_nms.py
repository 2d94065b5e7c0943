# SPDX-License-Identifier: Apache-2.0
"""Non-maximum suppression equals its definition, box by box."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from scrfd_ros.detection.nms import nms

A = [0, 0, 9, 9]  # 10 x 10 whole pixels
HALF_OF_A = [0, 0, 9, 4]  # IoU 50 / 100 in whole pixels, 36 / 81 without the + 1
TOUCHES_A = [9, 9, 18, 18]  # shares one pixel, 1 / 199
BESIDE_A = [10, 0, 19, 9]  # shares none


def slow_nms(boxes: NDArray[np.float32], threshold: float) -> list[int]:
    """The definition: a box is kept unless a better kept one overlaps it by more."""

    def area(x1: float, y1: float, x2: float, y2: float) -> float:
        return max(x2 - x1 + 1, 0) * max(y2 - y1 + 1, 0)

    def iou(a: list[float], b: list[float]) -> float:
        overlap = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
        return overlap / (area(*a) + area(*b) - overlap)

    rows: list[list[float]] = boxes.tolist()
    kept: list[int] = []
    for row, box in enumerate(rows):
        if all(iou(rows[better], box) <= threshold for better in kept):
            kept.append(row)
    return kept


@pytest.mark.parametrize(
    ("boxes", "threshold", "kept"),
    [
        pytest.param([A, HALF_OF_A], 0.5, [0, 1], id="exactly the threshold stays"),
        pytest.param([A, HALF_OF_A], 0.49, [0], id="more than the threshold goes"),
        pytest.param([HALF_OF_A, A], 0.49, [0], id="the first wins, not the larger"),
        pytest.param([A, A, A], 0.99, [0], id="equal boxes"),
        pytest.param([A, A], 1.0, [0, 1], id="threshold 1 keeps all"),
        pytest.param([A, TOUCHES_A], 0.0, [0], id="threshold 0: one shared pixel is too much"),
        pytest.param([A, BESIDE_A], 0.0, [0, 1], id="threshold 0: side by side stays"),
        # The second box is suppressed first, so that it does not suppress the third.
        pytest.param(
            [[0, 0, 9, 9], [5, 0, 14, 9], [10, 0, 19, 9]], 0.3, [0, 2], id="suppressed ones do not"
        ),
        pytest.param([[3.5, 3.5, 3.5, 3.5]] * 2, 0.5, [0], id="no extent is one pixel"),
    ],
)
def test_by_hand(boxes: list[list[float]], threshold: float, kept: list[int]) -> None:
    array = np.array(boxes, np.float32)
    assert nms(array, threshold).tolist() == kept == slow_nms(array, threshold)


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.4, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("whole", [True, False], ids=["whole pixels, with ties", "fractions"])
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_definition(threshold: float, whole: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 40, (120, 2))
    boxes = np.hstack((corners, corners + random.uniform(4, 24, (120, 2)))).astype(np.float32)
    if whole:
        boxes = boxes.round()
    kept = slow_nms(boxes, threshold)
    assert nms(boxes, threshold).tolist() == kept
    assert nms(boxes, threshold, 7).tolist() == kept[:7]


@pytest.mark.parametrize("max_boxes", [None, 1, 10])
def test_no_boxes(max_boxes: int | None) -> None:
    kept = nms(np.empty((0, 4), np.float32), 0.4, max_boxes)
    assert kept.shape == (0,)
    assert np.empty((0, 4))[kept].shape == (0, 4), "usable as an index"


@pytest.mark.parametrize("max_boxes", [1, 2, 3, 100])
def test_stops_at_the_maximum(max_boxes: int) -> None:
    apart = np.array([[30 * row, 0, 30 * row + 9, 9] for row in range(3)], np.float32)
    assert nms(apart, 0.4, max_boxes).tolist() == [0, 1, 2][:max_boxes]


def test_a_box_that_is_not_a_number_suppresses_no_other() -> None:
    boxes = np.array([[np.nan] * 4, [0, 0, 10, 10], [0, 0, 10, 10]], np.float32)
    assert nms(boxes, 0.4).tolist() == [0, 1]
