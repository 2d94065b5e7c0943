# SPDX-License-Identifier: Apache-2.0
"""Which parts of an image the detector searches, and where they lie on the network's inputs.

The whole image is letterboxed onto the first input, as in the reference implementation. There can
also be a second look at a smaller scale, since SCRFD misses faces that fill more than about 0.6 of
its input, and tiles at a larger scale for small faces.

The origin of coordinates is the outer corner of the top left pixel, in the image and on the inputs.
OpenCV's resize, linear or by area, maps the edges of one onto the edges of the other. So in these
coordinates a view is a scale for each axis and a shift, without half pixels. The two scales differ
if a side is cut to whole pixels: by 0.2 % at 1000x667, by half at 1300x1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

Rectangle = tuple[int, int, int, int]
"""x, y, width, height in pixels."""

LARGE_FACE = 0.5
"""Part of the longer side of the input: faces that fill more count in the second look.

500m and 2.5g find all faces up to 0.6 of it, and none from 1 on: docs/accuracy.md.
"""

_REDUCTIONS = (4, 5, 6)
"""How many times smaller the second look is: the first of these for which there is room."""

_GAP = 16  # pixels between two looks, so that the network does not see them as one image
_GRID = 32  # pixels; the second look begins on a multiple of the coarsest stride
_OVERLAP = 0.25  # part of a tile that the next one sees too
_SURE = 0.75  # part of that overlap; faces up to this size count in the tiles only
_EDGE = 4  # pixels of the input; a box nearer to a tile's edge is that of a face that is cut off

_EVERYWHERE = (-math.inf, -math.inf, math.inf, math.inf)


class View(NamedTuple):
    """A part of the image on one of the network's inputs.

    Attributes:
        canvas: number of that input.
        source: the part, in pixels of the image.
        target: where it lies, in pixels of the input.
        smallest: width and height in pixels of the image. A box counts if it is at least as wide or
            as high.
        bounds: x1, y1, x2, y2 in pixels of the image. Only boxes within them count.
        gap: pixels of the input that are left free between parts that stand beside each other; 0
            if the first view of the input takes in all that no other does.
    """

    canvas: int
    source: Rectangle
    target: Rectangle
    smallest: tuple[float, float] = (0.0, 0.0)
    bounds: tuple[float, float, float, float] = _EVERYWHERE
    gap: int = 0

    @property
    def scales(self) -> tuple[float, float]:
        """Pixels of the input per pixel of the image, across and down."""
        return self.target[2] / self.source[2], self.target[3] / self.source[3]

    @property
    def is_limited(self) -> bool:
        """Whether some boxes do not count."""
        return max(self.smallest) > 0 or self.bounds != _EVERYWHERE


class Plan(NamedTuple):
    """How an image is searched.

    Attributes:
        size: width and height of the network's inputs, pixels.
        views: by number of the input, and the first view of each input before others on it.
    """

    size: tuple[int, int]
    views: tuple[View, ...]

    @property
    def pixels(self) -> int:
        """Of all inputs together, which the network's time goes with."""
        return math.prod(self.size) * (1 + self.views[-1].canvas)

    @property
    def scale(self) -> float:
        """Of the most enlarged view, pixels of the input per pixel of the image."""
        return max(max(view.scales) for view in self.views)


@lru_cache(maxsize=32)
def plan_views(
    width: int,
    height: int,
    input_width: int,
    input_height: int,
    tiles: tuple[int, int] = (1, 1),
    large_faces: bool = False,
    step: int | None = None,
) -> Plan:
    """The views of an image: the whole image first, then the second look, then the tiles.

    Args:
        width, height: of the image, pixels.
        input_width, input_height: of the network's input, pixels.
        tiles: columns and rows of overlapping tiles; (1, 1) for none.
        large_faces: add the second look. It lies on the first input if the letterbox leaves room
            for it, as with images of 4:3 or 16:9, and otherwise on an input more.
        step: cut off what no view covers, to the right and below, so that the sides of the input
            are multiples of this many pixels. None for an input of the size given.
    """
    size = fitted_size(width, height, input_width, input_height)
    whole = View(0, (0, 0, width, height), (0, 0, *size))
    views = [whole]
    if large_faces:
        views.append(_second_look(whole, input_width, input_height))
    if tiles != (1, 1):
        columns, rows = _parts(width, tiles[0]), _parts(height, tiles[1])
        for y, tile_height in rows:
            for x, tile_width in columns:
                part = (x, y, tile_width, tile_height)
                number = views[-1].canvas + 1
                views.append(_tile(number, part, (width, height), (input_width, input_height)))
        # Smaller faces lie within one of the tiles, and are seen better there.
        overlap = min(
            begin + length - following
            for spans in (columns, rows)
            for (begin, length), (following, _) in pairwise(spans)
        )
        sure = max(min(_SURE * overlap, overlap - 2 * _EDGE / min(views[-1].scales)), 0.0)
        views[0] = whole._replace(smallest=(sure, sure))
    canvas = input_width, input_height
    if step is not None:
        canvas = _covered(views, canvas, step)
    return Plan(canvas, tuple(views))


def fitted_size(width: int, height: int, input_width: int, input_height: int) -> tuple[int, int]:
    """Width and height, at least 1 pixel, of an image scaled to fit a network's input.

    As in the reference implementation (insightface, model_zoo/scrfd.py), the longer side fills the
    input and the other is truncated to whole pixels, so that the network gets the same pixels.
    """
    aspect = height / width
    if aspect > input_height / input_width:
        return max(int(input_height / aspect), 1), input_height
    return input_width, max(int(input_width * aspect), 1)


def _covered(views: Sequence[View], size: tuple[int, int], step: int) -> tuple[int, int]:
    """Width and height of the part of inputs of this size that has views, in steps of pixels."""
    width, height = (
        min(step * math.ceil(max(begin + length for begin, length in spans) / step), limit)
        for spans, limit in (
            ([view.target[0::2] for view in views], size[0]),
            ([view.target[1::2] for view in views], size[1]),
        )
    )
    return width, height


def _second_look(whole: View, input_width: int, input_height: int) -> View:
    """The whole image once more: below or beside it if there is room, else on another input."""
    width, height = whole.target[2:]
    below, beside = (_GRID * math.ceil((size + _GAP) / _GRID) for size in (height, width))
    large = LARGE_FACE * max(input_width, input_height)
    across, down = whole.scales
    smallest = large / across, large / down
    for reduction in _REDUCTIONS:
        size = max(width // reduction, 1), max(height // reduction, 1)
        if below + size[1] <= input_height:
            return View(0, whole.source, (0, below, *size), smallest)
        if beside + size[0] <= input_width:
            return View(0, whole.source, (beside, 0, *size), smallest)
    size = max(width // _REDUCTIONS[0], 1), max(height // _REDUCTIONS[0], 1)
    return View(1, whole.source, (0, 0, *size), smallest)


def _parts(length: int, count: int) -> list[tuple[int, int]]:
    """Start and length of equal parts of a length that overlap by `_OVERLAP` of a part."""
    part = min(math.ceil(length / (count - (count - 1) * _OVERLAP)), length)
    step = (length - part) / max(count - 1, 1)
    return [(round(number * step), part) for number in range(count)]


def _tile(canvas: int, part: Rectangle, image: tuple[int, int], size: tuple[int, int]) -> View:
    x, y, width, height = part
    view = View(canvas, part, (0, 0, *fitted_size(width, height, *size)))
    across, down = (_EDGE / scale for scale in view.scales)
    bounds = (
        x + across if x > 0 else -math.inf,
        y + down if y > 0 else -math.inf,
        x + width - across if x + width < image[0] else math.inf,
        y + height - down if y + height < image[1] else math.inf,
    )
    return view._replace(bounds=bounds)
