# SPDX-License-Identifier: Apache-2.0
"""Stamps of real drivers, simulators and bags become a time by which ids persist."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from following import follow

from scrfd_ros.config import TrackingConfig
from scrfd_ros.faces import Faces
from scrfd_ros.tracking.frame_clock import FrameClock, FrameTime
from scrfd_ros.tracking.tracker import Tracker

MS = 10**6
SECOND = 10**9
YEAR = 365 * 86400 * SECOND
START = 1_700_000_000 * SECOND
PERIOD = 33 * MS

Stamps = Callable[[int], int]
"""From the number of an image to its stamp, nanoseconds."""


def times(
    stamps: Stamps, count: int = 300, period: int = PERIOD, clock: FrameClock | None = None
) -> list[FrameTime]:
    """The times of images that arrive at regular intervals, nanoseconds."""
    clock = clock or FrameClock("/image")
    return [
        clock.time_of(*divmod(stamps(number), SECOND), number * period) for number in range(count)
    ]


def steps(found: list[FrameTime]) -> list[float]:
    """Seconds between images."""
    return np.diff([time.seconds for time in found]).round(6).tolist()


def ids_of_a_still_face(found: list[FrameTime]) -> list[int]:
    tracker = Tracker()
    faces = Faces(np.array([[10, 10, 50, 50]], np.float32), np.ones(1, np.float32))
    ids = []
    for time in found:
        followed = follow(tracker, faces, *time).faces.ids
        assert followed is not None
        ids.append(int(followed[0]))
    return ids


def regular(number: int) -> int:
    return START + number * PERIOD


def once(wild: int, at: int = 100) -> Stamps:
    """Regular stamps, one of which is off by that much."""
    return lambda number: regular(number) + wild * (number == at)


def from_then_on(change: int, at: int = 100) -> Stamps:
    """Regular stamps of a clock that is set."""
    return lambda number: regular(number) + change * (number >= at)


def back_once_a_second(number: int) -> int:
    return regular(number) - 67 * MS * (number % 30 == 29)  # 34 ms before the previous one


def overtaken(number: int) -> int:
    """Every tenth image comes after the next."""
    return regular(number + (number % 10 == 4) - (number % 10 == 5))


def alternating(number: int) -> int:
    """Two cameras on one topic, one of which counts from its start."""
    return regular(number) if number % 2 else (number + 1) * PERIOD


def regular_with_zeros(number: int) -> int:
    return regular(number) * (number % 5 != 0)


def erratic(number: int) -> int:
    return int(np.random.default_rng(number).integers(0, 4 * START))


KINDS: dict[str, Stamps] = {
    "regular": regular,
    "since boot": lambda number: (number + 1) * PERIOD,
    "zero": lambda number: 0,
    "some are zero": regular_with_zeros,
    "constant": lambda number: START,
    "whole seconds": lambda number: regular(number) // SECOND * SECOND,
    "back 34 ms once a second": back_once_a_second,
    "out of order": overtaken,
    "one a year ahead": once(YEAR),
    "one a year behind": once(-YEAR),
    "the first a year ahead": once(YEAR, at=0),
    "the second a year ahead": once(YEAR, at=1),
    "one 900 ms ahead": once(900 * MS),
    "one 5 s behind": once(-5 * SECOND),
    "set ahead by 1.5 s": from_then_on(3 * SECOND // 2),
    "set back by half a second": from_then_on(-SECOND // 2),
    "set back by 1.5 s": from_then_on(-3 * SECOND // 2),
    "two clocks in turns": alternating,
    "erratic": erratic,
    "negative": lambda number: -regular(number),
    "stuck after a while": lambda number: regular(min(number, 100)),
    "paused": lambda number: regular(number if number < 100 else max(100, number - 100)),
    "slow simulation": lambda number: START + number * PERIOD // 20,
    "zero at first": lambda number: regular(number) * (number >= 50),
}


@pytest.mark.parametrize("stamps", KINDS.values(), ids=list(KINDS))
def test_a_still_face_keeps_its_id(stamps: Stamps) -> None:
    found = times(stamps)
    assert {time.epoch for time in found} == {0}
    assert set(ids_of_a_still_face(found)) == {1}
    assert min(steps(found)) >= 0


@pytest.mark.parametrize("stamps", KINDS.values(), ids=list(KINDS))
def test_time_passes_about_as_it_does(stamps: Stamps) -> None:
    """Otherwise people who passed stay tracked, or people who are missed lose their ids."""
    found = times(stamps, 600)
    passed = found[-1].seconds - found[0].seconds
    truth = 600 * PERIOD / SECOND
    if stamps is KINDS["slow simulation"]:
        truth /= 20
    assert passed == pytest.approx(truth, abs=1.6)


@pytest.mark.parametrize("pace", [0.02, 0.1, 1, 5, 10], ids=str)
def test_stamps_that_rise_are_the_time(pace: float) -> None:
    """A bag that is played slowly or fast, or a simulation, at 30 images a second of the stamps."""
    found = times(regular, period=round(PERIOD / pace))
    assert steps(found) == [0.033] * 299


def test_a_bag_played_fast_on_a_slow_computer() -> None:
    """By the fifth image, stamps are known to run ten times as fast as real time."""
    found = times(lambda number: START + number * 5 * SECOND, 50, SECOND // 2)
    assert {time.epoch for time in found} == {0}
    assert steps(found)[4:] == [5.0] * 45


def test_a_pause_of_hours_without_images() -> None:
    """Someone paused the bag or the simulation, for which no time passes then."""
    clock = FrameClock("/image")
    before = times(regular, 100, clock=clock)[-1]
    arrival = 100 * PERIOD + 3600 * SECOND
    after = clock.time_of(*divmod(regular(100), SECOND), arrival)
    assert after.seconds - before.seconds == pytest.approx(0.033, abs=0.011)


def test_images_that_waited_come_at_once() -> None:
    clock = FrameClock("/image")
    found = times(regular, 10, clock=clock)
    found += [
        clock.time_of(*divmod(regular(number), SECOND), 10 * PERIOD + SECOND)
        for number in range(10, 40)
    ]
    assert steps(found) == [0.033] * 39


@pytest.mark.parametrize(
    "change",
    [YEAR, -YEAR, 3600 * SECOND, -3600 * SECOND, 5 * SECOND, -5 * SECOND],
    ids=lambda change: f"{change / SECOND:+.0f} s",
)
def test_another_clock_is_adopted_and_time_starts_anew(
    change: int, caplog: pytest.LogCaptureFixture
) -> None:
    found = times(from_then_on(change))
    assert [time.epoch for time in found] == [0] * 102 + [1] * 198, "from the third image on"
    assert steps(found) == [0.033] * 299
    assert ids_of_a_still_face(found) == [1] * 102 + [2] * 198
    (said,) = caplog.messages
    assert said.startswith("/image: header.stamp went from 1700000003.267 to ")
    assert "start anew" in said


def test_a_bag_that_is_played_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = FrameClock("/image")
    found = times(lambda number: regular(number % 150), 600, clock=clock)
    assert [time.epoch for time in found[2::150]] == [0, 1, 2, 3]
    assert found[-1].epoch == 3
    assert set(steps(found)) == {0.033}
    assert len(caplog.messages) == 1
    assert clock.problem == ""


FAULTS = {
    "zero": (KINDS["zero"], "is 0: faces are tracked by the arrival times of such images"),
    "negative": (KINDS["negative"], "is not a time (sec -17000000"),
    "constant": (KINDS["constant"], "stays the same from image to image (1700000000.000)"),
    "back": (back_once_a_second, "goes back, last by 0.034 s"),
    "two clocks": (alternating, "Look for two cameras on one topic"),
    "erratic": (erratic, "jumps, last from "),
}


@pytest.mark.parametrize(("stamps", "sentence"), FAULTS.values(), ids=list(FAULTS))
def test_what_is_wrong_is_logged_once_and_known(
    stamps: Stamps, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FrameClock("/image")
    times(stamps, clock=clock)
    assert sentence in clock.problem
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("/image: header.stamp ")
    assert sentence in record.getMessage()


@pytest.mark.parametrize(
    "stamps",
    [regular, once(YEAR), once(0), once(-40 * MS), KINDS["slow simulation"]],
    ids=["regular", "one wild", "one twice", "one late", "slow"],
)
def test_nothing_is_said_of_what_does_no_harm(
    stamps: Stamps, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FrameClock("/image")
    times(stamps, clock=clock)
    assert clock.problem == ""
    assert not caplog.messages


def test_a_problem_that_is_over_is_forgotten() -> None:
    clock = FrameClock("/image")
    times(lambda number: 0, clock=clock)
    assert clock.problem
    for number in range(300, 500):
        clock.time_of(*divmod(regular(number), SECOND), number * PERIOD)
    assert clock.problem == ""


def test_nanoseconds_beyond_a_second() -> None:
    clock = FrameClock("/image")
    for number in range(10):
        time = clock.time_of(5, 2**32 - 1, number * PERIOD)
    assert time.seconds == pytest.approx(9 * 0.033)
    assert "is not a time (sec 5, nanosec 4294967295)" in clock.problem


def passers_by(found: list[FrameTime]) -> Iterator[int]:
    """Number of tracks after each image, of images with one new person each."""
    tracker = Tracker()
    for number, time in enumerate(found):
        x = 100.0 * (number % 300)
        box = np.array([[x, 0, x + 40, 40]], np.float32)
        follow(tracker, Faces(box, np.ones(1, np.float32)), *time)
        yield len(tracker._state.tracks)


@pytest.mark.parametrize("stamps", KINDS.values(), ids=list(KINDS))
def test_people_who_passed_are_let_go(stamps: Stamps) -> None:
    """62 images fit into the 2 s for which a face may be missed; the slow simulation has more."""
    maximum = 300 if stamps is KINDS["slow simulation"] else 125
    assert max(passers_by(times(stamps))) <= maximum


def test_an_image_that_comes_late_does_not_throw_tracks_off() -> None:
    """People walk at three face sizes a second, and every tenth image comes after the next."""
    tracker = Tracker()
    for number, time in enumerate(times(overtaken)):
        x = 120.0 * (overtaken(number) - START) / SECOND + 300 * np.arange(4)
        boxes = np.stack((x, 0 * x, x + 40, 0 * x + 40), axis=1).astype(np.float32)
        followed = follow(tracker, Faces(boxes, np.ones(4, np.float32)), *time).faces.ids
        assert followed is not None
        assert sorted(followed.tolist()) == [1, 2, 3, 4]
        if number > 10:
            speeds = tracker._state.tracks["velocity"]
            assert np.all(np.abs(speeds[:, 0] - 120) < 60), speeds
            assert np.abs(speeds[:, 1]).max() < 1e-6


@pytest.mark.parametrize("time", [np.nan, np.inf, 0.9], ids=str)
def test_a_time_that_no_clock_gives_is_refused(time: float) -> None:
    tracker = Tracker()
    faces = Faces(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    follow(tracker, faces, 1.0)
    with pytest.raises(ValueError, match="FrameClock"):
        follow(tracker, faces, time)


@pytest.mark.parametrize("kind", ["zero", "constant", "negative", "stuck after a while"])
def test_embeddings_get_old_by_arrival_where_stamps_stand_still(kind: str) -> None:
    tracker = Tracker(TrackingConfig(refresh_period=5.0))
    faces = Faces(np.array([[10, 10, 50, 50]], np.float32), np.ones(1, np.float32))
    embedded = []
    for number, time in enumerate(times(KINDS[kind], 600)):
        followed = tracker.match(faces, *time)
        rows = followed.rows
        embedding = np.eye(1, 8, dtype=np.float32)[rows]
        norms = np.full(len(rows), 20, np.float32)
        tracker.commit(followed.learn(rows, embedding, norms))
        embedded += [number] * len(rows)
    # The first track is refreshed a little more often than every 5 s; 600 images are 20 s.
    assert len(embedded) == 6
    assert np.diff(embedded).max() <= 5.0 / 0.033


def test_frames_at_nearly_one_time_do_not_make_faces_fast() -> None:
    tracker = Tracker()
    for number in range(50):
        box = np.array([[2.0 * number, 0, 2.0 * number + 40, 40]], np.float32)
        faces = Faces(box, np.ones(1, np.float32))
        for _ in range(2):
            follow(tracker, faces, 1e-9 * number)
    # At most two pixels in the time that speed is averaged over.
    assert np.abs(tracker._state.tracks["velocity"]).max() <= 2 / 0.1
