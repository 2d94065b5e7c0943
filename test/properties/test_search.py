# SPDX-License-Identifier: Apache-2.0
"""A gallery's templates in memory, after any changes: the people that comparing each one finds."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from scrfd_ros.gallery import search
from scrfd_ros.gallery.people import Candidate, Template
from scrfd_ros.gallery.search import TemplateIndex

DIMENSIONS = 20
PEOPLE = [str(uuid.UUID(int=number)) for number in range(6)]


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "BLOCK", 4)
        yield


class SlowIndex:
    """The templates in a dictionary."""

    def __init__(self) -> None:
        self.templates: dict[str, Template] = {}
        self.roots: Mapping[str, str] = {}

    def nearest(self, embedding: NDArray[np.float32], count: int) -> list[Candidate]:
        best: dict[str, float] = {}
        against: dict[str, float] = {}
        for each in self.templates.values():
            side = against if each.is_negative else best
            root = self.roots.get(each.person_id, each.person_id)
            side[root] = max(side.get(root, -2.0), float(each.embedding @ embedding))
        found = [
            Candidate(person_id, similarity)
            for person_id, similarity in best.items()
            if similarity > against.get(person_id, -2.0)
        ]
        return sorted(found, key=lambda each: -each.similarity)[:count]

    def counts(self) -> dict[str, int]:
        counts = {each.person_id: 0 for each in self.templates.values()}
        for each in self.templates.values():
            counts[each.person_id] += not each.is_negative
        return counts


class Changes:
    """Random changes of both."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.numpy = np.random.default_rng(seed)
        self.slow = SlowIndex()
        self.index = TemplateIndex(DIMENSIONS)

    def some_ids(self) -> list[str]:
        ids = list(self.slow.templates)
        unknown = [str(uuid.UUID(int=self.random.getrandbits(128)))]
        return self.random.sample(ids, self.random.randint(0, len(ids))) + unknown

    def add(self) -> None:
        templates = [
            Template(
                id=str(uuid.UUID(int=self.random.getrandbits(128))),
                person_id=self.random.choice(PEOPLE),
                embedding=self.embedding(),
                quality=0.9,
                source="",
                created=0.0,
                is_negative=self.random.random() < 0.2,
            )
            for _ in range(self.random.randint(0, 11))
        ]
        self.slow.templates |= {each.id: each for each in templates}
        self.index.add(templates)

    def remove(self) -> None:
        ids = self.some_ids()
        self.slow.templates = {k: t for k, t in self.slow.templates.items() if k not in ids}
        self.index.remove(ids)

    def forget(self) -> None:
        people = self.random.sample(PEOPLE, self.random.randint(0, 3))
        self.slow.templates = {
            k: t for k, t in self.slow.templates.items() if t.person_id not in people
        }
        self.index.forget(people)
        self.slow.roots = {
            merged: root
            for merged, root in self.slow.roots.items()
            if merged not in people and root not in people
        }
        self.index.merge(self.slow.roots)

    def move(self) -> None:
        person_id = self.random.choice(PEOPLE)
        for each in self.some_ids():
            if each in self.slow.templates:
                moved = self.slow.templates[each]._replace(person_id=person_id)
                self.slow.templates[each] = moved
            self.index.move(each, person_id)

    def merge(self) -> None:
        merged = self.random.sample(PEOPLE, self.random.randint(0, 3))
        others = [each for each in PEOPLE if each not in merged]
        self.slow.roots = {each: self.random.choice(others) for each in merged}
        self.index.merge(self.slow.roots)

    def embedding(self) -> NDArray[np.float32]:
        vector = self.numpy.standard_normal(DIMENSIONS)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    def compare(self) -> None:
        embedding, count = self.embedding(), self.random.randint(1, 4)
        found = self.index.nearest(embedding, count)
        expected = self.slow.nearest(embedding, count)
        assert [each.person_id for each in found] == [each.person_id for each in expected]
        assert [each.similarity for each in found] == pytest.approx(
            [each.similarity for each in expected], abs=1e-6
        )
        assert len(self.index) == len(self.slow.templates)
        assert self.index.counts() == self.slow.counts()


@given(st.integers(0, 2**32 - 1))
def test_after_any_changes_it_finds_the_same_people(seed: int) -> None:
    changes = Changes(seed)
    for _ in range(12):
        kind = changes.random.choice(("add", "add", "add", "remove", "forget", "move", "merge"))
        getattr(changes, kind)()
        changes.compare()


@given(st.integers(0, 2**32 - 1))
def test_somebody_with_very_many_templates_does_not_hide_the_second(seed: int) -> None:
    """More than what is looked at first is of one person."""
    changes = Changes(seed)
    numpy = changes.numpy
    towards = changes.embedding()
    near = towards + 0.01 * numpy.standard_normal((500, DIMENSIONS)).astype(np.float32)
    others = numpy.standard_normal((3, DIMENSIONS)).astype(np.float32)
    rows = np.concatenate((near, others))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    templates = [
        Template(str(uuid.UUID(int=number)), PEOPLE[max(number - 499, 0)], embedding, 0.9, "", 0.0)
        for number, embedding in enumerate(rows)
    ]
    changes.index.add(templates)
    changes.slow.templates = {each.id: each for each in templates}
    found = changes.index.nearest(towards, 3)
    expected = changes.slow.nearest(towards, 3)
    assert [each.person_id for each in found] == [each.person_id for each in expected]
