# SPDX-License-Identifier: Apache-2.0
"""Draw faces into an image."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.arrays import checked_image
from scrfd_ros.faces import Faces

_BOX_COLOR = (80, 200, 60)  # BGR, as all colors here
_TEXT_COLOR = (20, 20, 20)
_LANDMARK_COLORS = ((255, 160, 40), (255, 160, 40), (60, 220, 250), (90, 80, 250), (90, 80, 250))
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FRACTION_BITS = 4  # OpenCV draws at fractions of a pixel given as fixed-point integers
_FARTHEST = 2**28  # fixed point; OpenCV refuses numbers beyond 32 bits


def draw_faces(image: NDArray[np.uint8], faces: Faces) -> NDArray[np.uint8]:
    """Draw boxes, scores and landmarks into a copy of an image.

    A face is labeled with its id, as #3, or with its row. Boxes that are not finite are skipped.

    Args:
        image: uint8 [H, W, 3] BGR.
        faces: in pixels of the image.

    Returns:
        uint8 [H, W, 3] BGR, a new array.

    Raises:
        ValueError: the image has another shape or dtype.
    """
    canvas = checked_image(image).copy()
    unit = max(min(canvas.shape[:2]) / 720, 0.5)
    for row, (box, size) in enumerate(zip(faces.boxes, faces.sizes, strict=True)):
        if not np.isfinite(box).all():
            continue
        # Lines scale with the image; labels and dots also with the face, so as not to hide it.
        face_unit = min(unit, max(size.min() / 65, 0.7))
        name = f"#{faces.ids[row]}" if faces.ids is not None else str(row)
        _draw_box(canvas, _fixed_point(box), f"{name} {faces.scores[row]:.2f}", unit, face_unit)
        if faces.landmarks is not None:
            radius = round(2 * face_unit * 2**_FRACTION_BITS)
            points = _fixed_point(faces.landmarks[row])
            for point, color in zip(points, _LANDMARK_COLORS, strict=True):
                cv2.circle(
                    canvas, point, radius, color, cv2.FILLED, cv2.LINE_AA, shift=_FRACTION_BITS
                )
    return canvas


def _fixed_point(coordinates: NDArray[np.float32]) -> list[Any]:
    """Fixed-point coordinates for OpenCV, whose origin is the center of the first pixel."""
    fixed = np.round((coordinates.astype(np.float64) - 0.5) * 2**_FRACTION_BITS)
    fixed = np.nan_to_num(fixed, nan=-_FARTHEST).clip(-_FARTHEST, _FARTHEST)
    values: list[Any] = fixed.astype(int).tolist()
    return values


def _draw_box(
    canvas: NDArray[np.uint8], corners: list[int], label: str, unit: float, face_unit: float
) -> None:
    x1, y1, x2, y2 = corners
    line = max(round(2 * unit), 1)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), _BOX_COLOR, line, cv2.LINE_AA, shift=_FRACTION_BITS)
    text_scale = 0.5 * face_unit
    (width, height), baseline = cv2.getTextSize(label, _FONT, text_scale, 1)
    left, top = (round(value / 2**_FRACTION_BITS + 0.5) for value in (x1, y1))
    bottom = max(top, height + baseline)  # keep the label in the image
    top = bottom - height - baseline
    cv2.rectangle(canvas, (left, top), (left + width, bottom), _BOX_COLOR, cv2.FILLED)
    place = (left, bottom - baseline // 2)
    cv2.putText(canvas, label, place, _FONT, text_scale, _TEXT_COLOR, 1, cv2.LINE_AA)
