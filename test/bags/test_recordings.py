# SPDX-License-Identifier: Apache-2.0
"""Recordings that agree are equal, and every kind of difference is reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from message_objects import Rosbags

from scrfd_ros.bags.bag_writer import new_bag
from scrfd_ros.bags.message_types import FACE_ARRAY
from scrfd_ros.bags.recordings import compare_recordings, read_recordings
from scrfd_ros.bags.times import seconds
from scrfd_ros.bags.tolerances import TOLERANCES
from scrfd_ros.errors import ScrfdError
from scrfd_ros.faces import Faces
from scrfd_ros.messages.faces import ModelNames, face_array


def faces(count: int = 3, score: float = 0.8) -> Faces:
    """Faces of 100 x 100 pixels, next to each other."""
    left = 200 * np.arange(count, dtype=np.float32)[:, None]
    embeddings = np.eye(8, dtype=np.float32)[:count]
    return Faces(
        boxes=np.hstack((left, 0 * left, left + 100, 0 * left + 100)),
        scores=np.full(count, score, np.float32),
        landmarks=np.repeat(left[:, :, None], 5, axis=1).repeat(2, axis=2) + np.float32(50),
        embeddings=embeddings,
        embedding_norms=np.ones(count, np.float32),
    )


def without(row: int) -> Faces:
    keep = np.arange(3) != row
    whole = faces()
    assert whole.landmarks is not None and whole.embeddings is not None
    return Faces(
        whole.boxes[keep],
        whole.scores[keep],
        whole.landmarks[keep],
        whole.embeddings[keep],
        np.ones(2, np.float32),
    )


def moved(pixels: float) -> Faces:
    boxes = faces().boxes.copy()
    boxes[1, [0, 2]] += np.float32(pixels)
    return replace(faces(), boxes=boxes)


def turned(distance: float) -> Faces:
    """One embedding, moved by a cosine distance."""
    embeddings = np.eye(8, dtype=np.float32)[:3].copy()
    cosine = 1 - distance
    embeddings[1] = 0
    embeddings[1, 1], embeddings[1, 7] = cosine, np.sqrt(1 - cosine**2)
    return replace(faces(), embeddings=embeddings)


def with_landmark(pixels: float) -> Faces:
    landmarks = faces().landmarks
    assert landmarks is not None
    landmarks = landmarks.copy()
    landmarks[2, 3, 0] += np.float32(pixels)
    return replace(faces(), landmarks=landmarks)


SCORES = np.array([0.8, 0.83, 0.8], np.float32)
FIRST_EMBEDDED = replace(
    faces(),
    embeddings=np.eye(8, dtype=np.float32)[:3] * np.float32([[1], [0], [0]]),
    embedding_norms=np.float32([1, 0, 0]),
)
NOT_A_NUMBER = np.full((3, 8), np.nan, np.float32)
BARE = replace(faces(), landmarks=None, embeddings=None, embedding_norms=None)


def test_the_same_is_equal() -> None:
    recording = {(10, 0): faces(), (20, 0): faces(0), (30, 0): faces(1)}
    comparison = compare_recordings(recording, recording)
    assert comparison.failures == ()
    assert comparison.first_difference is None
    assert comparison.figures == {
        "frames": 3,
        "missing_frames": 0,
        "new_frames": 0,
        "faces": 4,
        "missed_faces": 0,
        "extra_faces": 0,
        "min_iou": 1,
        "max_score_difference": 0,
        "max_landmark_distance": 0,
        "max_embedding_distance": 0,
    }


def test_no_faces_and_no_embeddings_are_equal_too() -> None:
    assert not compare_recordings({(1, 0): faces(0)}, {(1, 0): faces(0)}).failures
    assert not compare_recordings({(1, 0): BARE}, {(1, 0): BARE}).failures
    assert not compare_recordings({(1, 0): FIRST_EMBEDDED}, {(1, 0): FIRST_EMBEDDED}).failures


@pytest.mark.parametrize(
    ("found", "figure", "value", "failure"),
    [
        pytest.param(without(1), "missed_faces", 1, "missed faces: 1", id="missed"),
        pytest.param(
            moved(5), "min_iou", 95 / 105, "min iou: 0.9048, expected at least 0.98", id="moved"
        ),
        pytest.param(moved(100), "missed_faces", 1, "missed faces: 1", id="moved away"),
        pytest.param(moved(100), "extra_faces", 1, "extra faces: 1", id="moved elsewhere"),
        pytest.param(
            replace(faces(), scores=SCORES), "max_score_difference", 0.03, "score", id="score"
        ),
        pytest.param(
            with_landmark(2), "max_landmark_distance", 0.02, "landmark distance", id="landmark"
        ),
        pytest.param(
            turned(0.1), "max_embedding_distance", 0.1, "embedding distance: 0.1", id="embedding"
        ),
        pytest.param(
            replace(faces(), embeddings=NOT_A_NUMBER),
            "max_embedding_distance",
            np.inf,
            "embedding distance: inf",
            id="not a number",
        ),
        pytest.param(BARE, "max_landmark_distance", np.inf, "landmark", id="no landmarks"),
        pytest.param(BARE, "max_embedding_distance", np.inf, "embedding", id="no embeddings"),
        pytest.param(
            replace(faces(), embeddings=np.ones((3, 4), np.float32)),
            "max_embedding_distance",
            np.inf,
            "embedding",
            id="another recognizer",
        ),
        pytest.param(
            FIRST_EMBEDDED, "max_embedding_distance", np.inf, "embedding", id="fewer embedded"
        ),
    ],
)
def test_a_difference_is_told(found: Faces, figure: str, value: float, failure: str) -> None:
    same = {(10, 0): faces()}
    comparison = compare_recordings(same | {(20, 0): found}, same | {(20, 0): faces()})
    assert comparison.figures[figure] == pytest.approx(value, rel=1e-4)
    assert any(failure in sentence for sentence in comparison.failures)
    assert comparison.first_difference == (20, 0)


@pytest.mark.parametrize("found", [moved(0.9), turned(0.001), with_landmark(0.9)])
def test_small_differences_are_measured_but_equal(found: Faces) -> None:
    comparison = compare_recordings({(1, 0): found}, {(1, 0): faces()})
    assert not comparison.failures
    assert comparison != compare_recordings({(1, 0): faces()}, {(1, 0): faces()})


@pytest.mark.parametrize(
    ("score", "count"), [(0.51, 0), (0.53, 1)], ids=["on the threshold", "above it"]
)
def test_faces_on_the_threshold_may_be_in_one_only(score: float, count: int) -> None:
    one, none = {(1, 0): faces(1, score)}, {(1, 0): faces(0)}
    assert compare_recordings(none, one).figures["missed_faces"] == count
    assert compare_recordings(one, none).figures["extra_faces"] == count


@pytest.mark.parametrize(
    ("change", "figures", "equal"),
    [
        (lambda frames: frames[:2], (2, 1, 0), False),
        (lambda frames: [*frames, (4, 0)], (3, 0, 1), True),
        (lambda frames: [], (0, 3, 0), False),
        (lambda frames: [(7, 0), (8, 0), (9, 0)], (0, 3, 3), False),
    ],
    ids=["one missing", "one more", "none", "all others"],
)
def test_frames(
    change: Callable[[list[tuple[int, int]]], list[tuple[int, int]]],
    figures: tuple[int, int, int],
    equal: bool,
) -> None:
    frames = [(1, 0), (2, 0), (3, 0)]
    found = {frame: faces() for frame in change(frames)}
    comparison = compare_recordings(found, {frame: faces() for frame in frames})
    names = ("frames", "missing_frames", "new_frames")
    assert tuple(comparison.figures[name] for name in names) == figures
    assert (not comparison.failures) == equal
    assert (comparison.first_difference is None) == equal


def test_two_empty_recordings_are_not_taken_for_equal() -> None:
    assert compare_recordings({}, {}).failures == ("frames: 0, expected at least 1",)


def test_seconds() -> None:
    assert seconds(1_700_000_000_000_000_007) == "1700000000.000000007"
    assert seconds(-1_500_000_000) == "-1.500000000"


@pytest.mark.parametrize(
    ("found", "within"),
    [
        (moved(0.5), {"another-backend", "another-machine"}),
        (moved(1.5), {"another-machine"}),
        (moved(3), set()),
        (turned(0.001), {"another-backend", "another-machine"}),
        (turned(0.03), {"another-machine"}),
        (turned(0.05), set()),
        (replace(faces(), scores=np.full(3, 0.825, np.float32)), {"another-machine"}),
        (with_landmark(2), {"another-machine"}),
        (with_landmark(5), set()),
        (without(1), set()),
    ],
)
def test_tolerances(found: Faces, within: set[str]) -> None:
    def is_equal(limits: Mapping[str, float]) -> bool:
        return not compare_recordings({(1, 0): found}, {(1, 0): faces()}, limits).failures

    assert {name for name, limits in TOLERANCES.items() if is_equal(limits)} == within


def test_a_face_near_the_threshold_may_be_on_one_side_only() -> None:
    sides = {(1, 0): faces(0)}, {(1, 0): faces(1, 0.525)}
    assert compare_recordings(*sides).failures
    assert not compare_recordings(*sides, TOLERANCES["another-machine"]).failures


@pytest.mark.parametrize("count", [1, 3])
def test_faces_in_an_older_layout_are_told(tmp_path: Path, count: int) -> None:
    """As before a face said who it belongs to. The bag does not tell."""
    models = ModelNames("scrfd", "", "arcface", "")
    found = replace(faces(count), landmarks=None)
    data = face_array(found, Rosbags().header(1, 0, "camera"), models)
    nobody = bytes([1, 0, 0, 0, 0, 0, 0, 0] * 2 + [0] * 9)  # two empty strings, and zeros
    *parts, last = data.split(nobody)
    assert (len(parts), last) == (count, b"")
    # Where the next face began at a multiple of 4 it still does.
    with new_bag(tmp_path / "bag", "sqlite3") as bag:
        bag.add_topic("/faces", FACE_ARRAY)
        bag.write("/faces", 10**9, b"".join(parts))
    with pytest.raises(ScrfdError, match="another version of scrfd_ros wrote it, replay again"):
        read_recordings(tmp_path / "bag")
