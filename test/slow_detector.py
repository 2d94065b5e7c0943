# SPDX-License-Identifier: Apache-2.0
"""The detector's arithmetic in plain loops over anchors and pairs of boxes.

In single precision, as there, so that results can be held against each other to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.detection.views import View

Box = Sequence[np.float32]


class Found(NamedTuple):
    """A face: its score, two corners of its box and its landmarks, x and y alternating."""

    score: np.float32
    box: list[np.float32]
    landmarks: list[np.float32]


def slow_decode(
    outputs: Sequence[Mapping[str, NDArray[np.float32]]],
    views: Sequence[View],
    size: tuple[int, int],
    score_threshold: float,
) -> list[Found]:
    """The finite faces that score enough, in pixels of the image, best first.

    Args:
        outputs: of each input, named as by `onnx_files.scrfd_outputs`.
        views: as from `plan_views`.
        size: width and height of the input.
        score_threshold: faces that score less are dropped.
    """
    strides = sorted(int(name.removeprefix("score_")) for name in outputs[0] if "score" in name)
    anchors = 2 if len(strides) == 3 else 1
    found = []
    for canvas in range(len(outputs)):
        on_canvas = [view for view in views if view.canvas == canvas]
        # Where views of one input are next to each other, an anchor belongs to the one it is in.
        for view in [*on_canvas[1:], on_canvas[0]]:
            for stride in strides:
                scores, boxes, points = (
                    outputs[canvas][f"{kind}_{stride}"].reshape(-1, columns)
                    if f"{kind}_{stride}" in outputs[canvas]
                    else None
                    for kind, columns in (("score", 1), ("bbox", 4), ("kps", 10))
                )
                row = -1
                # A float32 and a whole number of Python make a float64 with numpy 1.
                for y in map(np.float32, range(0, size[1], stride)):
                    for x in map(np.float32, range(0, size[0], stride)):
                        for _ in range(anchors):
                            row += 1
                            score = scores[row, 0]
                            owner = next(
                                (v for v in on_canvas[1:] if within(v, x, y)), on_canvas[0]
                            )
                            if owner is not view or not score >= np.float32(score_threshold):
                                continue
                            left, top, right, bottom = boxes[row] * np.float32(stride)
                            box = [x - left, y - top, x + right, y + bottom]
                            offsets = [] if points is None else points[row] * np.float32(stride)
                            marks = [(y if at % 2 else x) + off for at, off in enumerate(offsets)]
                            box, marks = in_image(box, view), in_image(marks, view)
                            if np.isfinite([score, *box, *marks]).all() and counts(box, view):
                                found.append(Found(score, box, marks))
    return sorted(found, key=lambda face: -face.score)


def within(view: View, x: float, y: float) -> bool:
    left, top, width, height = view.target
    return left <= x < left + width and top <= y < top + height


def in_image(coordinates: Sequence[np.float32], view: View) -> list[np.float32]:
    return [
        (value - np.float32(view.target[at % 2])) / np.float32(view.scales[at % 2])
        + np.float32(view.source[at % 2])
        for at, value in enumerate(coordinates)
    ]


def counts(box: Box, view: View) -> bool:
    """Whether a box is valid, large enough for its view, and not cut off by the view's edge."""
    x1, y1, x2, y2 = box
    if x1 > x2 or y1 > y2:
        return False
    if float(x2 - x1) < view.smallest[0] and float(y2 - y1) < view.smallest[1]:
        return False
    low_x, low_y, high_x, high_y = view.bounds
    return bool(x1 >= low_x and y1 >= low_y and x2 <= high_x and y2 <= high_y)


def slow_nms(boxes: Sequence[Box], threshold: float) -> list[int]:
    """Rows of the boxes, best first, that overlap no better kept one by more than this."""
    kept: list[int] = []
    for row, box in enumerate(boxes):
        if not any(iou(boxes[better], box) > np.float32(threshold) for better in kept):
            kept.append(row)
    return kept


def iou(one: Box, other: Box) -> np.float32:
    """Intersection over union; areas count whole pixels, so a box of no extent has one."""
    common = area(
        max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])
    )
    if common == 0:
        return np.float32(0)
    return np.float32(common / (area(*one) + area(*other) - common))


def area(x1: np.float32, y1: np.float32, x2: np.float32, y2: np.float32) -> np.float32:
    one, none = np.float32(1), np.float32(0)
    return np.float32(max(x2 - x1 + one, none) * max(y2 - y1 + one, none))
