# SPDX-License-Identifier: Apache-2.0
"""How much two recordings of the same images may differ. Needs no rosbags."""

from __future__ import annotations

from collections.abc import Mapping

from scrfd_ros.engines.agreement import LIMITS

_FLOAT = LIMITS["fp32"]
_COUNTS = {"frames": 1, "missing_frames": 0, "missed_faces": 0, "extra_faces": 0}
TOLERANCES: Mapping[str, Mapping[str, float]] = {
    "another-backend": _COUNTS
    | {
        "min_iou": _FLOAT["min_iou"],
        "max_score_difference": _FLOAT["max_score_difference"],
        "max_landmark_distance": _FLOAT["max_landmark_distance"],
        "max_embedding_distance": round(1 - _FLOAT["min_cosine"], 6),
    },
    "another-machine": _COUNTS
    | {
        "min_iou": 0.96,
        "max_score_difference": 0.03,
        "max_landmark_distance": 0.04,
        "max_embedding_distance": 0.04,
    },
}
"""The worst figures at which two recordings count as equal, by how they were made.

another-backend: on machines of one kind. These are the limits at which an engine counts as equal to
its model. another-machine: one on x86_64 and one on aarch64, where OpenCV scales images by other
roundings. docs/opencv-aarch64.md has the measurements.
"""
