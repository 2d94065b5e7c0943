# SPDX-License-Identifier: Apache-2.0
"""Ids stay with faces, and only new and changed faces are embedded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from clips import people_passing
from following import follow
from numpy.typing import NDArray
from pipelines import loaded

from scrfd_ros.config import TrackingConfig
from scrfd_ros.faces import Faces
from scrfd_ros.tracking.tracker import Tracker


def faces_at(*places: tuple[float, float], size: float = 40) -> Faces:
    """Faces of one size with their middles at these places, pixels."""
    centers = np.array(places, np.float32).reshape(-1, 2)
    boxes = np.hstack((centers - size / 2, centers + size / 2)).astype(np.float32)
    return Faces(boxes=boxes, scores=np.full(len(centers), 0.9, np.float32))


def ids(tracker: Tracker, faces: Faces, time: float) -> list[int]:
    found = follow(tracker, faces, time).faces.ids
    assert found is not None and len(set(found.tolist())) == len(found)
    numbers: list[int] = found.tolist()
    return numbers


def test_ids_count_from_one_and_stay() -> None:
    tracker = Tracker()
    assert ids(tracker, faces_at((50, 50), (150, 50)), 0.0) == [1, 2]
    assert ids(tracker, faces_at((52, 50), (148, 50)), 0.1) == [1, 2]
    assert ids(tracker, faces_at((146, 50), (54, 50), (300, 50)), 0.2) == [2, 1, 3]


def test_no_faces() -> None:
    tracker = Tracker()
    assert ids(tracker, faces_at(), 0.0) == []
    assert ids(tracker, faces_at((50, 50)), 0.1) == [1]
    assert ids(tracker, faces_at(), 0.2) == []
    assert ids(tracker, faces_at((50, 50)), 0.3) == [1]


@pytest.mark.parametrize(("missed", "expected"), [(0.9, 1), (1.1, 2)], ids=["short", "long"])
def test_a_face_that_is_missed(missed: float, expected: int) -> None:
    tracker = Tracker(TrackingConfig(max_age=1.0))
    ids(tracker, faces_at((50, 50)), 0.0)
    assert ids(tracker, faces_at((50, 50)), missed) == [expected]


def test_everybody_is_new_when_time_starts_anew() -> None:
    tracker = Tracker()
    ids(tracker, faces_at((50, 50)), 10.0)
    found = follow(tracker, faces_at((50, 50)), 1.0, epoch=1).faces.ids
    assert found is not None and found.tolist() == [2], "and no id is used twice"
    found = follow(tracker, faces_at((50, 50)), 1.0, epoch=1).faces.ids
    assert found is not None and found.tolist() == [2]


def test_the_order_of_the_faces_does_not_matter() -> None:
    random = np.random.default_rng(0)
    places = random.uniform(0, 2000, (50, 2))
    order = random.permutation(50)
    one, other = Tracker(), Tracker()
    for time in np.arange(5) / 10:
        moved = [tuple(place) for place in places + 20 * time]
        straight = ids(one, faces_at(*moved), time)
        mixed = ids(other, faces_at(*(moved[row] for row in order)), time)
        assert mixed == [straight[row] for row in order]


def test_who_is_embedded() -> None:
    tracker = Tracker(TrackingConfig(refresh_period=1.0))
    embedding = np.eye(2, 8, dtype=np.float32)
    tracked = tracker.match(faces_at((50, 50), (150, 50)), 0.0)
    assert tracked.rows.tolist() == [0, 1], "new ones"
    tracker.commit(tracked.learn(tracked.rows, embedding, np.array([20, 30], np.float32)))
    tracked = tracker.match(faces_at((150, 50), (50, 50)), 0.1)
    assert tracked.rows.tolist() == []
    tracked = tracked.learn(tracked.rows, embedding[:0], np.zeros(0, np.float32))
    np.testing.assert_array_equal(tracked.faces.embeddings, embedding[::-1])
    np.testing.assert_array_equal(tracked.faces.embedding_norms, [30, 20])
    tracker.commit(tracked)
    tracked = tracker.match(faces_at((150, 50), (50, 50)), 1.2)
    assert sorted(tracked.rows.tolist()) == [0, 1], "after the refresh period"


def test_an_eager_face_is_embedded_again_soon() -> None:
    tracker = Tracker()
    embedded = []
    for number in range(1, 8):
        tracker.eager = frozenset({2})
        tracked = tracker.match(faces_at((50, 50), (150, 50)), number / 10)
        ones = np.ones((len(tracked.rows), 1), np.float32)
        tracker.commit(tracked.learn(tracked.rows, ones, ones[:, 0]))
        embedded.append(tracked.rows.tolist())
    assert embedded == [[0, 1], [], [1], [], [1], [], [1]]


def test_a_face_that_grows_is_embedded_again() -> None:
    tracker = Tracker()
    tracked = tracker.match(faces_at((50, 50)), 0.0)
    embedding = np.eye(1, 8, dtype=np.float32)
    tracker.commit(tracked.learn(tracked.rows, embedding, np.ones(1, np.float32)))
    assert follow(tracker, faces_at((50, 50), size=44), 0.1).rows.tolist() == []
    assert follow(tracker, faces_at((50, 50), size=66), 0.2).rows.tolist() == [0]


def test_who_meets_another_and_turns_back_keeps_the_id() -> None:
    """They walk towards each other at 200 pixels a second; one of them is hidden for one image."""
    tracker, who = Tracker(), np.eye(2, dtype=np.float32)
    for number in range(30):
        away = 13 * abs(number - 15)
        places = ((320 - away, 50), (334 + away, 50))
        people = (1,) if number == 15 else (0, 1)  # the second one is in front
        tracked = tracker.match(faces_at(*(places[each] for each in people)), number / 15)
        embeddings = who[[people[row] for row in tracked.rows]]
        tracked = tracked.learn(tracked.rows, embeddings, np.ones(len(embeddings), np.float32))
        tracker.commit(tracked)
        assert tracked.faces.ids is not None
        assert tracked.faces.ids.tolist() == [each + 1 for each in people], number


def test_what_is_not_committed_leaves_no_trace() -> None:
    tracker = Tracker()
    first = follow(tracker, faces_at((50, 50), (150, 50)), 0.0)
    state, tracks = tracker._state, tracker._state.tracks.copy()
    embeddings, norms = np.eye(2, 8, dtype=np.float32), np.ones(2, np.float32)
    tracked = tracker.match(faces_at((60, 50), (140, 50)), 0.1)
    learned = tracked.learn(tracked.rows, embeddings, norms)
    again = tracked.learn(tracked.rows, embeddings, norms)
    np.testing.assert_array_equal(again.faces.embeddings, learned.faces.embeddings)
    assert tracked.faces.embeddings is None and tracked.rows.tolist() == [0, 1]
    assert tracker._state is state
    np.testing.assert_array_equal(state.tracks, tracks)
    tracker.commit(learned)
    for stale in (first, tracked, learned, Tracker().match(faces_at((50, 50)), 0.2)):
        with pytest.raises(ValueError, match=r"matched by another tracker, or before another"):
            tracker.commit(stale)
    (embedded,) = (
        follow(tracker, faces_at((60, 50)), 0.2)
        .learn(np.zeros(0, np.intp), embeddings[:0], norms[:0])
        .faces.embeddings
    )
    np.testing.assert_array_equal(embedded, embeddings[0])


def test_people_who_pass_each_other(
    detector_path: Callable[[str], Path],
    recognizer_path: Callable[[str], Path],
    image: Callable[[str], NDArray[np.uint8]],
) -> None:
    pipeline = loaded(
        detector_path("500m"),
        recognizer_path("w600k_mbf"),
        backend="onnxruntime",
        input_size=(640, 480),
    )
    assert pipeline.recognizer is not None
    embedded = 0
    embed = pipeline.recognizer.embed

    def counted(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        nonlocal embedded
        embedded += len(crops)
        return embed(crops)

    pipeline.recognizer.embed = counted  # type: ignore[method-assign]
    tracker = Tracker()
    names: dict[int, list[str]] = {}
    count = 0
    for frame in people_passing(image, 8.0, rate=15.0):
        faces = pipeline(frame.image, tracker, frame.time).faces
        assert faces.ids is not None
        count += len(faces)
        for number, center in zip(faces.ids.tolist(), faces.centers, strict=True):
            near = {
                name: float(np.hypot(*(center - (box[:2] + box[2:]) / 2)))
                for name, box in frame.boxes.items()
            }
            names.setdefault(number, []).append(min(near, key=near.__getitem__))
    right = sum(max(map(who.count, who)) for who in names.values())
    print(f"{count} face-frames, {embedded} embedded, {len(names)} ids, {right} right")
    assert count > 600
    assert embedded < count / 10
    assert right > 0.97 * count
