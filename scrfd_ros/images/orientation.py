# SPDX-License-Identifier: Apache-2.0
"""Rotate images, sizes and points by quarter turns."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

ROTATIONS = (0, 90, 180, 270)
"""Degrees clockwise by which a camera's images must be turned to be upright: 0 for a camera that is
mounted upright, 180 for one upside down. A camera that is itself turned 90 degrees to the right
sends images that lie on their left side and need 90."""

_TURNS = {
    90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_COUNTERCLOCKWISE,
}


def turn(image: NDArray[np.uint8], rotation: int) -> NDArray[np.uint8]:
    """An image, uint8 [H, W, 3], turned clockwise by one of `ROTATIONS`; itself for 0."""
    if rotation == 0:
        return image
    return np.asarray(cv2.rotate(image, _TURNS[rotation]), np.uint8)


def size_before_turn(size: tuple[int, int], rotation: int) -> tuple[int, int]:
    """Width and height of an image that has `size` after `turn`."""
    return size[::-1] if rotation % 180 else size


def points_before_turn(
    points: NDArray[np.float32], rotation: int, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Undo `turn` for points.

    Args:
        points: float32 [..., 2], x and y, pixels of the turned image.
        rotation: one of `ROTATIONS`.
        size: width and height of the image before the turn, pixels.

    Returns:
        float32 [..., 2], pixels of the image before the turn.
    """
    if rotation == 0:
        return points
    x, y = points[..., 0], points[..., 1]
    width, height = np.float32(size[0]), np.float32(size[1])
    turned = {90: (y, height - x), 180: (width - x, height - y), 270: (width - y, x)}
    return np.stack(turned[rotation], axis=-1)
