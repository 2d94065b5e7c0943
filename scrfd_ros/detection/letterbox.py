"""Fit a picture of any size into the fixed input of a network, keeping its aspect ratio."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


class Letterbox:
    """Resizes pictures into the top left corner of a black canvas.

    The size is that of the reference implementation (insightface, model_zoo/scrfd.py): the longer
    side fills the canvas, the other is truncated to whole pixels.
    Keeps its canvas between calls: use one per thread.

    Args:
        width, height: size of the canvas in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self._canvas = np.zeros((height, width, 3), np.uint8)
        self._filled = (0, 0)

    def __call__(self, picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
        """Returns the canvas, uint8 [height, width, 3], valid until the next call, and the scale:
        canvas coordinates divided by it are coordinates of `picture`, uint8 [H, W, 3]."""
        size = fitted_size(picture.shape[1], picture.shape[0], *self._canvas.shape[1::-1])
        if size != self._filled:
            self._canvas[:] = 0
            self._filled = size
        width, height = size
        cv2.resize(picture, size, dst=self._canvas[:height, :width])
        return self._canvas, height / picture.shape[0]


def fitted_size(width: int, height: int, canvas_width: int, canvas_height: int) -> tuple[int, int]:
    """Width and height (at least 1) of a picture scaled to fit a canvas."""
    aspect = height / width
    if aspect > canvas_height / canvas_width:
        return max(int(canvas_height / aspect), 1), canvas_height
    return canvas_width, max(int(canvas_width * aspect), 1)
