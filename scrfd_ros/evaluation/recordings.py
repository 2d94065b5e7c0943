"""How far the faces of two recordings of the same images agree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.evaluation.parity import LIMITS, SAME_FACE_IOU, SCORE_THRESHOLD, ious
from scrfd_ros.faces import Faces

FrameKey = tuple[int, int]
"""The stamp of an image, nanoseconds, and a number from 0 on for images of the same stamp."""

_FLOAT = LIMITS["fp32"]
_AT_LEAST = ("frames", "min_iou")
RECORDING_LIMITS: Mapping[str, float] = {
    "frames": 1,
    "missing_frames": 0,
    "missed_faces": 0,
    "extra_faces": 0,
    "min_iou": _FLOAT["min_iou"],
    "max_score_difference": _FLOAT["max_score_difference"],
    "max_landmark_distance": _FLOAT["max_landmark_distance"],
    "max_embedding_distance": round(1 - _FLOAT["min_cosine"], 6),
}
"""The worst figures at which two recordings count as equal: those at which an engine counts as
equal to its model, so that the backend and the machine may change."""


@dataclass(frozen=True)
class Comparison:
    """What a comparison measured.

    Attributes:
        figures: name and value of each figure.
        failures: a sentence for each figure that is outside its limit.
        first_difference: the first frame of the reference that is missing or outside a limit; None
            if none is.
    """

    figures: dict[str, float]
    failures: tuple[str, ...]
    first_difference: FrameKey | None


def compare_recordings(
    found: Mapping[FrameKey, Faces], expected: Mapping[FrameKey, Faces]
) -> Comparison:
    """Compare the faces found in the frames of one camera with those of a reference.

    A face that one of the two lacks counts only if it scores more than the threshold by the limit
    of the score's difference: none fails for lying on the threshold. Frames that only `found` has
    are no failure, as a node that works live drops frames.

    Args:
        found, expected: the faces of each frame.

    Returns:
        Figures over all frames. frames: in both; missing_frames: in `expected` only; new_frames: in
        `found` only. faces: those in both, matched by IoU; missed_faces: in `expected` only;
        extra_faces: in `found` only. Of the faces in both: min_iou of the boxes,
        max_score_difference, max_landmark_distance relative to the square root of the box's area,
        and max_embedding_distance, 1 - cosine. What only one of the two has, landmarks or
        embeddings, is infinitely far.
    """
    figures: dict[str, float] = {
        "frames": len(expected.keys() & found.keys()),
        "missing_frames": len(expected.keys() - found.keys()),
        "new_frames": len(found.keys() - expected.keys()),
        "faces": 0,
        "missed_faces": 0,
        "extra_faces": 0,
        "min_iou": 1,
        "max_score_difference": 0,
        "max_landmark_distance": 0,
        "max_embedding_distance": 0,
    }
    first_difference = None
    for key, reference in expected.items():
        frame = _compare_frame(found[key], reference) if key in found else {"missing_frames": 1.0}
        if first_difference is None and _failures(frame):
            first_difference = key
        for name, value in frame.items():
            if name == "min_iou":
                figures[name] = min(figures[name], value)
            elif name.startswith("max_"):
                figures[name] = max(figures[name], value)
            elif name != "missing_frames":
                figures[name] += value
    return Comparison(figures, tuple(_failures(figures)), first_difference)


def seconds(nanoseconds: int) -> str:
    """A time as ROS tools write it, seconds with nine decimals."""
    whole, rest = divmod(nanoseconds, 10**9)
    return f"{whole}.{rest:09}"


def _compare_frame(found: Faces, expected: Faces) -> dict[str, float]:
    overlaps = ious(found.boxes, expected.boxes)
    ours, theirs = np.nonzero(
        (overlaps >= SAME_FACE_IOU)
        & (overlaps == overlaps.max(axis=0, initial=0))
        & (overlaps == overlaps.max(axis=1, initial=0, keepdims=True))
    )
    certain = SCORE_THRESHOLD + RECORDING_LIMITS["max_score_difference"]
    missed, extra = np.delete(expected.scores, theirs), np.delete(found.scores, ours)
    figures: dict[str, float] = {
        "faces": len(ours),
        "missed_faces": int((~(missed <= certain)).sum()),
        "extra_faces": int((~(extra <= certain)).sum()),
    }
    if not len(ours):
        return figures
    figures["min_iou"] = overlaps[ours, theirs].min().item()
    figures["max_score_difference"] = _largest(found.scores[ours] - expected.scores[theirs])
    if found.landmarks is not None and expected.landmarks is not None:
        moved = np.linalg.norm(found.landmarks[ours] - expected.landmarks[theirs], axis=2)
        size = np.sqrt(expected.sizes[theirs].prod(axis=1))
        figures["max_landmark_distance"] = _largest(moved.max(axis=1) / size)
    elif found.landmarks is not expected.landmarks:
        figures["max_landmark_distance"] = math.inf
    if found.embeddings is not None and expected.embeddings is not None:
        if found.embeddings.shape[1] != expected.embeddings.shape[1]:
            figures["max_embedding_distance"] = math.inf
        else:
            cosines = (found.embeddings[ours] * expected.embeddings[theirs]).sum(axis=1)
            figures["max_embedding_distance"] = _largest(1 - cosines)
    elif found.embeddings is not expected.embeddings:
        figures["max_embedding_distance"] = math.inf
    return figures


def _largest(differences: NDArray[Any]) -> float:
    """The largest of the differences, whatever their sign; infinite if one is not a number."""
    return float(np.nan_to_num(np.abs(differences), nan=np.inf, posinf=np.inf).max())


def _failures(figures: Mapping[str, float]) -> list[str]:
    failures = []
    for name, limit in RECORDING_LIMITS.items():
        value = figures.get(name, limit)
        least = name in _AT_LEAST
        if value < limit if least else value > limit:
            bound = "at least" if least else "at most"
            failures.append(f"{name.replace('_', ' ')}: {value:.4g}, {bound} {limit:g} wanted")
    return failures
