# SPDX-License-Identifier: Apache-2.0
"""Turn images upright, and faces back into the image as it was sent."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.faces import Faces, FloatArray

ROTATIONS = (0, 90, 180, 270)
"""Degrees clockwise by which the images of a camera have to be turned to be upright: 0 for one that
is mounted upright, 180 for one upside down. One that was itself turned by 90 degrees to the right
gives images that lie to the left, which takes 90."""

_TURNS = {
    90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_COUNTERCLOCKWISE,
}


def upright(image: NDArray[np.uint8], rotation: int) -> NDArray[np.uint8]:
    """The image, uint8 [H, W, 3], turned clockwise by one of `ROTATIONS`: a copy, or itself."""
    if rotation == 0:
        return image
    return np.asarray(cv2.rotate(image, _TURNS[rotation]), np.uint8)


def size_before_turn(size: tuple[int, int], rotation: int) -> tuple[int, int]:
    """Width and height of an image that has this size when it is `upright`."""
    return size[::-1] if rotation % 180 else size


def in_original_image(
    faces: Faces, reduction: int, rotation: int = 0, size: tuple[int, int] = (0, 0)
) -> Faces:
    """Faces in pixels of the image as it was sent: the way back from the image that was searched.

    The landmarks keep their names: "image-left" is that of the upright image.

    Args:
        faces: in pixels of the image that was searched.
        reduction: that image was decoded at 1/`reduction` of its scale.
        rotation: what it was turned by, see `upright`.
        size: width and height of the image as it was decoded, before it was turned, pixels;
            matters only where there is a rotation.
    """
    boxes, landmarks = faces.boxes, faces.landmarks
    if rotation:
        ends = _turned_back(boxes.reshape(-1, 2, 2), rotation, size)
        boxes = np.concatenate((ends.min(axis=1), ends.max(axis=1)), axis=1)
        landmarks = None if landmarks is None else _turned_back(landmarks, rotation, size)
    factor = np.float32(reduction)
    return replace(
        faces,
        boxes=boxes * factor,
        landmarks=None if landmarks is None else landmarks * factor,
    )


def _turned_back(points: FloatArray, rotation: int, size: tuple[int, int]) -> FloatArray:
    """Points, float32 [..., 2], of an upright image, in the one of this size before the turn."""
    x, y = points[..., 0], points[..., 1]
    width, height = np.float32(size[0]), np.float32(size[1])
    turned = {90: (y, height - x), 180: (width - x, height - y), 270: (width - y, x)}
    return np.stack(turned[rotation], axis=-1)
