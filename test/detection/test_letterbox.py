"""Pictures of every shape land in the top left corner of a black canvas."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from scrfd_ros.detection.letterbox import Letterbox, fitted_size

RANDOM = np.random.default_rng(0)

# width, height of the picture; of the canvas; of the picture on it
CASES = [
    pytest.param((1280, 886), (640, 640), (640, 443), id="landscape"),
    pytest.param((886, 1280), (640, 640), (443, 640), id="portrait"),
    pytest.param((640, 640), (640, 640), (640, 640), id="fits"),
    pytest.param((904, 1000), (640, 640), (578, 640), id="truncated, not rounded: 578.56"),
    pytest.param((1000, 701), (640, 640), (640, 448), id="truncated, not rounded: 448.64"),
    pytest.param((13, 7), (640, 640), (640, 344), id="tiny, enlarged"),
    pytest.param((2, 1), (640, 640), (640, 320), id="two pixels"),
    pytest.param((9000, 10), (640, 640), (640, 1), id="very wide: at least one row"),
    pytest.param((10, 9000), (640, 640), (1, 640), id="very tall: at least one column"),
    pytest.param((1280, 720), (640, 384), (640, 360), id="landscape on landscape"),
    pytest.param((720, 1280), (640, 384), (216, 384), id="portrait on landscape"),
    pytest.param((1000, 700), (640, 384), (548, 384), id="landscape on a wider landscape"),
    pytest.param((500, 800), (320, 640), (320, 512), id="portrait on a taller portrait"),
    pytest.param((1280, 720), (320, 640), (320, 180), id="landscape on portrait"),
    pytest.param((1000, 600), (640, 384), (640, 384), id="same aspect"),
]


@pytest.mark.parametrize(("picture_size", "canvas_size", "expected"), CASES)
def test_size_on_the_canvas(
    picture_size: tuple[int, int], canvas_size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert fitted_size(*picture_size, *canvas_size) == expected


@pytest.mark.parametrize(("picture_size", "canvas_size", "expected"), CASES)
def test_picture_in_the_corner_black_elsewhere(
    picture_size: tuple[int, int], canvas_size: tuple[int, int], expected: tuple[int, int]
) -> None:
    width, height = picture_size
    picture = RANDOM.integers(1, 256, (height, width, 3), np.uint8)
    canvas, scale = Letterbox(*canvas_size)(picture)
    assert canvas.shape == (canvas_size[1], canvas_size[0], 3) and canvas.dtype == np.uint8
    assert scale == expected[1] / height
    on_canvas = np.zeros_like(canvas)
    on_canvas[: expected[1], : expected[0]] = cv2.resize(picture, expected)
    np.testing.assert_array_equal(canvas, on_canvas)


def test_no_pixel_of_the_picture_before_stays() -> None:
    used = Letterbox(96, 64)
    for width, height in ((96, 64), (30, 90), (90, 30), (90, 31), (30, 90), (30, 90), (5, 5)):
        picture = RANDOM.integers(1, 256, (height, width, 3), np.uint8)
        canvas, _ = used(picture)
        fresh, _ = Letterbox(96, 64)(picture)
        np.testing.assert_array_equal(canvas, fresh)


def test_takes_a_view_with_padded_rows() -> None:
    padded = RANDOM.integers(0, 256, (48, 80, 3), np.uint8)
    canvas, _ = Letterbox(32, 32)(padded[:, :64])
    expected, _ = Letterbox(32, 32)(padded[:, :64].copy())
    np.testing.assert_array_equal(canvas, expected)
