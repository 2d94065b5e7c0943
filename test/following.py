# SPDX-License-Identifier: Apache-2.0
"""Images for a tracker, one after the other, none of which is given up."""

from __future__ import annotations

from scrfd_ros.faces import Faces
from scrfd_ros.tracking.tracker import TrackedFaces, Tracker


def follow(tracker: Tracker, faces: Faces, time: float, epoch: int = 0) -> TrackedFaces:
    """The next image of a tracker, without embeddings."""
    tracked = tracker.match(faces, time, epoch)
    tracker.commit(tracked)
    return tracked
