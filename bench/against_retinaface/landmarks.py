# SPDX-License-Identifier: Apache-2.0
"""How steady landmarks are, and what they make of embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from against_retinaface.detectors import Detector
from against_retinaface.scenes import Photograph, Portrait, Square, grids, surroundings
from against_retinaface.scoring import SAME
from scrfd_ros.faces import Faces, FloatArray, ious
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.recognition.arcface import ArcFace

TURNS = 16
"""How often each face is moved, scaled and made noisy."""

SHIFT, SCALE, NOISE = 4.0, 0.05, 3.0
"""At most, pixels and part of the size; and the noise's standard deviation, of 255."""


def scatter(
    detectors: Mapping[str, Detector], faces: Sequence[Portrait], height: float
) -> tuple[dict[str, float], int]:
    """How far a landmark moves on a face that is moved, scaled and made noisy.

    Returns:
        By detector, the median over all faces of the root mean square distance of a landmark from
        its mean place on that face, as a part of the face's height; and the number of faces, which
        are those that every detector finds every time.
    """
    rng = np.random.default_rng(0)

    def way(face: Portrait, height: float, side: int) -> Square:
        scale = rng.uniform(1 - SCALE, 1 + SCALE)
        square = surroundings(face, height * scale, side, 0, rng.uniform(-SHIFT, SHIFT, 2))
        noise = rng.normal(0, NOISE, square.image.shape)
        return Square(np.clip(square.image + noise, 0, 255).astype(np.uint8), square.box)

    places: dict[str, list[FloatArray]] = {name: [] for name in detectors}
    for _ in tqdm(range(TURNS), f"landmarks, {height:g} pixels", leave=False, disable=None):
        scenes = list(grids(faces, height, way))
        for name, detector in detectors.items():
            places[name].append(
                np.concatenate(
                    [
                        on_faces(landmarks_of(detector.detect(s.image), s.boxes), s.boxes)
                        for s in scenes
                    ]
                )
            )
    of_all = {name: np.stack(each) for name, each in places.items()}  # [turns, faces, 5, 2]
    known = np.all([np.isfinite(each).all(axis=(0, 2, 3)) for each in of_all.values()], axis=0)
    moved = {name: each[:, known] - each[:, known].mean(axis=0) for name, each in of_all.items()}
    return {
        name: float(np.median(np.sqrt((each**2).sum(axis=3).mean(axis=(0, 2)))))
        for name, each in moved.items()
    }, int(known.sum())


def landmarks_of(found: Faces, boxes: FloatArray) -> FloatArray:
    """Landmarks [N, 5, 2] of the faces in these boxes [N, 4]; not a number where none is found."""
    landmarks = np.full((len(boxes), 5, 2), np.nan, np.float32)
    if len(found):
        overlaps = ious(boxes, found.boxes)
        sure = overlaps.max(axis=1) >= SAME
        landmarks[sure] = found.landmarks[overlaps.argmax(axis=1)[sure]]
    return landmarks


def on_faces(landmarks: FloatArray, boxes: FloatArray) -> FloatArray:
    """Landmarks from the box's center, as parts of its height."""
    centers = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    return (landmarks - centers) / (boxes[:, 3] - boxes[:, 1])[:, None, None]


class Compatibility(NamedTuple):
    """Embeddings of the same faces, aligned by the landmarks of two detectors.

    Attributes:
        own: float64 [N], cosine of a face with itself.
        others: float64 [M], cosine of each face by the one with each other person by the other.
        distances: float64 [N], mean distance of a landmark, as a part of the face's height.
    """

    own: NDArray[np.float64]
    others: NDArray[np.float64]
    distances: NDArray[np.float64]


def compatibility(
    one: Detector,
    other: Detector,
    recognizer: ArcFace,
    photographs: Sequence[Photograph],
    people: NDArray[np.str_],
) -> Compatibility:
    """Compare what two detectors make of the faces that both find.

    Args:
        people: str [N], who is who, of all faces of all photographs.
    """
    embeddings, distances, kept = [], [], []
    for _, image, boxes in photographs:
        both = [landmarks_of(detector.detect(image), boxes) for detector in (one, other)]
        found = np.isfinite(both).all(axis=(0, 2, 3))
        kept.extend(found)
        aligned = [align_faces(image, landmarks[found]) for landmarks in both]
        embeddings.append([recognizer.embed(crops)[0] for crops in aligned])
        apart = np.diff([on_faces(each, boxes)[found] for each in both], axis=0)[0]
        distances.extend(np.linalg.norm(apart, axis=2).mean(axis=1))
    ours, theirs = (np.concatenate(side) for side in zip(*embeddings, strict=True))
    cosines = ours.astype(np.float64) @ theirs.T
    names = people[np.array(kept)]
    return Compatibility(cosines.diagonal(), cosines[names[:, None] != names], np.array(distances))
