# SPDX-License-Identifier: Apache-2.0
"""Images of every shape are drawn on black at the place that their views give."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from canvases import Canvas

from scrfd_ros.detection.views import plan_views
from scrfd_ros.images.scaling import scale_linear

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("canvas_size", [(640, 640), (640, 384), (320, 640)])
@pytest.mark.parametrize(
    "image_size", [(1280, 886), (886, 1280), (640, 640), (13, 7), (9000, 10), (10, 9000)]
)
def test_image_in_the_corner_black_elsewhere(
    image_size: tuple[int, int], canvas_size: tuple[int, int]
) -> None:
    image = RANDOM.integers(1, 256, (*image_size[::-1], 3), np.uint8)
    views = plan_views(*image_size, *canvas_size).views
    canvas = Canvas(*canvas_size)(image, views)
    assert canvas.shape == (*canvas_size[::-1], 3) and canvas.dtype == np.uint8
    _, _, width, height = views[0].target
    expected = np.zeros(canvas.shape, np.uint8)
    scale_linear(image, expected[:height, :width])
    np.testing.assert_array_equal(canvas, expected)


def test_second_look_below_the_first() -> None:
    image = RANDOM.integers(1, 256, (480, 640, 3), np.uint8)
    canvas = Canvas(640, 640)(image, plan_views(640, 480, 640, 640, large_faces=True).views)
    expected = np.zeros(canvas.shape, np.uint8)
    expected[:480] = image
    expected[512:632, :160] = cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(canvas, expected)


def test_a_tile_fills_the_canvas() -> None:
    image = RANDOM.integers(1, 256, (200, 640, 3), np.uint8)
    _, *tiles = plan_views(640, 200, 64, 64, tiles=(4, 1)).views
    for tile in tiles:
        x, y, width, height = tile.source
        canvas = Canvas(64, 64)(image, [tile])
        part = np.empty((*tile.target[:1:-1], 3), np.uint8)
        scale_linear(image[y : y + height, x : x + width], part)
        np.testing.assert_array_equal(canvas[: part.shape[0], : part.shape[1]], part)


def test_no_pixel_of_the_image_before_stays() -> None:
    used = Canvas(96, 64)
    for width, height in ((96, 64), (30, 90), (90, 30), (90, 31), (30, 90), (30, 90), (5, 5)):
        image = RANDOM.integers(1, 256, (height, width, 3), np.uint8)
        for large_faces in (True, False):
            views = plan_views(width, height, 96, 64, large_faces=large_faces).views
            views = tuple(view for view in views if view.canvas == 0)
            fresh = Canvas(96, 64)(image, views)
            np.testing.assert_array_equal(used(image, views), fresh)


def test_takes_an_image_with_padded_rows() -> None:
    padded = RANDOM.integers(0, 256, (48, 80, 3), np.uint8)
    views = plan_views(64, 48, 32, 32).views
    canvas = Canvas(32, 32)(padded[:, :64], views)
    expected = Canvas(32, 32)(padded[:, :64].copy(), views)
    np.testing.assert_array_equal(canvas, expected)


def test_what_changed_is_written_also_after_a_failure_and_no_more() -> None:
    canvas = Canvas(96, 64)
    sizes = [(96, 30), (96, 30), (96, 60), (0, 0), (30, 30), (30, 30), (96, 30)]
    for width, height in sizes:
        image = RANDOM.integers(1, 256, (height, width, 3), np.uint8)
        if width == 0:  # has no views; OpenCV refuses it
            with pytest.raises(cv2.error):
                canvas(image, plan_views(30, 30, 96, 64).views)
            continue
        views = plan_views(width, height, 96, 64).views
        np.testing.assert_array_equal(canvas(image, views), Canvas(96, 64)(image, views))
    for height in (30, 20):  # the second time, the rows below are made black
        canvas.planes[:, 30:] = 7
        canvas(image[:height], plan_views(96, height, 96, 64).views)
        assert (canvas.planes[:, 30:] == 7).all()
        assert not canvas.planes[:, height:30].any()


def test_what_opencv_does_not_write_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    canvas = Canvas(96, 64)
    views = plan_views(96, 30, 96, 64).views
    canvas(np.full((30, 96, 3), 9, np.uint8), views)
    with pytest.raises(ValueError, match="broadcast"):
        canvas(np.full((30, 96, 4), 5, np.uint8), views)
    # An OpenCV that returns a new array instead of writing into the given one.
    monkeypatch.setattr(cv2, "resize", lambda *_, dst, **__: np.full(dst.shape, 7, np.uint8))
    assert (canvas(np.zeros((30, 96, 3), np.uint8), views)[:30] == 7).all()
