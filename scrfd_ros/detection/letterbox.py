# SPDX-License-Identifier: Apache-2.0
"""Views of images on black canvases of the size of a network's input."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.arrays import written
from scrfd_ros.detection.views import Rectangle, View


class Letterbox:
    """A black canvas that views of an image are drawn onto.

    Keeps the canvas between calls: use one per thread.

    Args:
        width, height: size of the canvas in pixels.

    Attributes:
        changed: rows and columns of the canvas outside of which the last call changed nothing.
    """

    def __init__(self, width: int, height: int) -> None:
        self._canvas = np.zeros((height, width, 3), np.uint8)
        self._filled: list[Rectangle] = []
        self.changed: tuple[slice, slice] = (slice(height), slice(width))

    def __call__(self, image: NDArray[np.uint8], views: Sequence[View]) -> NDArray[np.uint8]:
        """Draw views of an image onto the canvas.

        Args:
            image: uint8 [H, W, 3] BGR, as `scrfd_ros.arrays.checked_image` gives it.
            views: those on one canvas; all but the first are drawn from the first, which is
                smaller than the image.

        Returns:
            The canvas, uint8 [height, width, 3], valid until the next call.
        """
        targets = [view.target for view in views]
        width = max(x + width for x, _, width, _ in targets)
        height = max(y + height for _, y, _, height in targets)
        if targets != self._filled:
            rows, columns = self.changed  # nothing lies beyond them
            height, width = max(height, rows.stop), max(width, columns.stop)
            self._canvas[:height, :width] = 0
            self._filled = []  # if what follows fails, all is drawn anew
        self.changed = slice(height), slice(width)
        first, *others = (_part(self._canvas, target) for target in targets)
        source = _part(image, views[0].source)
        written(cv2.resize(source, targets[0][2:], dst=first), first)
        for other, target in zip(others, targets[1:], strict=True):
            drawn = cv2.resize(first, target[2:], dst=other, interpolation=cv2.INTER_AREA)
            written(drawn, other)
        self._filled = targets
        return self._canvas


def _part(image: NDArray[np.uint8], rectangle: Rectangle) -> NDArray[np.uint8]:
    x, y, width, height = rectangle
    return image[y : y + height, x : x + width]
