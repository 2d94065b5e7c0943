# SPDX-License-Identifier: Apache-2.0
"""Ids are valid for any faces, and stay with people as long as the tracker's docs promise."""

from __future__ import annotations

from typing import Any

import numpy as np
from following import follow
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from numpy.typing import NDArray

from scrfd_ros.config import TrackingConfig
from scrfd_ros.faces import Faces, FloatArray, boxes_around
from scrfd_ros.tracking.tracker import OTHER_PERSON, SAME_PERSON, Tracker

DIMENSIONS = 32
CROWD = 12

steps = st.sampled_from((0.0, 1 / 30, 0.1, 0.3, 1.0, 3.0))
seeds = st.integers(0, 2**32 - 1)


def faces_at(centers: NDArray[np.float64], sizes: NDArray[np.float64] | float) -> Faces:
    """Faces with these centers [N, 2] and sizes, [N, 2] or one for all, pixels."""
    centers = np.asarray(centers, np.float64).reshape(-1, 2)
    boxes = boxes_around(centers, np.broadcast_to(sizes, centers.shape))
    return Faces(boxes=boxes, scores=np.full(len(boxes), 0.9, np.float32))


def unit_rows(rows: NDArray[np.float64]) -> FloatArray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-9), np.float32)


PEOPLE = np.linalg.qr(np.random.default_rng(0).standard_normal((DIMENSIONS, DIMENSIONS)))[0]
"""Embeddings of different people: their cosines are 0."""


def views_of(people: NDArray[np.intp], likeness: float | NDArray[np.float64]) -> FloatArray:
    """Embeddings with this cosine to those of their people, and 0 to all others."""
    nobody = PEOPLE[CROWD + people % (DIMENSIONS - CROWD)]
    likeness = np.broadcast_to(likeness, len(people))[:, None]
    return unit_rows(likeness * PEOPLE[people] + np.sqrt(1 - likeness**2) * nobody)


def ids_of(faces: Faces) -> list[int]:
    assert faces.ids is not None
    numbers: list[int] = faces.ids.tolist()
    return numbers


class AnythingGoes(RuleBasedStateMachine):
    """Faces that appear, disappear, overlap and look alike at random, and time that starts anew."""

    @initialize(
        max_age=st.sampled_from((0.0, 0.5, 2.0)),
        refresh=st.sampled_from((0.0, 1.0, 5.0)),
        recognizes=st.booleans(),
        seed=seeds,
    )
    def begin(self, max_age: float, refresh: float, recognizes: bool, seed: int) -> None:
        self.tracker, self.other = (
            Tracker(TrackingConfig(max_age=max_age, refresh_period=refresh)) for _ in range(2)
        )
        self.max_age = max_age
        self.recognizes = recognizes
        self.random = np.random.default_rng(seed)
        self.time = 0.0
        self.epoch = 0
        self.seen: dict[int, float] = {}
        self.gone: set[int] = set()
        self.given: list[FloatArray] = []

    @rule(
        step=steps | st.sampled_from((-0.01, -100.0)),
        count=st.integers(0, 8),
        place=st.sampled_from((40, 200, 2000)),
        likeness=st.sampled_from((0.0, 0.3, 0.6, 1.0)),
        least_quality=st.sampled_from((0.0, 0.5)),
    )
    def an_image(
        self, step: float, count: int, place: float, likeness: float, least_quality: float
    ) -> None:
        self.time += step
        if step < 0:
            self.epoch += 1
            self.gone |= set(self.seen)
        centers = self.random.uniform(0, place, (count, 2))
        faces = faces_at(centers, self.random.uniform(-2, 120, (count, 2)))
        order = self.random.permutation(count)
        found = self.tracker.match(faces, self.time, self.epoch)
        mixed = self.other.match(ordered(faces, order), self.time, self.epoch)
        rows, mixed_rows = found.rows, mixed.rows
        self.check_ids(found.faces, mixed.faces, order)
        assert rows.tolist() == sorted(set(rows.tolist()) & set(range(count)))
        assert sorted(order[mixed_rows]) == rows.tolist(), "asked for the same faces"
        new = [row for row, number in enumerate(ids_of(found.faces)) if number not in self.seen]
        assert not self.recognizes or set(new) <= set(rows.tolist())
        if self.recognizes:
            views = views_of(self.random.integers(0, CROWD, count), likeness)
            norms = self.random.uniform(1, 30, count).astype(np.float32)
            self.given.append(views)
            useful = self.random.random(count) >= least_quality
            rows, mixed_rows = rows[useful[rows]], mixed_rows[useful[order][mixed_rows]]
            found = found.learn(rows, views[rows], norms[rows])
            chosen = order[mixed_rows]
            mixed = mixed.learn(mixed_rows, views[chosen], norms[chosen])
            self.check_ids(found.faces, mixed.faces, order)
            self.check_embeddings(found.faces, mixed.faces, order)
        self.tracker.commit(found)
        self.other.commit(mixed)
        self.check_reuse(found.faces)

    def check_ids(self, found: Faces, mixed: Faces, order: NDArray[np.intp]) -> None:
        assert found.ids is not None and found.ids.dtype == np.int64
        numbers = ids_of(found)
        assert len(set(numbers)) == len(numbers) and min(numbers, default=1) >= 1
        assert ids_of(mixed) == [numbers[row] for row in order], "the order of faces matters"

    def check_embeddings(self, found: Faces, mixed: Faces, order: NDArray[np.intp]) -> None:
        assert found.embeddings is not None and found.embedding_norms is not None
        assert mixed.embeddings is not None and mixed.embedding_norms is not None
        np.testing.assert_array_equal(mixed.embeddings, found.embeddings[order])
        np.testing.assert_array_equal(mixed.embedding_norms, found.embedding_norms[order])
        known = np.concatenate(self.given)
        for embedding, is_embedded in zip(found.embeddings, found.embedded, strict=True):
            assert is_embedded == embedding.any()
            assert not is_embedded or (known == embedding).all(axis=1).any(), "nobody's"

    def check_reuse(self, found: Faces) -> None:
        for number in ids_of(found):
            assert number not in self.gone, "an id from before the jump"
            assert self.time - self.seen.get(number, self.time) <= self.max_age
            self.seen[number] = self.time


def ordered(faces: Faces, order: NDArray[np.intp]) -> Faces:
    return Faces(boxes=faces.boxes[order], scores=faces.scores[order])


TestAnythingGoes: Any = AnythingGoes.TestCase
TestAnythingGoes.settings = settings(
    stateful_step_count=20, max_examples=max(settings.default.max_examples // 3, 1)
)


@given(
    people=st.integers(1, CROWD),
    frames=st.lists(st.tuples(st.sampled_from((0.03, 0.1, 0.2)), seeds), min_size=1, max_size=25),
    speed=st.floats(0, 0.5),
    recognizes=st.booleans(),
)
def test_people_apart_keep_their_ids_when_missed_for_a_while(
    people: int, frames: list[tuple[float, int]], speed: float, recognizes: bool
) -> None:
    """Ten face sizes apart, walking together, each seen in half of the images."""
    tracker = Tracker(TrackingConfig(max_age=2.0))
    size, time = 40.0, 0.0
    ids: dict[int, int] = {}
    last_seen = np.zeros(people)
    for step, seed in frames:
        time += step
        random = np.random.default_rng(seed)
        # Nobody is missed for so long that the track is out of reach.
        seen = np.flatnonzero((random.random(people) < 0.5) | (time - last_seen > 1.0))
        last_seen[seen] = time
        centers = np.stack((400.0 * seen + speed * size * time, np.full(len(seen), 100.0)), axis=1)
        found = tracker.match(faces_at(centers, size), time)
        if recognizes:
            views = views_of(seen[found.rows], 0.9)
            found = found.learn(found.rows, views, np.full(len(views), 20, np.float32))
        tracker.commit(found)
        for person, number in zip(seen.tolist(), ids_of(found.faces), strict=True):
            assert ids.setdefault(person, number) == number


@given(
    missed=st.floats(1 / 64, 2.0),
    away=st.floats(0, 1),
    degrees=st.floats(0, 360),
    growth=st.floats(0, 1),
    images=st.integers(0, 3),
)
def test_a_face_within_reach_keeps_its_id(
    missed: float, away: float, degrees: float, growth: float, images: int
) -> None:
    """Reach is half a size, and 8 more for each second missed, up to 2; growth counts too."""
    tracker = Tracker(TrackingConfig(max_age=2.0))
    size = 40.0
    start = np.array((500.0, 500.0))
    (number,) = ids_of(follow(tracker, faces_at(start, size), 0.0).faces)
    for fraction in range(1, images + 1):
        follow(tracker, faces_at(np.zeros((0, 2)), size), missed * fraction / (images + 1))
    reach = 0.99 * min(0.5 + 8.0 * missed, 2.0)
    grown = size * np.exp(growth * (1 - away) * reach)
    angle = np.radians(degrees)
    direction = np.array((np.cos(angle), np.sin(angle)))
    place = start + away * reach * (size + grown) / 2 * direction
    assert ids_of(follow(tracker, faces_at(place, grown), missed).faces) == [number]


@given(
    missed=st.floats(0.3, 1.9),
    first=st.floats(-0.3, 0.19),
    near=st.booleans(),
    later=st.floats(SAME_PERSON + 0.1, 1.0),
)
def test_who_is_back_takes_his_id_though_the_first_view_is_bad(
    missed: float, first: float, near: bool, later: float
) -> None:
    """Only two unmatched views make a face another person, wherever it comes back."""
    tracker = Tracker(TrackingConfig(max_age=5.0))
    time = 0.0
    person = np.zeros(1, np.intp)
    place = np.array((100.0, 100.0))
    for _ in range(3):
        number = seen(tracker, place, time, views_of(person, 0.95))
        time += 0.1
    follow(tracker, faces_at(np.zeros((0, 2)), 40), time)
    time += missed
    if not near:
        place = place + 1000
    seen(tracker, place, time, views_of(person, first))
    for _ in range(10):
        time += 0.1
        last = seen(tracker, place, time, views_of(person, later))
    assert last == number


def seen(tracker: Tracker, place: NDArray[np.float64], time: float, view: FloatArray) -> int:
    """The id of the one face of an image, which is embedded if it is due."""
    found = tracker.match(faces_at(place, 40), time)
    norms = np.full(len(found.rows), 20, np.float32)
    found = found.learn(found.rows, view[found.rows], norms)
    tracker.commit(found)
    assert found.faces.embedded.all()
    (number,) = ids_of(found.faces)
    return number


@given(
    missed=st.floats(0.3, 1.9),
    strangeness=st.floats(-0.3, OTHER_PERSON - 0.02),
    near=st.booleans(),
)
def test_a_stranger_gets_an_id_of_his_own_and_keeps_it(
    missed: float, strangeness: float, near: bool
) -> None:
    tracker = Tracker(TrackingConfig(max_age=5.0))
    time = 0.0
    place = np.array((100.0, 100.0))
    someone = views_of(np.zeros(1, np.intp), 0.95)
    stranger = unit_rows(strangeness * someone + np.sqrt(1 - strangeness**2) * PEOPLE[7:8])
    for _ in range(3):
        number = seen(tracker, place, time, someone)
        time += 0.1
    follow(tracker, faces_at(np.zeros((0, 2)), 40), time)
    time += missed
    if not near:
        place = place + 1000
    ids = []
    for _ in range(10):
        ids.append(seen(tracker, place, time, stranger))
        time += 0.1
    assert ids[-1] != number
    assert len(set(ids[5:] if near else ids)) == 1
    assert seen(tracker, np.array((100.0, 100.0)), time, someone) in (number, ids[-1])


def test_hundreds_of_faces() -> None:
    tracker = Tracker()
    x, y = np.meshgrid(np.arange(30) * 60.0, np.arange(20) * 60.0)
    centers = np.stack((x.ravel(), y.ravel()), axis=1)
    random = np.random.default_rng(0)
    first = None
    for number in range(4):
        order = random.permutation(len(centers))
        found = follow(tracker, faces_at(centers[order], 40), number / 30)
        ids = np.empty(len(centers), np.int64)
        ids[order] = ids_of(found.faces)
        first = ids if first is None else first
        np.testing.assert_array_equal(ids, first)
        assert len(found.rows) == len(centers)


@given(
    images=st.lists(
        st.tuples(steps, st.integers(0, 6), st.sampled_from((60, 400, 2000)), st.booleans(), seeds),
        min_size=1,
        max_size=12,
    ),
    likeness=st.sampled_from((0.0, 0.3, 0.6, 1.0)),
)
def test_an_image_that_is_given_twice_counts_once(
    images: list[tuple[float, int, float, bool, int]], likeness: float
) -> None:
    """As when the recognizer fails for images of several cameras, which are passed again."""
    once, twice = Tracker(), Tracker()
    time = 0.0
    for step, count, place, is_failing, seed in images:
        time += step
        random = np.random.default_rng(seed)
        faces = faces_at(random.uniform(0, place, (count, 2)), random.uniform(20, 120, (count, 2)))
        views = views_of(random.integers(0, CROWD, count), likeness)
        norms = random.uniform(1, 30, count).astype(np.float32)
        if is_failing:
            found = twice.match(faces, time)
            found.learn(found.rows, views[found.rows], norms[found.rows])
        results = []
        for tracker in (once, twice):
            found = tracker.match(faces, time)
            found = found.learn(found.rows, views[found.rows], norms[found.rows])
            tracker.commit(found)
            results.append(found.faces)
        assert ids_of(results[0]) == ids_of(results[1])
        np.testing.assert_array_equal(results[0].embeddings, results[1].embeddings)
