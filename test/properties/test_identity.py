# SPDX-License-Identifier: Apache-2.0
"""Names from random votes: none without evidence, none for two faces, whatever the order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from galleries import INFO, looks
from hypothesis import given
from hypothesis import strategies as st

from scrfd_ros.config import GalleryConfig
from scrfd_ros.faces import Faces, IdentityState
from scrfd_ros.gallery.decision import Decision, Vote, decide, decide_again
from scrfd_ros.gallery.gallery import Gallery
from scrfd_ros.gallery.identifier import Identifier
from scrfd_ros.gallery.opening import open_gallery
from scrfd_ros.gallery.people import Candidate, Look
from scrfd_ros.tracking.tracker import Tracker

PEOPLE = ("anna", "bert", "cleo")

cosines = st.sampled_from((-0.2, 0.1, 0.39, 0.4, 0.45, 0.5, 0.6, 0.9))


@st.composite
def votes(draw: st.DrawFn) -> Vote:
    """A vote with up to two candidates, of good or bad quality."""
    look = Look(np.zeros(2, np.float32), draw(st.sampled_from((0.1, 0.3, 0.8))), 0.0, 0.0)
    people = draw(st.permutations(PEOPLE))[: draw(st.integers(0, 2))]
    similarities = sorted((draw(cosines) for _ in people), reverse=True)
    return Vote(look, tuple(map(Candidate, people, similarities)))


configs = st.builds(
    GalleryConfig,
    threshold=st.sampled_from((0.3, 0.4, 0.5)),
    margin=st.sampled_from((0.0, 0.1, 0.3)),
    looks=st.integers(1, 4),
    min_quality=st.sampled_from((0.0, 0.3, 0.5)),
)


@given(st.lists(votes(), max_size=40), configs)
def test_a_name_needs_looks_that_agree_and_stays_while_one_does(
    series: list[Vote], config: GalleryConfig
) -> None:
    decision, good = Decision(), list[Vote]()
    for vote in series:
        before = decision
        decision = decide(before.person_id, (*before.votes, vote), config)
        assert len(decision.votes) <= 2 * config.looks
        if not vote.is_good(config):
            assert decision == before
            continue
        good.append(vote)
        newest = [each.choice(config) for each in good[-2 * config.looks :]]
        if decision.person_id not in ("", before.person_id):  # a name, or another one
            needed = 2 * config.looks if before.person_id else config.looks
            assert newest[-needed:] == [decision.person_id] * needed
        if before.person_id in newest and before.person_id:
            assert decision.person_id == before.person_id
        if decision.person_id:
            assert decision.person_id in newest
        if decision.is_stranger(config):
            assert newest[-config.looks :] == [""] * config.looks


@given(st.lists(votes(), max_size=20), configs, configs)
def test_another_configuration_counts_the_same_votes_again(
    series: list[Vote], config: GalleryConfig, other: GalleryConfig
) -> None:
    decision = Decision()
    for vote in series:
        decision = decide(decision.person_id, (*decision.votes, vote), config)
    again = decide_again(decision.person_id, decision.votes, other)
    choices = [each.choice(other) for each in again.votes]
    assert all(each.is_good(other) for each in again.votes)
    if again.person_id:
        assert again.person_id in choices
    if again.person_id not in ("", decision.person_id):
        assert choices[-other.looks :] == [again.person_id] * other.looks
    assert decide_again(decision.person_id, decision.votes, config) == decision


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    store: Path = tmp_path_factory.mktemp("gallery") / "people.db"
    with open_gallery(str(store), INFO) as gallery:
        for number, name in enumerate(PEOPLE):
            gallery.enroll(name, looks(number), source="")
        yield gallery


@given(data=st.data())
def test_nobody_is_named_twice_whatever_the_order_of_the_faces(
    gallery: Gallery, data: st.DataObject
) -> None:
    config = GalleryConfig(looks=data.draw(st.integers(1, 3)))
    one, other = Identifier(gallery, config), Identifier(gallery, config)
    trackers = Tracker(), Tracker()
    who = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))  # of 5, 3 are enrolled
    for number in range(data.draw(st.integers(1, 8))):
        boxes = [(100 * place, 0, 100 * place + 50, 60) for place in range(len(who))]
        order = data.draw(st.permutations(range(len(who))))
        seen = [looks(person, 20)[number + place] for place, person in enumerate(who)]
        states = []
        for identifier, tracker, rows in zip(
            (one, other), trackers, (range(len(who)), order), strict=True
        ):
            faces = Faces(np.array(boxes, np.float32)[list(rows)], np.ones(len(who), np.float32))
            tracked = tracker.match(faces, number / 5)
            tracker.commit(tracked)
            found = identifier.identify(
                tracked.faces, {row: seen[place] for row, place in enumerate(rows)}, tracker
            ).identities
            assert found is not None
            states.append(
                {
                    place: (each.state, each.name, each.similarity)
                    for place, each in zip(rows, found, strict=True)
                }
            )
        assert states[0] == states[1]
        named = [name for state, name, _ in states[0].values() if state is IdentityState.KNOWN]
        assert len(named) == len(set(named)) and "" not in named
        if number + 1 < config.looks:
            assert not named
        for place, (state, _, _) in states[0].items():
            if who[place] > 2:
                assert state is IdentityState.UNKNOWN
