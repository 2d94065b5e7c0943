# SPDX-License-Identifier: Apache-2.0
"""For any stamps of a camera, ids stay, tracks of people who passed end, and work is bounded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from following import follow
from hypothesis import given
from hypothesis import strategies as st

from scrfd_ros.config import TrackingConfig
from scrfd_ros.faces import Faces
from scrfd_ros.tracking.frame_clock import FrameClock, FrameTime
from scrfd_ros.tracking.tracker import Tracker

SECOND = 10**9
MAX_AGE = 2.0
START = 1_700_000_000 * SECOND
WINDOW = 8 * SECOND
"""By then whoever passed is let go: it is four times as long as a face may be missed, as time can
pass at half speed while it waits for stamps that it has run ahead of."""


class Image(NamedTuple):
    """Stamp and arrival of an image."""

    seconds: int
    nanoseconds: int
    arrival: int


KINDS = (
    "regular",
    "set",
    "zero",
    "constant",
    "whole seconds",
    "back now and then",
    "out of order",
    "wild now and then",
    "erratic",
    "negative",
    "beyond a second",
)
OFFSETS = st.sampled_from(
    (0, 50, -50, 900, -900, 1500, -5000, 3_600_000, -3_600_000, 31_536_000_000)
)
"""Milliseconds by which clocks change and single stamps are wrong."""

SEGMENTS = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.integers(1, 60),
        st.sampled_from((0, 1, 10, 33, 100, 250)),
        OFFSETS,
        st.integers(2, 30),
    ),
    min_size=1,
    max_size=8,
)
"""Kind, number of images, milliseconds between them, offset, and which images are off."""


def images_of(segments: Sequence[tuple[str, int, int, int, int]]) -> list[Image]:
    images: list[Image] = []
    arrival, clock = 5 * SECOND, START
    for kind, count, period, offset, every in segments:
        step, off = period * 10**6, offset * 10**6
        constant = clock + arrival
        if kind == "set":
            clock += off
        for number in range(count):
            arrival += step
            true = max(clock + arrival, 1)
            is_off = number % every == every - 1
            stamp = {
                "zero": 0,
                "constant": constant,
                "whole seconds": true // SECOND * SECOND,
                "back now and then": true - (34 * 10**6 + step) * is_off,
                "out of order": true - (2 * step + 1) * is_off,
                "wild now and then": true + off * is_off,
                "erratic": int(np.random.default_rng(number).integers(1, 2 * START)),
                "negative": -true,
            }.get(kind, true)
            seconds, nanoseconds = divmod(stamp, SECOND)
            if kind == "beyond a second":
                nanoseconds += SECOND
            images.append(Image(seconds, nanoseconds, arrival))
    return images


ANY = st.lists(
    st.builds(
        Image,
        st.integers(-(2**31), 2**31 - 1) | st.integers(-2, 20),
        st.integers(0, 2**32 - 1) | st.sampled_from((0, 500_000_000)),
        st.sampled_from((0, 10**6, 33 * 10**6, 10**8, SECOND, 100 * SECOND)),
    ),
    max_size=60,
)
"""Anything at all; the arrivals are steps."""


def told(images: Sequence[Image]) -> list[FrameTime]:
    clock = FrameClock("/image")
    found = [clock.time_of(*image) for image in images]
    assert len(clock._faults) <= 100 and len(clock._told) <= 6
    for before, after in pairwise(found):
        assert np.isfinite(after.seconds) and after.seconds >= before.seconds
        assert after.epoch - before.epoch in (0, 1)
    return found


def face_at(x: float) -> Faces:
    return Faces(np.array([[x, 0, x + 40, 40]], np.float32), np.ones(1, np.float32))


def still_face(found: Sequence[FrameTime]) -> list[int]:
    """The ids of a face that does not move, for each image."""
    tracker = Tracker(TrackingConfig(max_age=MAX_AGE))
    ids = []
    for time in found:
        followed = follow(tracker, face_at(0), *time).faces.ids
        assert followed is not None
        ids.append(int(followed[0]))
    return ids


@given(SEGMENTS)
def test_a_still_face_keeps_its_id_unless_time_starts_anew(
    segments: list[tuple[str, int, int, int, int]],
) -> None:
    found = told(images_of(segments))
    ids = still_face(found)
    first = found[0].epoch
    assert [number - 1 for number in ids] == [time.epoch - first for time in found]


@given(SEGMENTS)
def test_people_who_passed_are_let_go(segments: list[tuple[str, int, int, int, int]]) -> None:
    images = images_of(segments)
    tracker = Tracker(TrackingConfig(max_age=MAX_AGE))
    arrivals: list[int] = []
    for number, (image, time) in enumerate(zip(images, told(images), strict=True)):
        follow(tracker, face_at(100.0 * number), *time)  # another person in each image
        arrivals.append(image.arrival)
        recent = sum(arrival >= image.arrival - WINDOW for arrival in arrivals)
        assert len(tracker._state.tracks) <= recent


@given(ANY)
def test_any_stamps_at_all(steps: list[Image]) -> None:
    """Where a face is lost, the clock says that time started anew or that it was missed for long;
    and time does pass, if slowly, where images do."""
    arrivals = np.cumsum([image.arrival for image in steps]).tolist()
    images = [
        image._replace(arrival=arrival) for image, arrival in zip(steps, arrivals, strict=True)
    ]
    found = told(images)
    ids = still_face(found)
    for row in range(1, len(found)):
        before, after = found[row - 1], found[row]
        is_lost = ids[row] != ids[row - 1]
        is_missed = after.seconds - before.seconds > MAX_AGE
        assert is_lost == (is_missed or after.epoch != before.epoch)
    if found:
        passed = sum(min(image.arrival, SECOND) for image in steps[1:-1]) / SECOND
        assert found[-1].seconds >= passed / 100 - 0.02


@given(SEGMENTS)
def test_the_same_images_give_the_same_times(
    segments: list[tuple[str, int, int, int, int]],
) -> None:
    """Replaying a bag twice must yield the same bytes."""
    images = images_of(segments)
    assert told(images) == told(images)


def test_a_flood_of_people_at_one_time_is_bounded() -> None:
    """Nothing tells that time passes: neither stamps nor arrivals, as in a bag made by a script."""
    clock, tracker = FrameClock("/image"), Tracker(TrackingConfig(max_age=MAX_AGE))
    for number in range(1200):
        follow(tracker, face_at(100.0 * number), *clock.time_of(0, 0, 0))
    assert len(tracker._state.tracks) <= 1001
