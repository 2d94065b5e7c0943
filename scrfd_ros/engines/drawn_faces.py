# SPDX-License-Identifier: Apache-2.0
"""An image to check networks with where there is no photograph, as on a robot without Internet.

It is drawn, but detectors find its faces, and recognizers distinguish them.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.faces import FloatArray
from scrfd_ros.images.scaling import scale_by_area

_Color = tuple[float, float, float]

BACKGROUND = (150, 140, 130)
_FACES: tuple[tuple[int, int, int, _Color, _Color], ...] = (
    # left, top and size in pixels; skin and hair
    (30, 30, 256, (140, 170, 215), (30, 40, 60)),
    (360, 40, 200, (90, 120, 170), (15, 15, 20)),
    (60, 360, 160, (170, 195, 235), (60, 110, 150)),
    (330, 350, 256, (60, 85, 130), (10, 10, 12)),
)
_FACE_SIZE = 256
_LANDMARKS = ((97, 125), (159, 125), (128, 160), (101, 190), (155, 190))
_HEAD = ((54, 34), (202, 226))  # corners of the face as detectors find it


def drawn_faces() -> NDArray[np.uint8]:
    """Four faces of different sizes and skin colors, uint8 [640, 640, 3] BGR, always the same."""
    return _drawn().copy()


@functools.cache
def _drawn() -> NDArray[np.uint8]:
    image = np.full((640, 640, 3), BACKGROUND, np.uint8)
    for left, top, size, skin, hair in _FACES:
        scale_by_area(_face(skin, hair), image[top : top + size, left : left + size])
    return image


def drawn_landmarks() -> FloatArray:
    """Landmarks of `drawn_faces`: float32 [4, 5, 2], as in `Faces.landmarks`."""
    return _in_image(_LANDMARKS)


def drawn_boxes() -> FloatArray:
    """Boxes of `drawn_faces`: float32 [4, 4], as in `Faces.boxes`."""
    return _in_image(_HEAD).reshape(-1, 4)


def _in_image(points: tuple[tuple[int, int], ...]) -> FloatArray:
    """The points of each face, in pixels of the image: float32 [4, N, 2]."""
    return np.array(
        [
            [(left + x * size / _FACE_SIZE, top + y * size / _FACE_SIZE) for x, y in points]
            for left, top, size, _, _ in _FACES
        ],
        np.float32,
    )


def _face(skin: _Color, hair: _Color) -> NDArray[np.uint8]:
    """Head and neck, uint8 [256, 256, 3] BGR."""
    canvas = np.full((_FACE_SIZE, _FACE_SIZE, 3), BACKGROUND, np.float32)

    def ellipse(
        x: float, y: float, width: float, height: float, color: _Color,
        start: float = 0, end: float = 360, line: int = cv2.FILLED,
    ) -> None:  # fmt: skip
        """A filled ellipse, or an arc where `line` is its thickness; sizes are half axes."""
        center, axes = (round(16 * x), round(16 * y)), (round(16 * width), round(16 * height))
        cv2.ellipse(canvas, center, axes, 0, start, end, color, line, cv2.LINE_AA, 4)

    def shade(x: float, y: float, width: float, height: float, factor: float) -> None:
        """Make a soft spot darker or lighter."""
        spot = np.zeros(canvas.shape[:2], np.float32)
        cv2.ellipse(spot, (round(x), round(y)), (round(width), round(height)), 0, 0, 360, 1.0, -1)
        canvas[:] *= 1 + (factor - 1) * cv2.GaussianBlur(spot, (0, 0), 4)[..., None]

    def darker(factor: float) -> _Color:
        blue, green, red = skin
        return blue * factor, green * factor, red * factor

    ellipse(128, 105, 86, 92, hair)
    ellipse(128, 225, 30, 70, darker(0.75))  # neck
    for x in (50, 206):
        ellipse(x, 135, 11, 22, darker(0.85))  # ears
    for step in np.linspace(1, 0, 24):  # darker towards the edge
        ellipse(128, 130, 74 * step, 96 * step, darker(1.08 - 0.35 * step**3))
    ellipse(128, 62, 76, 38, hair, 180, 360)
    for x, _ in _LANDMARKS[:2]:
        shade(x, 122, 24, 15, 0.72)
        ellipse(x, 125, 15, 7.5, (225, 228, 232))
        ellipse(x, 125, 7, 7, (45, 60, 80))
        ellipse(x, 125, 3.5, 3.5, (10, 10, 10))
        ellipse(x, 126, 16, 9, (40, 45, 55), 190, 350, 3)  # lid
        ellipse(x, 112, 21, 9, hair, 200, 340, 5)  # brow
    shade(135, 145, 7, 24, 0.78)  # nose, lit from the left
    shade(127, 150, 5, 22, 1.12)
    shade(128, 169, 17, 6, 0.7)
    for x in (120, 136):
        ellipse(x, 167, 4, 2.6, darker(0.35))
    ellipse(128, 192, 27, 9, (95, 95, 175))  # lips
    ellipse(128, 186, 26, 6, (40, 40, 80), 15, 165, 3)
    shade(128, 207, 18, 4, 0.8)
    return cv2.GaussianBlur(canvas, (0, 0), 1.2).round().clip(0, 255).astype(np.uint8)
