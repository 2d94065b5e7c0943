# SPDX-License-Identifier: Apache-2.0
"""For any sizes, views lie on the inputs, are drawn there, and map back to the image."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from canvases import Canvas
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from scrfd_ros.detection.views import View, plan_views
from scrfd_ros.images.scaling import scale_by_area, scale_linear

Size = tuple[int, int]

lengths = st.one_of(st.integers(1, 100), st.integers(1, 8000))
image_sizes = st.tuples(lengths, lengths)
input_sizes = st.tuples(st.integers(1, 20), st.integers(1, 20)).map(
    lambda size: (32 * size[0], 32 * size[1])
)
tile_counts = st.tuples(st.integers(1, 8), st.integers(1, 8))
parts = st.floats(0, 1, width=32)


@given(image_sizes, input_sizes, tile_counts, st.booleans())
def test_views_are_within_image_and_inputs(
    size: Size, input_size: Size, tiles: Size, large_faces: bool
) -> None:
    views = plan_views(*size, *input_size, tiles, large_faces).views
    assert views[0].source == (0, 0, *size) and views[0].target[:2] == (0, 0)
    # The detector goes through the inputs one after the other.
    numbers = [view.canvas for view in views]
    assert numbers == sorted(numbers) and set(numbers) == set(range(numbers[-1] + 1))
    assert len(views) == 1 + large_faces + (tiles != (1, 1)) * tiles[0] * tiles[1]
    for view in views:
        for (x, y, width, height), whole in ((view.source, size), (view.target, input_size)):
            assert x >= 0 and y >= 0 and width >= 1 and height >= 1
            assert x + width <= whole[0] and y + height <= whole[1]
    for one, other in combinations(views, 2):
        if one.canvas == other.canvas:
            gaps = [
                max(one.target[axis], other.target[axis])
                - min(view.target[axis] + view.target[axis + 2] for view in (one, other))
                for axis in (0, 1)
            ]
            assert max(gaps) >= 16, "the network must not see two looks as one image"


@given(image_sizes, input_sizes, tile_counts, parts, parts, parts, parts)
def test_faces_below_the_limit_lie_whole_within_a_tile(
    size: Size, input_size: Size, tiles: Size, x: float, y: float, width: float, height: float
) -> None:
    whole, *others = plan_views(*size, *input_size, tiles).views
    smallest = whole.smallest
    sides = min(width * smallest[0], size[0]), min(height * smallest[1], size[1])
    if not others or sides[0] >= smallest[0] or sides[1] >= smallest[1]:
        return  # the whole image has it
    low = x * (size[0] - sides[0]), y * (size[1] - sides[1])
    high = low[0] + sides[0], low[1] + sides[1]
    assert any(
        low[0] >= view.bounds[0]
        and low[1] >= view.bounds[1]
        and high[0] <= view.bounds[2]
        and high[1] <= view.bounds[3]
        for view in others
    ), "a box that counts in no view"


small_sizes = st.tuples(st.integers(1, 150), st.integers(1, 150))


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(small_sizes, small_sizes),
    st.lists(st.tuples(st.integers(0, 1), st.booleans()), min_size=1, max_size=8),
    st.integers(0, 2**32 - 1),
)
def test_what_is_not_drawn_is_black_whatever_was_there_before(
    blocks: Size, sizes: tuple[Size, Size], history: list[tuple[int, bool]], seed: int
) -> None:
    random = np.random.default_rng(seed)
    width, height = 32 * blocks[0], 32 * blocks[1]
    canvas = Canvas(width, height)
    for number, large_faces in history:  # the same size twice draws less
        size = sizes[number]
        views = [
            view
            for view in plan_views(*size, width, height, large_faces=large_faces).views
            if view.canvas == 0
        ]
        image = random.integers(1, 256, (size[1], size[0], 3), np.uint8)
        drawn = canvas(image, views)
        np.testing.assert_array_equal(drawn, by_hand(image, views, (width, height)))


def by_hand(image: NDArray[np.uint8], views: list[View], input_size: Size) -> NDArray[np.uint8]:
    """Views drawn on a new canvas, the first from the image and the others from the first."""
    canvas = np.zeros((input_size[1], input_size[0], 3), np.uint8)
    first, *others = (
        canvas[y : y + height, x : x + width] for _, _, (x, y, width, height), *_ in views
    )
    scale_linear(image, first)
    for other in others:
        scale_by_area(first, other)
    return canvas
