# SPDX-License-Identifier: Apache-2.0
"""Small images of people of the catalogue, who are enrolled and found again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.images.files import write_image

Image = NDArray[np.uint8]

SIDE = 480  # pixels, the longer side


def small(image: Image) -> Image:
    """An image in the size in which these are quick to search."""
    scale = SIDE / max(image.shape[:2])
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


def write_portraits(folder: Path, image: Callable[[str], Image]) -> Path:
    """obama1 to obama3, biden, yaoming, and group.png of six people."""
    for name, source in (
        ("obama1", "obama.jpg"),
        ("obama2", "obama2.jpg"),
        ("obama3", "obama3.jpg"),
        ("biden", "biden.jpg"),
        ("yaoming", "yaoming.jpg"),
    ):
        write_image(folder / f"{name}.png", small(image(source)))
    write_image(folder / "group.png", image("t1.jpg"))
    write_image(folder / "nobody.png", np.full((120, 160, 3), 90, np.uint8))
    return folder
