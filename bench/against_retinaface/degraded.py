# SPDX-License-Identifier: Apache-2.0
"""Faces that are turned, blurred, dark or covered: which are still found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from against_retinaface.detectors import Detector, Image
from against_retinaface.scenes import Portrait, Square, grids, surroundings
from against_retinaface.scoring import Outcome, outcome

HEIGHT = 64.0
"""Of the faces, pixels of the input."""

NOISE = 2.0
"""Standard deviation of the noise in dark images, of 255."""


Degrade = Callable[[Square, float], Image]


class Degradation(NamedTuple):
    """A way to make faces harder to find.

    Attributes:
        name: with {} for the level.
        levels: how far it goes, from slight to heavy.
        apply: to a face's surroundings.
    """

    name: str
    levels: tuple[float, ...]
    apply: Degrade


def _blurred(square: Square, level: float) -> Image:
    height = square.box[3] - square.box[1]
    return cv2.GaussianBlur(square.image, (0, 0), level * float(height))


def _dark(square: Square, level: float) -> Image:
    noise = np.random.default_rng(0).normal(0, NOISE, square.image.shape)
    return np.clip(square.image * level + noise, 0, 255).astype(np.uint8)


def _covered(square: Square, left: float, top: float, right: float, bottom: float) -> Image:
    """Gray over a part of the box, given in parts of its width and height."""
    size = np.tile(square.box[2:] - square.box[:2], 2)
    corners = np.tile(square.box[:2], 2) + size * (left, top, right, bottom)
    x1, y1, x2, y2 = np.rint(corners).clip(0, None).astype(int)
    image = square.image.copy()
    image[y1:y2, x1:x2] = 128
    return image


def _degraded(apply: Degrade, level: float, face: Portrait, height: float, side: int) -> Square:
    square = surroundings(face, height, side)
    return Square(apply(square, level), square.box)


TURNED = "turned by {:.0f} degrees"
DEGRADATIONS = (
    Degradation("blurred, sigma {:.0%} of the height", (0.04, 0.08, 0.12, 0.16), _blurred),
    Degradation("brightness times {:.3g}", (1 / 8, 1 / 16, 1 / 32, 1 / 64), _dark),
    Degradation("lower {:.0%} covered", (0.3, 0.5, 0.7), lambda s, a: _covered(s, 0, 1 - a, 1, 1)),
    Degradation("upper {:.0%} covered", (0.3, 0.5, 0.7), lambda s, a: _covered(s, 0, 0, 1, a)),
    Degradation("left {:.0%} covered", (0.3, 0.5, 0.7), lambda s, a: _covered(s, 0, 0, a, 1)),
)
ANGLES = (0, 15, 30, 45, 60, 90, 120, 150, 180)


def outcomes(
    detectors: Mapping[str, Detector], faces: Sequence[Portrait]
) -> dict[str, dict[str, Outcome]]:
    """What each detector makes of the faces, by degradation and detector."""
    ways = {TURNED.format(angle): partial(surroundings, angle=angle) for angle in ANGLES}
    for name, levels, apply in DEGRADATIONS:
        ways |= {name.format(level): partial(_degraded, apply, level) for level in levels}
    found = {}
    for name, way in tqdm(ways.items(), "degraded faces", leave=False, disable=None):
        scenes = list(grids(faces, HEIGHT, way))
        found[name] = {each: outcome(detector, scenes) for each, detector in detectors.items()}
    return found
