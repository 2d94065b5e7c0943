# SPDX-License-Identifier: Apache-2.0
"""Parts of an image side by side on one small input of the network, instead of the whole image.

The network's time goes with the pixels of its input. So where faces are expected in a few places
only, these are looked at alone, and large ones reduced: SCRFD finds a face of 40 pixels as well as
a larger one (docs/video.md).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from scrfd_ros.detection.views import Plan, Rectangle, View

PART_FACE = 40
"""Pixels of the input that the longer side of an expected face has at most."""

_SIDES = (64, 96, 128, 192, 256, 384, 640)

CANVASES = sorted(itertools.product(_SIDES, _SIDES), key=math.prod)
"""Widths and heights of inputs for parts, smallest first."""

_WORTH = 0.6
"""Part of the time of the whole image that parts may take at most."""

_GAP = 8  # pixels at least between two parts, so that the network does not see them as one image
_GRID = 8  # pixels; parts begin on multiples of the finest stride
_EDGE = 2  # pixels of the input; a box nearer to a part's edge is that of a face that is cut off


class Part(NamedTuple):
    """A part of an image in which faces are expected.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the image; it may reach beyond the image.
        face: longer side of the smallest face that is expected, pixels of the image; 0 for any.
    """

    box: tuple[float, float, float, float]
    face: float = 0.0


def plan_parts(
    width: int, height: int, parts: Sequence[Part], whole: Plan, step: int = 32
) -> Plan | None:
    """The parts on the smallest canvas that they fit onto.

    Args:
        width, height: of the image, pixels.
        parts: those without a pixel in the image are left out. Ones that overlap are looked at as
            one if that costs no more.
        whole: how the whole image is searched. No part is enlarged more than there.
        step: the network's coarsest stride, which sides of its input are multiples of, pixels.

    Returns:
        None if the whole image costs hardly more, or nothing is to be seen.
    """
    scale, most = whole.scale, _WORTH * whole.pixels
    seen = _merged([cut for part in parts if (cut := _cut(part, width, height, scale))])
    seen.sort(key=lambda part: part.size[::-1], reverse=True)
    sizes = [part.size for part in seen]
    needed = sum(wide * high for wide, high in sizes)
    for canvas in CANVASES:
        if canvas[0] % step or canvas[1] % step:
            continue
        area = math.prod(canvas)
        if needed <= area <= most and (corners := _packed(sizes, canvas)):
            views = zip(seen, corners, strict=True)
            return Plan(canvas, tuple(_view(part, at, width, height) for part, at in views))
    return None


class _Cut(NamedTuple):
    """Whole pixels of the image, and how they are scaled onto the input."""

    x1: int
    y1: int
    x2: int
    y2: int
    scale: float

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on the input."""
        return (
            max(round((self.x2 - self.x1) * self.scale), 1),
            max(round((self.y2 - self.y1) * self.scale), 1),
        )

    @property
    def cost(self) -> int:
        """Pixels of the input, with the gap."""
        wide, high = self.size
        return (wide + _GAP) * (high + _GAP)

    def with_other(self, other: _Cut) -> _Cut:
        return _Cut(
            min(self.x1, other.x1), min(self.y1, other.y1),
            max(self.x2, other.x2), max(self.y2, other.y2),
            max(self.scale, other.scale),
        )  # fmt: skip


def _cut(part: Part, width: int, height: int, scale: float) -> _Cut | None:
    x1, y1 = (max(math.floor(value), 0) for value in part.box[:2])
    x2, y2 = min(math.ceil(part.box[2]), width), min(math.ceil(part.box[3]), height)
    if x1 >= x2 or y1 >= y2:
        return None
    reduced = PART_FACE / part.face if part.face > 0 else math.inf
    return _Cut(x1, y1, x2, y2, min(scale, reduced))


def _merged(parts: list[_Cut]) -> list[_Cut]:
    """The same with those put together that cost no more as one."""
    merged: list[_Cut] = []
    for part in parts:
        while True:
            for number, other in enumerate(merged):
                both = part.with_other(other)
                if both.cost <= part.cost + other.cost:
                    del merged[number]
                    part = both
                    break
            else:
                break
        merged.append(part)
    return merged


def _packed(
    sizes: Sequence[tuple[int, int]], canvas: tuple[int, int]
) -> list[tuple[int, int]] | None:
    """Corners of rectangles on a canvas, in rows; None if there is no room.

    Args:
        sizes: widths and heights, the highest first.
    """
    corners = []
    x = y = row = 0
    for wide, high in sizes:
        if x + wide > canvas[0]:
            x, y, row = 0, y + row, 0
        if wide > canvas[0] or y + high > canvas[1]:
            return None
        corners.append((x, y))
        x += _up(wide + _GAP)
        row = max(row, _up(high + _GAP))
    return corners


def _up(length: int) -> int:
    return _GRID * math.ceil(length / _GRID)


def _view(part: _Cut, corner: tuple[int, int], width: int, height: int) -> View:
    source: Rectangle = part.x1, part.y1, part.x2 - part.x1, part.y2 - part.y1
    margin = _EDGE / part.scale
    bounds = (
        part.x1 + margin if part.x1 > 0 else -math.inf,
        part.y1 + margin if part.y1 > 0 else -math.inf,
        part.x2 - margin if part.x2 < width else math.inf,
        part.y2 - margin if part.y2 < height else math.inf,
    )
    return View(0, source, (*corner, *part.size), bounds=bounds, gap=_GAP)
