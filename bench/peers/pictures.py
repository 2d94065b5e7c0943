# SPDX-License-Identifier: Apache-2.0
"""The images that every side gets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.faces import Faces
from scrfd_ros.images.files import read_image
from scrfd_ros.models.download import ensure_picture

Image = NDArray[np.uint8]

VGA, HD, FULL_HD, UHD = "640x480", "1280x720", "1920x1080", "3840x2160"

_CANVAS = 1280  # pixels
_HEAD = 160  # maximum side, pixels; smaller in large crowds


def photograph(name: str) -> Image:
    """An image of the catalogue."""
    return read_image(ensure_picture(name))


def six_people(size: str) -> Image:
    """The photograph t1.jpg at a size such as `HD`, cut or lengthened at its bottom to fit."""
    width, height = map(int, size.split("x"))
    image = photograph("t1.jpg")
    rows = round(image.shape[1] * height / width)
    more = max(rows - len(image), 0)
    cut = cv2.copyMakeBorder(image[:rows], 0, more, 0, 0, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(cut, (width, height)), np.uint8)


def cut_out(image: Image, faces: Faces) -> list[Image]:
    """The heads in an image, each as a square of `_HEAD` pixels."""
    heads = []
    for middle, (_, height) in zip(faces.centers, faces.sizes, strict=True):
        scale = _HEAD / (1.6 * height)
        shift = _HEAD / 2 - scale * middle
        transform = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        heads.append(cv2.warpAffine(image, transform, (_HEAD, _HEAD)))
    return heads


def crowd(heads: Sequence[Image], count: int) -> Image:
    """An image of this number of people, in rows."""
    canvas = np.full((_CANVAS, _CANVAS, 3), 110, np.uint8)
    columns = max(math.ceil(math.sqrt(count)), 1)
    side = min(_CANVAS // columns, _HEAD)
    for number in range(count):
        y, x = (side * part for part in divmod(number, columns))
        head = cv2.resize(heads[number % len(heads)], (side, side), interpolation=cv2.INTER_AREA)
        canvas[y : y + side, x : x + side] = head
    return canvas
