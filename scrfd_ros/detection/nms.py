# SPDX-License-Identifier: Apache-2.0
"""Greedy non-maximum suppression."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.arrays import check_array

_BLOCK = 64
"""How many of the best boxes are compared at once with all that are left. An image of a few faces
takes one step."""


_Boxes: TypeAlias = "NDArray[np.floating[Any]]"  # quoted: numpy 1.21 cannot evaluate it


def nms(
    boxes: NDArray[np.float32], iou_threshold: float, max_boxes: int | None = None
) -> NDArray[np.intp]:
    """Select boxes that overlap no better selected box by more than the threshold.

    Areas count whole pixels, (x2 - x1 + 1) * (y2 - y1 + 1), as in the reference implementation
    (insightface, model_zoo/scrfd.py). A box is suppressed when its IoU is strictly greater.

    Args:
        boxes: real numbers, float32 or others, [N, 4], x1, y1, x2, y2, best score first.
        iou_threshold: 0 to 1.
        max_boxes: maximum number of boxes to keep; None for all.

    Returns:
        The rows of the boxes kept, intp [M], ascending.

    Raises:
        ValueError: `boxes` is another array.
    """
    check_array(boxes, "boxes", (None, 4), None)
    columns = _columns(boxes)
    rest = np.arange(len(boxes))
    kept: list[NDArray[np.intp]] = [rest[:0]]
    count = 0
    while rest.size and (max_boxes is None or count < max_boxes):
        block, rest = rest[:_BLOCK], rest[_BLOCK:]
        # NaN is not greater: a box that is not a number suppresses no other.
        suppresses = _overlaps(columns[:, block], columns[:, block]) > iou_threshold
        suppressed = np.zeros(len(block), np.bool_)
        best = []
        for number, others in enumerate(suppresses):
            if not suppressed[number]:
                best.append(number)
                suppressed |= others
        kept.append(block[best])
        count += len(best)
        if rest.size:
            overlaps = _overlaps(columns[:, block[best]], columns[:, rest])
            rest = rest[~(overlaps > iou_threshold).any(axis=0)]
    return np.concatenate(kept)[:max_boxes]


def pixel_ious(boxes: _Boxes, others: _Boxes) -> _Boxes:
    """IoU of each box [N, 4] with each other one [M, 4], [N, M], counting whole pixels as `nms`.

    0 for two boxes without an area, unlike in `nms`, where that cannot matter.
    """
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(_overlaps(_columns(boxes), _columns(others)), copy=False)


def _columns(boxes: _Boxes) -> _Boxes:
    """x1, y1, x2, y2 and area of boxes, [5, N]."""
    columns = np.empty((5, len(boxes)), np.promote_types(boxes.dtype, np.float32))
    columns[:4] = boxes.T
    sides = columns[2:4] - columns[:2]
    sides += 1
    np.multiply(sides[0], sides[1], out=columns[4])
    return columns


def _overlaps(ones: _Boxes, others: _Boxes) -> _Boxes:
    """IoU of M boxes with N others, [M, N], by their `_columns`."""
    ones = ones[:, :, None]
    width = np.minimum(ones[2], others[2])
    width -= np.maximum(ones[0], others[0])
    width += 1
    height = np.minimum(ones[3], others[3])
    height -= np.maximum(ones[1], others[1])
    height += 1
    common: _Boxes = np.maximum(width, 0, out=width)
    common *= np.maximum(height, 0, out=height)
    union = ones[4] + others[4]
    union -= common
    common /= union
    return common
