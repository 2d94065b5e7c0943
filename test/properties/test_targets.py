# SPDX-License-Identifier: Apache-2.0
"""OpenCV writes into the arrays that it is given, for any layout of the input.

Where type, size or channels of the target do not fit, OpenCV writes elsewhere and says nothing.
"""

from __future__ import annotations

import numpy as np
from canvases import Canvas
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from scrfd_ros.arrays import checked_image
from scrfd_ros.detection.views import plan_views
from scrfd_ros.images.scaling import scale_by_area, scale_linear
from scrfd_ros.inference.blob import BlobWriter
from scrfd_ros.recognition.alignment import TEMPLATE, align_faces
from scrfd_ros.recognition.quality import sharpness

sides = st.one_of(st.integers(1, 4), st.integers(1, 70))
steps = st.sampled_from((1, 1, 2, 3, -1, -2))


@st.composite
def images(draw: st.DrawFn) -> NDArray[np.uint8]:
    """Images with any strides, in memory that may be read-only."""
    height, width = draw(sides), draw(sides)
    down, across, deep = (draw(steps) for _ in range(3))
    order = draw(st.permutations((0, 1, 2)))
    shape = np.array((height * abs(down), width * abs(across), 3 * abs(deep)))
    seed = draw(st.integers(0, 2**32 - 1))
    memory = np.random.default_rng(seed).integers(1, 256, tuple(shape[order]), np.uint8)
    image = memory.transpose(np.argsort(order))[::down, ::across, ::deep][:height, :width, :3]
    image.flags.writeable = draw(st.booleans())
    assert image.shape == (height, width, 3)
    return image


@given(images(), st.tuples(st.integers(1, 3), st.integers(1, 3)), st.booleans())
def test_the_letterbox(image: NDArray[np.uint8], blocks: tuple[int, int], large: bool) -> None:
    size = 32 * blocks[0], 32 * blocks[1]
    height, width = image.shape[:2]
    views = [
        view for view in plan_views(width, height, *size, (1, 1), large).views if view.canvas == 0
    ]
    canvas = Canvas(*size)(checked_image(image), views)
    expected = np.zeros(canvas.shape, np.uint8)
    x, y, w, h = views[0].target
    first = expected[y : y + h, x : x + w]
    scale_linear(np.array(image, order="C"), first)
    for _, _, (x, y, w, h), *_ in views[1:]:
        scale_by_area(first, expected[y : y + h, x : x + w])
    np.testing.assert_array_equal(canvas, expected)


@given(images(), st.integers(0, 5), st.integers(0, 5), st.integers(1, 3))
def test_the_planes(image: NDArray[np.uint8], left: int, top: int, apart: int) -> None:
    height, width = image.shape[:2]
    memory = np.full((3 * apart, height + top + 2, width + left + 2), np.nan, np.float32)
    blob = memory[::apart, top : top + height, left : left + width]
    BlobWriter(127.5, 128.0).write(checked_image(image), blob)
    expected = (image[..., ::-1].astype(np.float64) - 127.5) / 128
    np.testing.assert_array_equal(blob, expected.transpose(2, 0, 1).astype(np.float32))
    assert np.isnan(memory).sum() == memory.size - blob.size, "nothing beside it"


@given(images(), st.integers(1, 4))
def test_aligned_faces(image: NDArray[np.uint8], count: int) -> None:
    random = np.random.default_rng(count)
    landmarks = TEMPLATE * random.uniform(0.1, 2, (count, 1, 1)) - random.uniform(0, 40)
    crops = align_faces(image, landmarks.astype(np.float32))
    assert crops.shape == (count, 112, 112, 3)
    for crop, points in zip(crops, landmarks.astype(np.float32), strict=True):
        alone = align_faces(np.array(image, order="C"), points[None])[0]
        np.testing.assert_array_equal(crop, alone)
    white = np.full(image.shape, 255, np.uint8)
    inside = TEMPLATE * 0 + (image.shape[1] / 2, image.shape[0] / 2)
    points = (TEMPLATE - TEMPLATE.mean(axis=0)) * 0.01 + inside
    assert align_faces(white, points[None].astype(np.float32)).any(), "written at all"


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(-3, 3).filter(bool))
def test_sharpness(seed: int, count: int, step: int) -> None:
    random = np.random.default_rng(seed)
    memory = random.integers(0, 256, (count * abs(step), 112, 112, 4), np.uint8)
    crops = memory[::step, ::-1, :, 2::-1]
    np.testing.assert_array_equal(sharpness(crops), sharpness(crops.copy()))
