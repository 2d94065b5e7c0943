# SPDX-License-Identifier: Apache-2.0
"""Read the faces in bags, and compare those of two recordings of the same images."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from scrfd_ros.bags.bag import open_bag
from scrfd_ros.bags.message_types import FACE_ARRAY, TYPES, deserialize
from scrfd_ros.bags.times import nanoseconds, seconds
from scrfd_ros.bags.tolerances import TOLERANCES
from scrfd_ros.engines.agreement import SCORE_THRESHOLD, compare_faces, judge, worst
from scrfd_ros.errors import MessageError, ScrfdError
from scrfd_ros.faces import Faces
from scrfd_ros.messages.faces import faces_of

_LOG = logging.getLogger(__name__)

FrameKey = tuple[int, int]
"""The stamp of an image, nanoseconds, and a count from 0 for images with the same stamp."""


@dataclass(frozen=True)
class Comparison:
    """What a comparison measured.

    Attributes:
        figures: name and value of each figure.
        failures: a sentence for each figure that is outside its limit.
        first_difference: the first frame of the reference that is missing or outside a limit; None
            if there is none.
    """

    figures: dict[str, float]
    failures: tuple[str, ...]
    first_difference: FrameKey | None


class Recording(NamedTuple):
    """The faces on one topic of a bag.

    Attributes:
        models: names of the detector and the recognizer.
        frames: the faces of each image.
    """

    models: str
    frames: dict[FrameKey, Faces]


def read_recordings(path: Path) -> dict[str, Recording]:
    """Read the faces in a bag that was replayed or recorded from a node.

    Returns:
        A recording for each topic of FaceArray messages.

    Raises:
        ScrfdError: the bag is damaged, or has no FaceArray messages of this version.
    """
    with open_bag(path) as bag:
        topics = bag.topics(FACE_ARRAY)
        if not topics:
            raise ScrfdError(
                f"{path}: it has no topic of the type {FACE_ARRAY}; expected a bag that `scrfd "
                f"replay` wrote, or one with the node's `faces`"
            )
        if {topic.digest for topic in topics} - {"", TYPES.hash_rihs01(FACE_ARRAY)}:
            raise ScrfdError(
                f"{path}: its {FACE_ARRAY} is of another version of scrfd_ros; replay again"
            )
        recordings = {topic.name: Recording("", {}) for topic in topics}
        repeats: Counter[tuple[str, int]] = Counter()
        for topic, kind, _, data in bag.records(topics):
            try:
                message = deserialize(data, kind)
                faces = faces_of(message)
            except MessageError as error:
                raise ScrfdError(
                    f"{path}, {topic}: {error}; if another version of scrfd_ros wrote it, replay "
                    f"again"
                ) from error
            stamp = nanoseconds(message.header.stamp)
            frames = recordings[topic].frames
            frames[stamp, repeats[topic, stamp]] = faces
            repeats[topic, stamp] += 1
            models = " + ".join(filter(None, (message.detector, message.recognizer)))
            recordings[topic] = Recording(models, frames)
        if bag.damage:
            raise ScrfdError(f"{bag.damage[0]}; or replay again")
    if not any(recording.frames for recording in recordings.values()):
        raise ScrfdError(
            f"{path}: there is no message on {', '.join(recordings)} to compare with; replay a bag "
            f"with images"
        )
    return recordings


def compare(
    found: Mapping[str, Recording],
    golden: Mapping[str, Recording],
    limits: Mapping[str, float] = TOLERANCES["another-backend"],
) -> dict[str, Comparison]:
    """Compare recordings of the same topics. Two single topics may have different names.

    Args:
        limits: one of `TOLERANCES`.

    Returns:
        How well `found` agrees with each topic of `golden`.
    """
    if len(found) == len(golden) == 1:
        found = dict(zip(golden, found.values(), strict=True))
    nothing = Recording("", {})
    for topic, expected in golden.items():
        _warn_of_repeated_stamps(topic, found.get(topic, nothing).frames, expected.frames)
    return {
        topic: compare_recordings(found.get(topic, nothing).frames, expected.frames, limits)
        for topic, expected in golden.items()
    }


def compare_recordings(
    found: Mapping[FrameKey, Faces],
    expected: Mapping[FrameKey, Faces],
    limits: Mapping[str, float] = TOLERANCES["another-backend"],
) -> Comparison:
    """Compare the faces found in the frames of one camera with those of a reference.

    A face that only one side has counts only if its score is above the threshold by more than the
    limit for score differences, so that no face fails for lying on the threshold. Frames that only
    `found` has are not a failure, because a live node drops frames.

    Args:
        found, expected: the faces of each frame.
        limits: one of `TOLERANCES`.

    Returns:
        Figures over all frames. frames: in both; missing_frames: in `expected` only; new_frames: in
        `found` only. faces: those in both, matched by IoU; missed_faces: in `expected` only;
        extra_faces: in `found` only. Of the faces in both: min_iou of the boxes,
        max_score_difference, max_landmark_distance relative to the square root of the box's area,
        and max_embedding_distance, 1 - cosine. A distance is infinite if only one side has
        landmarks or embeddings.
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
        frame: dict[str, float] = {"missing_frames": 1}
        if key in found:
            frame = _compare_frame(found[key], reference, limits["max_score_difference"])
        if first_difference is None and judge(frame, limits):
            first_difference = key
        figures = worst((figures, frame))
    return Comparison(figures, judge(figures, limits), first_difference)


def _compare_frame(found: Faces, expected: Faces, score_difference: float) -> dict[str, float]:
    differences = compare_faces(found, expected, SCORE_THRESHOLD + score_difference)
    figures = differences.figures | {"faces": len(differences.values["min_iou"])}
    if "min_cosine" in figures:
        figures["max_embedding_distance"] = 1 - figures.pop("min_cosine")
    return figures


def _warn_of_repeated_stamps(
    topic: str, found: Iterable[FrameKey], golden: Iterable[FrameKey]
) -> None:
    ours, theirs = (Counter(stamp for stamp, _ in keys) for keys in (found, golden))
    for stamp in sorted(ours.keys() & theirs.keys()):
        if ours[stamp] != theirs[stamp]:
            _LOG.warning(
                "%s: %d images here and %d there have the stamp %s: they are compared in their "
                "order, so that different images may be compared. Replay the bag for both",
                topic,
                ours[stamp],
                theirs[stamp],
                seconds(stamp),
            )
            return
