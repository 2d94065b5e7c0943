"""Draw faces into a picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.faces import Faces

_BOX_COLOR = (80, 200, 60)  # BGR, as all colours here
_TEXT_COLOR = (20, 20, 20)
_LANDMARK_COLORS = ((255, 160, 40), (255, 160, 40), (60, 220, 250), (90, 80, 250), (90, 80, 250))
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FRACTION_BITS = 4  # OpenCV draws at fractions of a pixel given as fixed-point integers


def draw_faces(picture: NDArray[np.uint8], faces: Faces) -> NDArray[np.uint8]:
    """A copy of the picture, uint8 [H, W, 3] BGR, with boxes, scores and landmarks."""
    canvas = picture.copy()
    unit = max(min(canvas.shape[:2]) / 720, 0.5)
    line = max(round(2 * unit), 1)
    text_scale = 0.5 * unit
    boxes = np.round(faces.boxes * 2**_FRACTION_BITS).astype(int).tolist()
    for row, (x1, y1, x2, y2) in enumerate(boxes):
        cv2.rectangle(
            canvas, (x1, y1), (x2, y2), _BOX_COLOR, line, cv2.LINE_AA, shift=_FRACTION_BITS
        )
        label = f"{row} {faces.scores[row]:.2f}"
        (width, height), baseline = cv2.getTextSize(label, _FONT, text_scale, 1)
        left = x1 >> _FRACTION_BITS
        bottom = max(y1 >> _FRACTION_BITS, height + baseline)  # keep the label in the picture
        cv2.rectangle(
            canvas,
            (left, bottom - height - baseline),
            (left + width, bottom),
            _BOX_COLOR,
            cv2.FILLED,
        )
        cv2.putText(
            canvas,
            label,
            (left, bottom - baseline // 2),
            _FONT,
            text_scale,
            _TEXT_COLOR,
            1,
            cv2.LINE_AA,
        )
    if faces.landmarks is not None:
        landmarks = np.round(faces.landmarks * 2**_FRACTION_BITS).astype(int).tolist()
        radius = round(2.5 * unit * 2**_FRACTION_BITS)
        for points in landmarks:
            for (x, y), color in zip(points, _LANDMARK_COLORS, strict=True):
                cv2.circle(
                    canvas, (x, y), radius, color, cv2.FILLED, cv2.LINE_AA, shift=_FRACTION_BITS
                )
    return canvas
