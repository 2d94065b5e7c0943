# SPDX-License-Identifier: Apache-2.0
"""Lost messages are counted by sequence number: never too many, exactly with one publisher."""

from __future__ import annotations

from collections.abc import Hashable

from hypothesis import given
from hypothesis import strategies as st

from scrfd_ros.node.lost_images import PublisherNumbers


class Publishers:
    """A stand-in for publishers, and for the graph, which knows them for ever."""

    def __init__(self) -> None:
        self.numbers = PublisherNumbers()
        self.gids: set[Hashable] = set()
        self.last: dict[int, int] = {}
        self.received: dict[int, int] = {}
        self.counted = 0
        self.truth = 0

    def begin(self, publisher: int, number: int) -> None:
        self.gids.add(publisher)
        self.last[publisher] = number

    def send(self, publisher: int, lost: int) -> None:
        """A message, after others that got lost; those before its first one were never for us."""
        first = publisher not in self.received
        self.last[publisher] += lost + 1
        self.received[publisher] = self.last[publisher]
        self.truth += 0 if first else lost
        self.counted += self.numbers.missing(self.last[publisher], 0.0, lambda: self.gids)


@given(st.lists(st.integers(0, 50), min_size=1), st.integers(0, 1000))
def test_of_one_publisher_exactly(losses: list[int], start: int) -> None:
    world = Publishers()
    world.begin(0, start)
    for lost in losses:
        world.send(0, lost)
        assert world.counted == world.truth


@given(
    st.dictionaries(st.integers(0, 3), st.integers(0, 60), min_size=1),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 0, 0, 1, 2, 30]))),
)
def test_of_several_never_too_many(starts: dict[int, int], events: list[tuple[int, int]]) -> None:
    world = Publishers()
    for publisher, lost in events:
        if publisher in starts:
            if publisher not in world.gids:
                world.begin(publisher, starts[publisher])
            world.send(publisher, lost)
            assert world.counted <= world.truth


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=30), min_size=1, max_size=8),
)
def test_of_a_camera_that_is_killed_and_started_again(lives: list[list[int]]) -> None:
    # The graph knows the killed ones still, as it does for 20 s with Fast DDS. A new life's
    # numbers begin anew, so that some losses may be ascribed to a former one: never too many.
    world = Publishers()
    for life, losses in enumerate(lives):
        world.begin(life, 0)
        for lost in losses:
            world.send(life, lost)
            assert world.counted <= world.truth


def test_losses_are_counted_at_once_after_a_camera_was_killed() -> None:
    world = Publishers()
    world.begin(0, 0)
    for _ in range(1000):
        world.send(0, 0)
    world.begin(1, 0)
    world.send(1, 0)
    world.send(1, 3)
    assert world.counted == 3


def test_publishers_in_turns_are_mixed_and_one_after_the_other_is_not() -> None:
    numbers = PublisherNumbers()
    for number in (10, 11, 12, 1, 2, 3, 4):
        numbers.missing(number, 5.0, lambda: {"a", "b"})
    assert not numbers.is_mixed(5.0, seconds=10)
    for number in (13, 5, 14, 6):
        numbers.missing(number, 6.0, lambda: {"a", "b"})
    assert numbers.is_mixed(16.0, seconds=10)
    assert not numbers.is_mixed(16.1, seconds=10)
