# SPDX-License-Identifier: Apache-2.0
"""Clips of real faces that move across the frame, pass in front of each other and hide for a while.

They are the same every time, and made one frame after the other, so a minute takes no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

PERIOD = 8.0
"""Seconds after which all people are back at their start. Each pair passes each other twice."""


class Cutout(NamedTuple):
    """Where a face is in an image of the catalogue: its box, pixels."""

    image: str
    x1: int
    y1: int
    x2: int
    y2: int


class Role(NamedTuple):
    """The motion of a person: x + sway * cos(2 pi (time / PERIOD + phase)), in widths of the frame.

    Attributes:
        face: who.
        x, y: the middle of the way, in widths and heights of the frame.
        sway: half the length of the way, in widths of the frame.
        phase: 0 begins on the right, 0.5 on the left.
        hidden: start and end, in seconds of each period, of when he is not to be seen.
    """

    face: Cutout
    x: float
    y: float
    sway: float
    phase: float
    hidden: tuple[float, float] = (0, 0)


_GROUP = "t1.jpg"
CAST = {
    # Pairs that pass each other in three rows. Later people hide earlier ones.
    "a": Role(Cutout("obama.jpg", 378, 84, 610, 426), 0.4, 0.2, 0.28, 0.0),
    "b": Role(Cutout("biden.jpg", 421, 158, 708, 566), 0.4, 0.2, 0.28, 0.5),
    "c": Role(Cutout(_GROUP, 1130, 273, 1227, 401), 0.88, 0.2, 0.02, 0.3, (1.0, 1.4)),
    "d": Role(Cutout(_GROUP, 56, 261, 169, 398), 0.5, 0.5, 0.38, 0.0),
    "e": Role(Cutout(_GROUP, 270, 145, 372, 270), 0.64, 0.51, 0.0, 0.0),
    "f": Role(Cutout(_GROUP, 906, 59, 1011, 206), 0.5, 0.49, 0.38, 0.5),
    "g": Role(Cutout(_GROUP, 464, 266, 573, 415), 0.5, 0.8, 0.4, 0.1),
    "h": Role(Cutout(_GROUP, 745, 342, 847, 480), 0.5, 0.8, 0.4, 0.6),
}

_FACE_HEIGHT = 0.2  # of the frame
_HEAD = 1.6  # height and width of a cut-out head, in those of the face
_SHARPNESS = 8.0  # of a head's edge


class Frame(NamedTuple):
    """One image of a clip.

    Attributes:
        time: seconds since the start.
        image: uint8 [H, W, 3] BGR.
        boxes: float64 [4], x1, y1, x2, y2, pixels, of each face of which no other hides more than
            half, by name. Later ones are in front of earlier ones.
    """

    time: float
    image: NDArray[np.uint8]
    boxes: dict[str, NDArray[np.float64]]


def people_passing(
    image: Callable[[str], NDArray[np.uint8]],
    seconds: float,
    rate: float = 30.0,
    size: tuple[int, int] = (640, 480),
) -> Iterator[Frame]:
    """The people of `CAST`, who pass each other.

    Args:
        image: gives an image of the catalogue by its file name, as the fixture does.
        seconds: length of the clip.
        rate: frames per second.
        size: width and height of the frames, pixels; faces and ways are in proportion.
    """
    width, height = size
    heads = {
        name: cut_out(image(role.face.image), role.face, _FACE_HEIGHT * height)
        for name, role in CAST.items()
    }
    shade = np.linspace(90, 150, width, dtype=np.float32)[None, :, None]
    background = np.repeat(np.repeat(shade, height, axis=0), 3, axis=2)
    for number in range(round(seconds * rate)):
        time = number / rate
        canvas = background.copy()
        boxes: dict[str, NDArray[np.float64]] = {}
        for name, role in CAST.items():
            start, end = role.hidden
            if start <= time % PERIOD < end:
                continue
            x = width * (role.x + role.sway * np.cos(2 * np.pi * (time / PERIOD + role.phase)))
            y = height * role.y
            paste(canvas, heads[name], x, y)
            half_height, half_width = np.array(heads[name].shape[:2]) / _HEAD / 2
            box = np.array((x - half_width, y - half_height, x + half_width, y + half_height))
            boxes = {behind: boxes[behind] for behind in boxes if hides(box, boxes[behind]) <= 0.5}
            boxes[name] = box
        yield Frame(time, np.clip(canvas, 0, 255).round().astype(np.uint8), boxes)


def hides(front: NDArray[np.float64], behind: NDArray[np.float64]) -> float:
    """The part of a box that another one in front of it covers, 0 to 1."""
    sides = np.minimum(front[2:], behind[2:]) - np.maximum(front[:2], behind[:2])
    return float(np.maximum(sides, 0).prod() / (behind[2:] - behind[:2]).prod())


def cut_out(image: NDArray[np.uint8], face: Cutout, height: float) -> NDArray[np.float32]:
    """A head as float32 [H, W, 4]: BGR and opacity; its face has the given height."""
    scale = height / (face.y2 - face.y1)
    size = (round(_HEAD * scale * (face.x2 - face.x1)), round(_HEAD * height))
    shift = (
        size[0] / 2 - scale * (face.x1 + face.x2) / 2,
        size[1] / 2 - scale * (face.y1 + face.y2) / 2,
    )
    blurred = cv2.GaussianBlur(
        image, (0, 0), max(0.4 / scale, 0.1)
    )  # against aliasing when it shrinks
    colors = cv2.warpAffine(
        blurred, np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]), size,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    x, y = (np.linspace(-1, 1, length) for length in size)
    opacity = np.clip(_SHARPNESS * (1 - np.hypot(x[None], y[:, None])), 0, 1)
    return np.dstack((colors, opacity)).astype(np.float32)


def paste(canvas: NDArray[np.float32], head: NDArray[np.float32], x: float, y: float) -> None:
    """Draw a head with its middle at x, y, exact to fractions of a pixel; some of it is seen."""
    height, width = head.shape[:2]
    left, top = x - width / 2, y - height / 2
    first_x, first_y = max(int(np.floor(left)), 0), max(int(np.floor(top)), 0)
    part = canvas[first_y : int(top) + height + 2, first_x : int(left) + width + 2]
    moved = cv2.warpAffine(
        head,
        np.array([[1, 0, left - first_x], [0, 1, top - first_y]]),
        part.shape[1::-1],
    )
    opacity = moved[..., 3:]
    part[:] = moved[..., :3] * opacity + part * (1 - opacity)
