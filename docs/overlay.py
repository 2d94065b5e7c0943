# SPDX-License-Identifier: Apache-2.0
"""Make overlay.png, the image in the README: `python docs/overlay.py`.

The scene is drawn, with the faces that models are checked with, so nobody else has rights in it.
The real networks and tracker find the faces, and the code behind the node's topic `overlay` draws
the boxes, landmarks, scores and ids.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros import Faces, load_pipeline
from scrfd_ros.engines.drawn_faces import BACKGROUND, drawn_boxes, drawn_faces
from scrfd_ros.images.drawing import draw_faces
from scrfd_ros.images.files import write_image

WIDTH, HEIGHT = 960, 520
FLOOR = 385
MARGIN = 0.45  # of the width of a drawn head's box: hair, ears and neck are outside of the box

# From back to front: which drawn face; middle and width of the head; clothes (BGR).
PEOPLE = (
    (1, (612, 222), 48, (120, 90, 60)),
    (2, (352, 226), 58, (70, 110, 70)),
    (3, (800, 236), 96, (60, 60, 130)),
    (0, (172, 246), 126, (130, 90, 50)),
    (1, (484, 266), 158, (90, 70, 110)),
)


def draw_scene() -> NDArray[np.uint8]:
    """A room with people in it, uint8 [HEIGHT, WIDTH, 3] BGR."""
    shades = np.linspace(224, 180, HEIGHT, dtype=np.float32)[:, None, None]
    image = np.repeat(shades * np.float32([0.97, 0.99, 1.0]), WIDTH, axis=1).astype(np.uint8)
    cv2.rectangle(image, (0, FLOOR), (WIDTH, HEIGHT), (104, 126, 146), cv2.FILLED)
    for left in (36, 664):
        window = ((left, 40), (left + 260, 280))
        cv2.rectangle(image, *window, (236, 214, 186), cv2.FILLED)
        cv2.rectangle(image, *window, (150, 158, 164), 6, cv2.LINE_AA)
        cv2.line(image, (left + 130, 40), (left + 130, 280), (150, 158, 164), 4, cv2.LINE_AA)
    cv2.rectangle(image, (400, 70), (560, FLOOR), (126, 142, 158), cv2.FILLED)  # a door
    for face, middle, width, clothes in PEOPLE:
        draw_person(image, face, middle, width, clothes)
    return image


def draw_person(
    image: NDArray[np.uint8],
    face: int,
    middle: tuple[int, int],
    width: int,
    clothes: tuple[int, int, int],
) -> None:
    """Shoulders, and above them one of the drawn heads without its background."""
    (x, y), shoulders = middle, (round(1.05 * width), round(1.25 * width))
    chest = y + 2 * width
    cv2.ellipse(image, (x, chest), shoulders, 0, 180, 360, clothes, cv2.FILLED, cv2.LINE_AA)
    sides = (x - shoulders[0], x + shoulders[0])
    cv2.rectangle(image, (sides[0], chest), (sides[1], HEIGHT), clothes, cv2.FILLED)

    left, top, right, bottom = (int(side) for side in drawn_boxes()[face])
    margin = round(MARGIN * (right - left))
    head = drawn_faces()[max(top - margin, 0) : bottom + margin, left - margin : right + margin]
    scale = width / (right - left)
    head = cv2.resize(head, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    opacity = (cv2.absdiff(head, np.full_like(head, BACKGROUND)).max(axis=2) > 3) * np.float32(1)
    opacity = cv2.GaussianBlur(opacity, (0, 0), 0.8)[..., None]
    top, left = y - head.shape[0] // 2, x - head.shape[1] // 2
    place = image[top : top + head.shape[0], left : left + head.shape[1]]
    place[:] = opacity * head + (1 - opacity) * place


def find_faces(image: NDArray[np.uint8]) -> Faces:
    """Faces with ids, as the node finds them with its default parameters."""
    pipeline = load_pipeline()
    return pipeline(image, pipeline.new_tracker()).faces


if __name__ == "__main__":
    scene = draw_scene()
    write_image(Path(__file__).with_suffix(".png"), draw_faces(scene, find_faces(scene)))
