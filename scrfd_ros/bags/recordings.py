# SPDX-License-Identifier: Apache-2.0
"""How far the faces of two recordings of the same images agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scrfd_ros.engines.agreement import (
    LIMITS,
    SCORE_THRESHOLD,
    compare_faces,
    judge,
    worst,
)
from scrfd_ros.faces import Faces

FrameKey = tuple[int, int]
"""The stamp of an image, nanoseconds, and a number from 0 on for images of the same stamp."""

_FLOAT = LIMITS["fp32"]
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
        "missing_frames": 0,
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
        frame = _compare_frame(found[key], reference) if key in found else {"missing_frames": 1}
        if first_difference is None and judge(frame, RECORDING_LIMITS):
            first_difference = key
        figures = worst((figures, frame))
    return Comparison(figures, judge(figures, RECORDING_LIMITS), first_difference)


def seconds(nanoseconds: int) -> str:
    """A time as ROS tools write it, seconds with nine decimals."""
    whole, rest = divmod(abs(nanoseconds), 10**9)
    return f"{'-' if nanoseconds < 0 else ''}{whole}.{rest:09}"


def _compare_frame(found: Faces, expected: Faces) -> dict[str, float]:
    certain = SCORE_THRESHOLD + RECORDING_LIMITS["max_score_difference"]
    differences = compare_faces(found, expected, certain)
    figures = differences.figures | {"faces": len(differences.values["min_iou"])}
    if "min_cosine" in figures:
        figures["max_embedding_distance"] = 1 - figures.pop("min_cosine")
    return figures
