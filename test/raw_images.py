# SPDX-License-Identifier: Apache-2.0
"""Raw image messages without ROS, and what they show, calculated without OpenCV."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.images.encodings import ENCODINGS

# The positions of blue, green and red among the values of a pixel.
_PLAIN = {
    "bgr": (0, 1, 2),
    "rgb": (2, 1, 0),
    "bgra": (0, 1, 2),
    "rgba": (2, 1, 0),
    "mono": (0, 0, 0),
    "8UC1": (0, 0, 0),
    "8UC3": (0, 1, 2),
    "8UC4": (0, 1, 2),
}
# The positions of Y in a pixel, of U and V in a pair of pixels.
_YUV422 = {"uyvy": (1, 0, 2), "yuv422": (1, 0, 2), "yuyv": (0, 1, 3), "yuv422_yuy2": (0, 1, 3)}
# The positions of U and V in a pair.
_YUV420 = {"nv12": (0, 1), "nv21": (1, 0)}
BAYER = [name for name in ENCODINGS if name.startswith("bayer")]


@dataclass
class Message:
    """An image message that needs no ROS."""

    height: int
    width: int
    encoding: str
    step: int
    data: Any
    is_bigendian: int = 0


def by_hand(values: NDArray[Any], encoding: str) -> NDArray[np.float64]:
    """The image in BGR before rounding, [height, width, 3].

    At the border a Bayer pattern has other neighbors, and the result is not valid.

    Args:
        values: of the message, [lines, width, values per pixel], uint8 or uint16.
    """
    values = values / (257 if values.dtype.itemsize == 2 else 1)
    if encoding in _YUV422:
        of_luma, *of_chroma = _YUV422[encoding]
        pairs = values.reshape(len(values), -1, 4)
        u, v = (pairs[..., place].repeat(2, axis=1) for place in of_chroma)
        return _bt601(values[..., of_luma], u, v)
    if encoding in _YUV420:
        height = len(values) * 2 // 3
        pairs = values[height:].reshape(height // 2, -1, 2)
        u, v = (pairs[..., place].repeat(2, 0).repeat(2, 1) for place in _YUV420[encoding])
        return _bt601(values[:height, :, 0], u, v)
    name = encoding.removesuffix("16") if encoding.endswith("16") else encoding.removesuffix("8")
    if name.startswith("bayer"):
        return _demosaicked(values[..., 0], name[-4:])
    return values[..., _PLAIN[name]]


def largest_difference(actual: NDArray[Any], expected: NDArray[Any], encoding: str) -> float:
    """The largest difference of two images, without the border of a Bayer pattern."""
    inner = slice(1, -1) if encoding in BAYER else slice(None)
    return float(np.abs(actual - expected)[inner, inner].max())


def _bt601(
    luma: NDArray[np.float64], u: NDArray[np.float64], v: NDArray[np.float64]
) -> NDArray[np.float64]:
    """ITU-R BT.601 with Kr 0.299 and Kb 0.114; luma from 16 to 235, chroma from 16 to 240.

    Darker than black is black.
    """
    y, pb, pr = (luma.clip(16) - 16) / 219, (u - 128) / 224, (v - 128) / 224
    red, blue = y + 2 * (1 - 0.299) * pr, y + 2 * (1 - 0.114) * pb
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    return 255 * np.stack((blue, green, red), axis=2).clip(0, 1)


def _demosaicked(mosaic: NDArray[np.float64], pattern: str) -> NDArray[np.float64]:
    """Each color as the mean of its samples next to the pixel."""
    planes = []
    for color in "bgr":
        known = np.zeros_like(mosaic)
        for place, letter in enumerate(pattern):
            known[place // 2 :: 2, place % 2 :: 2] += letter == color
        mean = _neighborhood(mosaic * known) / _neighborhood(known)
        planes.append(np.where(known, mosaic, mean))
    return np.stack(planes, axis=2)


def _neighborhood(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted sum over 3 x 3 pixels: neighbors at an edge count 2, diagonal ones 1."""
    across = plane + 0.5 * (np.roll(plane, 1, axis=1) + np.roll(plane, -1, axis=1))
    return across + 0.5 * (np.roll(across, 1, axis=0) + np.roll(across, -1, axis=0))
