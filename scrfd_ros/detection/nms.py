"""Greedy non-maximum suppression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def nms(
    boxes: NDArray[np.float32], iou_threshold: float, most: int | None = None
) -> NDArray[np.intp]:
    """Rows of `boxes` that overlap no better row by more than the threshold.

    Areas count whole pixels, (x2 - x1 + 1) * (y2 - y1 + 1), as in the reference implementation
    (insightface, model_zoo/scrfd.py). A box is suppressed when its IoU is strictly greater.

    Args:
        boxes: float32 [N, 4], x1, y1, x2, y2, best score first.
        iou_threshold: 0 to 1.
        most: stop after so many boxes; None for all.

    Returns:
        The rows kept, ascending.
    """
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1 + 1) * (y2 - y1 + 1)
    rest = np.arange(len(boxes))
    kept: list[int] = []
    while rest.size and (most is None or len(kept) < most):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        width = np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest]) + 1
        height = np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest]) + 1
        overlap = np.maximum(width, 0) * np.maximum(height, 0)
        # Not <=, so that a box that is not a number suppresses no other.
        rest = rest[~(overlap / (areas[best] + areas[rest] - overlap) > iou_threshold)]
    return np.array(kept, np.intp)
