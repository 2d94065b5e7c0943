# SPDX-License-Identifier: Apache-2.0
"""Which faces are found, and how often something else is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from against_retinaface.detectors import Detector
from against_retinaface.scenes import Scene
from scrfd_ros.faces import FloatArray, ious

SAME = 0.4
"""Minimum IoU of a box with a face that it stands for."""


class Outcome(NamedTuple):
    """What a detector makes of some images.

    Attributes:
        heights: float32 [N], of all faces in them, pixels.
        scores: float32 [N], of the best box on each face; 0 for a face that is not found.
        false_scores: float32 [M], of all boxes that are on no face, or on one with a better box.
    """

    heights: FloatArray
    scores: FloatArray
    false_scores: FloatArray

    def recall(self, threshold: float, low: float = 0, high: float = np.inf) -> float:
        """Share of the faces of low <= height < high that are found at a score threshold."""
        chosen = (self.heights >= low) & (self.heights < high)
        return float((self.scores[chosen] >= threshold).mean())

    def precisions(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Thresholds, falling, and precision and recall at each: float64 [T] each."""
        thresholds = np.unique(np.concatenate((self.scores, self.false_scores)))[::-1]
        thresholds = thresholds[thresholds > 0].astype(np.float64)
        right = np.array([(self.scores >= threshold).sum() for threshold in thresholds])
        wrong = np.array([(self.false_scores >= threshold).sum() for threshold in thresholds])
        return thresholds, right / (right + wrong), right / len(self.scores)

    def average_precision(self) -> float:
        """Area under the envelope of precision over recall."""
        _, precisions, recalls = self.precisions()
        envelope = np.maximum.accumulate(precisions[::-1])[::-1]
        return float((np.diff(recalls, prepend=0) * envelope).sum())

    def threshold_for(self, precision: float) -> float:
        """The lowest threshold at which precision is at least this."""
        thresholds, precisions, _ = self.precisions()
        return float(thresholds[precisions >= precision].min())


def joined(outcomes: Iterable[Outcome]) -> Outcome:
    """What a detector makes of all the images."""
    return Outcome(*(np.concatenate(parts) for parts in zip(*outcomes, strict=True)))


def outcome(detector: Detector, scenes: Iterable[Scene]) -> Outcome:
    """Find faces, best first; each counts for the face that it overlaps most."""
    heights, scores, false_scores = [], [], []
    for scene in scenes:
        found = detector.detect(scene.image)
        best = np.zeros(len(scene.boxes), np.float32)
        for score, overlaps in zip(found.scores, ious(found.boxes, scene.boxes), strict=True):
            face = int(overlaps.argmax()) if len(overlaps) else 0
            if overlaps.max(initial=0) < SAME or best[face]:
                false_scores.append(score)
            else:
                best[face] = score
        heights.extend(scene.boxes[:, 3] - scene.boxes[:, 1])
        scores.extend(best)
    return Outcome(np.float32(heights), np.float32(scores), np.float32(false_scores))
