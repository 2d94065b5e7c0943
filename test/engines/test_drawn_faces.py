# SPDX-License-Identifier: Apache-2.0
"""The real networks find the drawn faces at every usual input size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pipelines import detector_of

from scrfd_ros.engines.drawn_faces import drawn_faces, drawn_landmarks
from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.recognition.arcface import ArcFace


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("500m", (640, 640)),
        ("500m", (128, 128)),
        ("500m", (320, 320)),
        ("500m", (640, 384)),
        ("500m", (1280, 1280)),
        ("2.5g", (640, 640)),
        ("det_500m", (640, 640)),
    ],
)
def test_all_are_found(
    name: str, size: tuple[int, int], detector_path: Callable[[str], Path]
) -> None:
    faces = detector_of(OnnxRuntimeNetwork(detector_path(name)), size).detect(drawn_faces())
    assert len(faces) == 4
    assert faces.scores.min() > 0.65
    assert faces.landmarks is not None
    for expected in drawn_landmarks():
        distances = np.linalg.norm(faces.landmarks - expected, axis=2).max(axis=1)
        row = distances.argmin()
        # At 128x128 the smallest face has 20 pixels.
        assert distances[row] < 0.1 * np.sqrt(faces.sizes[row].prod())


def test_recognizer_tells_them_apart(recognizer_path: Callable[[str], Path]) -> None:
    recognizer = ArcFace(OnnxRuntimeNetwork(recognizer_path("w600k_mbf")))
    embeddings, _ = recognizer.embed(align_faces(drawn_faces(), drawn_landmarks()))
    cosines = embeddings @ embeddings.T
    assert cosines[~np.eye(4, dtype=bool)].max() < 0.97


def test_always_the_same() -> None:
    np.testing.assert_array_equal(drawn_faces(), drawn_faces())
    assert drawn_faces().shape == (640, 640, 3) and drawn_faces().dtype == np.uint8
