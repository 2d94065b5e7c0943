# SPDX-License-Identifier: Apache-2.0
"""Scale images: the only place where `cv2.resize` is called.

OpenCV 4.14 and 5.0 for aarch64 use KleidiCV 26.03 to scale down linearly, with two faults that are
kept away from here: docs/opencv-aarch64.md.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.arrays import written


def scale_linear(image: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
    """Fill an image with another one, scaled by linear interpolation.

    Equals `cv2.resize` on x86_64 bit by bit. On aarch64 some values are 1 higher or lower, but not
    at a scale of exactly a half.

    Args:
        image: uint8 [H, W, 3].
        target: uint8 [h, w, 3], another array. Its rows may be padded, as those of the image.
    """
    height, width = target.shape[:2]
    if image.shape[:2] == (2 * height, 2 * width):
        # OpenCV does the same by itself, KleidiCV does not: it rounds up twice.
        scale_by_area(image, target)
        return
    if _reads_a_row_too_many(len(image), height):
        longer = np.empty((len(image) + 1, *image.shape[1:]), np.uint8)
        longer[:-1] = image
        image = longer[:-1]
    _resize(image, target, cv2.INTER_LINEAR)


def scale_by_area(image: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
    """Fill an image with another one, scaled down by averages over areas.

    Args:
        image: uint8 [H, W, 3].
        target: uint8 [h, w, 3], another array. Its rows may be padded, as those of the image.
    """
    _resize(image, target, cv2.INTER_AREA)


def _resize(image: NDArray[np.uint8], target: NDArray[np.uint8], interpolation: int) -> None:
    if image.shape[:2] == (1, 1):
        target[:] = image  # OpenCV 4.5 refuses arrays of one pixel
        return
    size = target.shape[1::-1]
    written(cv2.resize(image, size, dst=target, interpolation=interpolation), target)


def _reads_a_row_too_many(height: int, target_height: int) -> bool:
    """Whether KleidiCV reads the row after the image's last, which may not be there.

    It adds 1/512 of a row to each coordinate, and interpolates between the row where this lies and
    the next one. For the last row that is one too many at scales from 1 to 256/257, and, as it
    rounds, a little beyond. What it reads has no weight.
    """
    return target_height < height <= 1.005 * target_height
