# SPDX-License-Identifier: Apache-2.0
"""Which output of an SCRFD network is which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.errors import ModelError
from scrfd_ros.faces import LANDMARK_NAMES, FloatArray

_STRIDES_AND_ANCHORS = {3: ((8, 16, 32), 2), 5: ((8, 16, 32, 64, 128), 1)}
OUTPUT_COUNTS = (6, 9, 10, 15)
"""The numbers of outputs that an SCRFD network can have."""


def coarsest_stride(outputs: int) -> int:
    """The coarsest stride of an SCRFD network with so many outputs, pixels."""
    return _STRIDES_AND_ANCHORS[3 if outputs < OUTPUT_COUNTS[2] else 5][0][-1]


_KIND_OF_WIDTH = {1: "score", 4: "box", 2 * len(LANDMARK_NAMES): "landmark"}


@dataclass(frozen=True)
class Level:
    """The outputs of one stride: its grid and the names of its tensors."""

    stride: int
    anchors: int
    columns: int
    score: str
    box: str
    landmark: str | None


class ChosenAnchors(NamedTuple):
    """The anchors of one input that score at least the threshold, with the network's own values.

    Attributes:
        rows: [K], numbers of the anchors among those of all levels, ascending.
        scores: float32 [K].
        places: float32 [K, 2 or 7, 2], in strides from the anchor's center: distances to the left
            and top, and to the right and bottom; offsets of the landmarks.
    """

    rows: NDArray[np.integer]
    scores: FloatArray
    places: FloatArray


def match_outputs(shapes: Mapping[str, tuple[int, ...]], width: int, height: int) -> list[Level]:
    """Match outputs by shape: the number of rows gives the stride, that of columns the kind.

    Names and order differ between exports and between backends, shapes do not.

    Args:
        shapes: by name, the shape of each output for one image: [rows, columns] or
            [1, rows, columns].
        width, height: input size of the network in pixels.

    Returns:
        The levels, from the finest stride to the coarsest.

    Raises:
        ModelError: these are not the outputs of an SCRFD network.
    """
    kinds: dict[str, dict[int, str]] = {kind: {} for kind in _KIND_OF_WIDTH.values()}
    for name, shape in shapes.items():
        kind = _KIND_OF_WIDTH.get(shape[-1]) if len(shape) in (2, 3) else None
        rows = int(np.prod(shape[:-1]))
        if kind is None or rows in kinds[kind]:
            raise ModelError(unrecognized(shapes, width, height, f"cannot place output {name!r}"))
        kinds[kind][rows] = name
    scores, boxes, landmarks = kinds["score"], kinds["box"], kinds["landmark"]
    if len(scores) not in _STRIDES_AND_ANCHORS:
        raise ModelError(unrecognized(shapes, width, height, f"{len(scores)} score outputs"))
    strides, anchors = _STRIDES_AND_ANCHORS[len(scores)]
    levels = []
    for stride in strides:
        columns = width // stride
        rows = columns * (height // stride) * anchors
        if rows not in scores or rows not in boxes or (landmarks and rows not in landmarks):
            reason = f"stride {stride} needs outputs of {rows} rows"
            raise ModelError(unrecognized(shapes, width, height, reason))
        levels.append(
            Level(stride, anchors, columns, scores[rows], boxes[rows], landmarks.get(rows))
        )
    if len(boxes) != len(levels) or len(landmarks) not in (0, len(levels)):
        raise ModelError(unrecognized(shapes, width, height, "outputs left over"))
    return levels


def unrecognized(
    shapes: Mapping[str, tuple[int | None, ...]], width: int, height: int, reason: str
) -> str:
    """The error for outputs of these shapes by name, at an input of this size, pixels."""
    found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    return (
        f"the outputs are not those of an SCRFD network at {width}x{height}: {reason}. Expected 6 "
        f"or 9 outputs (10 or 15 with five strides) of 1, 4 and 10 columns; found {found}"
    )
