# SPDX-License-Identifier: Apache-2.0
"""Bright spots on black in place of faces, and a network that knows exactly where they are.

A stand-in for real networks, whose own errors are larger than what is looked for here. A spot's
brightness falls with the square of the cosine, to zero at its box: the box follows from the mean
and the spread of the brightness, to some hundredths of a pixel, whatever the scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.inference.network import Tensor

_SPREAD = np.sqrt(1 / 3 - 2 / np.pi**2)
"""Standard deviation of cos(pi x / 2)**2 between -1 and 1."""

_STRIDES = (8, 16, 32)
_KINDS = {"score": 1, "bbox": 4, "kps": 10}
LANDMARKS = np.array([[-0.5, -0.5], [0.5, -0.5], [0, 0], [-0.5, 0.5], [0.5, 0.5]])
"""Landmarks of a spot relative to its center, in halves of its box."""


def draw_spots(size: tuple[int, int], boxes: Sequence[Sequence[float]]) -> NDArray[np.uint8]:
    """Spots that fill these boxes, x1, y1, x2, y2, from the outer corner of the first pixel."""
    width, height = size
    brightness = np.zeros((height, width))
    for x1, y1, x2, y2 in boxes:
        across, down = (
            np.cos(np.clip((np.arange(length) + 0.5 - low) / (high - low) - 0.5, -0.5, 0.5) * np.pi)
            for length, low, high in ((width, x1, x2), (height, y1, y2))
        )
        brightness += np.outer(down**2, across**2)
    return np.repeat(np.round(255 * brightness)[..., None], 3, axis=2).astype(np.uint8)


def spot_landmarks(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Landmarks of spots, [N, 5, 2]."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    return (middle[:, None] + half[:, None] * LANDMARKS).astype(np.float32)


class SpotNetwork:
    """Finds every whole spot on its inputs; has the outputs of an SCRFD network."""

    path = Path("spots.onnx")
    name, sha256, backend = "spots", "0" * 64, "test"
    inputs = (Tensor("input.1", (None, 3, None, None)),)
    outputs = tuple(
        Tensor(f"{kind}_{s}", ()) for kind in ("score", "bbox", "kps") for s in _STRIDES
    )
    normalizes_input = True
    max_batch = None

    def __init__(self, on_gpu: bool = False) -> None:
        self.on_gpu = on_gpu
        self.device = None
        self.batches: list[int] = []

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        blob = inputs["input.1"]
        self.batches.append(len(blob))
        count, _, height, width = blob.shape
        found = {
            f"{kind}_{stride}": np.zeros(
                (count, width // stride * (height // stride) * 2, columns), np.float32
            )
            for kind, columns in _KINDS.items()
            for stride in _STRIDES
        }
        for number, (plane, *_) in enumerate(blob):
            for x1, y1, x2, y2 in _spots(plane):
                x, y = int((x1 + x2) / 16), int((y1 + y2) / 16)
                row = 2 * (y * (width // 8) + x)
                box = np.array([[x1, y1, x2, y2]])
                found["score_8"][number, row] = 0.9
                sides = (x - x1 / 8, y - y1 / 8, x2 / 8 - x, y2 / 8 - y)
                found["bbox_8"][number, row] = sides
                points = spot_landmarks(box)[0] / 8 - (x, y)
                found["kps_8"][number, row] = points.reshape(-1)
        return found

    def device_milliseconds(self) -> dict[str, float]:
        return {}


def _spots(plane: NDArray[np.float32]) -> list[tuple[float, float, float, float]]:
    """Boxes of the spots on a plane of 0 to 255."""
    stats = cv2.connectedComponentsWithStats((plane > 0).astype(np.uint8))[2]
    boxes = []
    for left, top, width, height, _ in stats[1:]:
        part = plane[top : top + height, left : left + width].astype(np.float64)
        box: list[float] = []
        for begin, length, brightness in (
            (left, width, part.sum(axis=0)),
            (top, height, part.sum(axis=1)),
        ):
            at = begin + np.arange(length) + 0.5
            middle = np.average(at, weights=brightness)
            # Brightness is assumed to be even within a pixel: its variance is 1/12.
            half = np.sqrt(np.average((at - middle) ** 2, weights=brightness)) / _SPREAD
            if abs(2 * half - length) > 0.25 * length + 2:
                break  # cut off
            box += [middle - half, middle + half]
        else:
            boxes.append((box[0], box[2], box[1], box[3]))
    return boxes
