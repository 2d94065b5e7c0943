# SPDX-License-Identifier: Apache-2.0
"""Images are scaled as by cv2.resize, without what KleidiCV does wrong on aarch64."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from scrfd_ros.detection.views import fitted_size
from scrfd_ros.images import scaling
from scrfd_ros.images.scaling import scale_by_area, scale_linear

RANDOM = np.random.default_rng(0)
SIZES = [(1280, 720), (641, 481), (642, 642), (640, 480), (800, 600), (320, 240), (2, 1), (1300, 1)]


def picture(width: int, height: int) -> NDArray[np.uint8]:
    return RANDOM.integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_linear_is_that_of_opencv(size: tuple[int, int]) -> None:
    image = picture(*size)
    expected = cv2.resize(image, fitted_size(*size, 640, 640))
    scaled = np.zeros_like(expected)
    scale_linear(image, scaled)
    off = abs(scaled.astype(int) - expected)
    assert off.max() <= (0 if platform.machine() == "x86_64" else 1)


@pytest.mark.parametrize("scale", [scale_linear, scale_by_area])
def test_one_pixel_fills_the_target(
    scale: Callable[[NDArray[np.uint8], NDArray[np.uint8]], None],
) -> None:
    image, scaled = picture(1, 1), picture(64, 48)
    scale(image, scaled)
    assert (scaled == image).all()


@pytest.mark.parametrize("size", [(1280, 720), (1280, 886), (4, 2), (64, 130)])
def test_half_a_size_is_the_mean_of_four_pixels(size: tuple[int, int]) -> None:
    image = picture(*size)
    width, height = size
    scaled = np.zeros((height // 2, width // 2, 3), np.uint8)
    scale_linear(image, scaled)
    sums = image.reshape(height // 2, 2, width // 2, 2, 3).sum(axis=(1, 3))
    np.testing.assert_array_equal(scaled, (sums + 2) // 4)


def test_takes_padded_rows() -> None:
    image, padded = picture(90, 80), picture(64, 48)
    for scale in (scale_linear, scale_by_area):
        scale(image[:49, :65], padded[:48, :60])
        expected = np.zeros((48, 60, 3), np.uint8)
        scale(image[:49, :65].copy(), expected)
        np.testing.assert_array_equal(padded[:48, :60], expected)


def source_row(row: int, height: int, target_height: int) -> int:
    """Where KleidiCV 26.03 begins to interpolate (resize_linear_generic_u8_neon.h, to_src_y).

    The lowest 16 bits of its coordinates are fractions.
    """
    scaled = (((row << 16) + (1 << 15)) * height + target_height // 2) // target_height
    return (scaled - (1 << 15) + (1 << 7)) >> 16


def test_the_row_that_is_read_too_many_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    beyond = []

    def resize(image: NDArray[np.uint8], size: tuple[int, int], **_: Any) -> NDArray[np.uint8]:
        rows = len(image)
        if source_row(size[1] - 1, rows, size[1]) + 1 >= rows:
            assert isinstance(image.base, np.ndarray)
            assert image.base.nbytes == image.nbytes + image.strides[0]
            beyond.append((rows, size[1]))
        return np.zeros((*size[::-1], 3), np.uint8)

    monkeypatch.setattr(scaling.cv2, "resize", resize)
    tall = np.zeros((20_000, 2, 3), np.uint8)
    for target_height in [*range(1, 1300), 5119, 12_800, 19_000]:
        target = np.empty((target_height, 1, 3), np.uint8)
        for more in {*range(1, 8), *range(target_height // 260, target_height // 250 + 1)} - {0}:
            scale_linear(tall[: target_height + more], target)
    assert {(641, 640), (642, 640), (257, 256), (770, 767)} <= set(beyond)
    assert (643, 640) not in beyond


def test_nothing_else_scales() -> None:
    package = Path(scaling.__file__).parents[1]
    callers = [path for path in package.rglob("*.py") if "cv2.resize(" in path.read_text("utf-8")]
    assert [path.relative_to(package).as_posix() for path in callers] == ["images/scaling.py"]
