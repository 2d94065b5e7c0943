# SPDX-License-Identifier: Apache-2.0
"""The time at which an image was taken, for the tracker, even if its stamp is wrong.

Stamps come from drivers, simulators and bags. They can be missing, repeat, go back a little since a
driver corrects them or the network reorders images, jump, or continue from another time since a
clock was set or a bag started again. `FrameClock` alone decides what a stamp means.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

_LOG = logging.getLogger(__name__)

_SECOND = 10**9

_JITTER = _SECOND
"""Nanoseconds that a stamp may be off and still be of the same clock.

Drivers correct their stamps by tens of milliseconds, and images overtake each other on a network
within a few tenths of a second. A wrong stamp within this range moves the time by less than a track
may be missed.
"""

_HEADWAY = 2
"""A stamp may also be ahead by this many times the time since the previous image, as after a pause
during which the first image waited."""

_CONFIRMED = 3
"""Another clock is adopted after this many images in a row whose stamps continue from each other.
Drivers are known to send one wrong stamp, or two while they start."""

_ANEW = 2 * _SECOND
"""Nanoseconds. If an adopted clock is off by more, time has started anew. By default a person keeps
the id for 2 s without being seen, so a smaller change ends no track."""

_FASTEST = 20
"""How many times faster than arrivals stamps may run: a bag played fast, a simulation."""

_SLOWEST = 100
"""How many times slower. Simulations run slowly, but if a stamp hardly moves, the tracks of people
who are gone must still end."""

_RECENT = 100
_OFTEN = 3
"""A fault is reported if it occurs this often in the last `_RECENT` images; one does no harm."""


class FrameTime(NamedTuple):
    """When an image was taken.

    Attributes:
        seconds: since the first image; never less than for the previous image.
        epoch: differs from that of the previous image if time started anew in between, so that
            nothing known of the scene holds any more.
    """

    seconds: float
    epoch: int


@dataclass
class _Run:
    """Stamps of one clock.

    Attributes:
        stamp, arrival: of the image with the highest stamp, nanoseconds.
        first_stamp, first_arrival: of the first image, nanoseconds.
        length: number of images that had a higher stamp than all before.
    """

    stamp: int
    arrival: int
    first_stamp: int
    first_arrival: int
    length: int = 1

    @classmethod
    def begin(cls, stamp: int, arrival: int) -> _Run:
        return cls(stamp, arrival, stamp, arrival)

    def go_on(self, stamp: int, arrival: int) -> None:
        if stamp > self.stamp:
            self.stamp, self.arrival = stamp, arrival
            self.length += 1

    def can_go_on(self, stamp: int, arrival: int) -> bool:
        """Whether this can be the next stamp, at any accepted pace."""
        passed = max(arrival - self.arrival, 0)
        return -_JITTER <= stamp - self.stamp <= _JITTER + _HEADWAY * _FASTEST * passed

    @property
    def pace(self) -> float:
        """The slowest pace at which these stamps are not too far ahead, 1 to `_FASTEST`."""
        moved, took = self.stamp - self.first_stamp, self.arrival - self.first_arrival
        return min(max((moved - _JITTER) / max(_HEADWAY * took, 1), 1), _FASTEST)


class FrameClock:
    """Derives when the images of one camera were taken, from their stamps and arrivals.

    As long as stamps rise, time follows them, also at the pace of a slow simulation or a bag played
    fast. If a stamp is missing, repeated, late or implausible, the time between arrivals counts
    instead, so that a single wrong stamp changes nothing. Three images in a row whose stamps
    continue from each other at another time are a new clock, which time follows from then on. If it
    is more than 2 s off, as when a bag starts again or a clock was set, time starts anew.

    Each kind of fault is logged once, when it is more than occasional.

    Args:
        topic: of the images, for the log.

    Attributes:
        problem: a sentence that says what is wrong with recent stamps; empty if nothing is.
    """

    def __init__(self, topic: str) -> None:
        self.problem = ""
        self._topic = topic
        self._time = 0  # nanoseconds, as all below
        self._epoch = 0
        self._offset = 0  # of the time from the stamps
        self._pace = 1.0
        self._arrival: int | None = None  # until which time has passed
        self._run: _Run | None = None
        self._other: _Run | None = None  # stamps that do not fit and may be of another clock
        self._faults: deque[str] = deque(maxlen=_RECENT)
        self._told: set[str] = set()

    def time_of(self, seconds: int, nanoseconds: int, arrival: int) -> FrameTime:
        """When the next image was taken.

        Args:
            seconds, nanoseconds: its stamp, as in std_msgs/Header, of any value.
            arrival: when it arrived, nanoseconds of a clock that is never set, such as
                `time.monotonic_ns`; for a bag, when it was recorded. Pass images in the order of
                their arrival.
        """
        passed = 0 if self._arrival is None else max(arrival - self._arrival, 0)
        self._arrival = arrival
        stamp = seconds * _SECOND + nanoseconds
        if stamp == 0:
            self._time += passed
            self._note("zero", "is 0")
        elif seconds < 0 or nanoseconds >= _SECOND:
            self._time += passed
            self._note("invalid", f"is not a time (sec {seconds}, nanosec {nanoseconds})")
        else:
            self._go_by(stamp, arrival, passed)
        return FrameTime(self._time / _SECOND, self._epoch)

    def _go_by(self, stamp: int, arrival: int, passed: int) -> None:
        """Advance the time by a stamp that may be right."""
        if self._run is None:
            self._time += passed
            self._adopt(_Run.begin(stamp, arrival))
            self._note("")
            return
        moved = stamp - self._run.stamp
        lead = stamp + self._offset - self._time
        if moved < -_JITTER or lead > _JITTER + _HEADWAY * self._pace * passed:
            self._time += passed
            self._consider(stamp, arrival)
            return
        self._other = None
        if moved <= 0:
            # A single step back is a late image, or a driver that corrects its clock. No time
            # passes until the next image, so that the step does not distort the speed of faces.
            if moved < 0 and not self._faults[-1]:
                self._arrival = arrival - passed
            else:
                self._time += passed
            if moved == 0:
                self._note("repeated", f"stays the same from image to image ({_text(stamp)})")
            else:
                self._note("back", f"goes back, last by {-moved / _SECOND:.3f} s")
            return
        self._run.go_on(stamp, arrival)
        if lead < -_JITTER:  # after stamps that did not move for long
            self._time += min(moved, passed)
            self._offset = self._time - stamp
        else:  # if the time has run ahead of the stamps, it advances at half their speed
            least = min(passed, _SECOND) // _SLOWEST  # the images may have been paused for hours
            self._time += max(lead, min(moved, passed) // 2, least)
        self._note("")

    def _consider(self, stamp: int, arrival: int) -> None:
        """Note a stamp that does not continue from those before; adopt the clock of the third."""
        if self._other is None or not self._other.can_go_on(stamp, arrival):
            self._other = _Run.begin(stamp, arrival)
        self._other.go_on(stamp, arrival)
        assert self._run is not None
        old = self._run.stamp
        if self._other.length < _CONFIRMED:
            self._note("wild", f"jumps, last from {_text(old)} to {_text(stamp)}")
            return
        is_anew = abs(stamp + self._offset - self._time) > _ANEW
        if is_anew and self._run.length >= _CONFIRMED:
            self._epoch += 1
            self._tell(
                "anew",
                f"header.stamp went from {_text(old)} to {_text(stamp)} and continues from there, "
                f"as if a bag started again or a clock was set: tracks and ids of faces start anew",
            )
        self._adopt(self._other)
        self._faults.clear()
        self._note("")

    def _adopt(self, run: _Run) -> None:
        self._run, self._other = run, None
        self._offset = self._time - run.stamp
        self._pace = run.pace

    def _note(self, fault: str, what: str = "") -> None:
        """Note the fault of a stamp, "" for none, and report it if it is frequent."""
        faults = self._faults
        faults.append(fault)
        if fault and faults.count(fault) >= _OFTEN:
            self.problem = (
                f"header.stamp {what}: faces are tracked by the arrival times of such images. "
                f"{_REMEDIES[fault]}"
            )
            self._tell(fault, self.problem)
        elif self.problem and not fault and faults.count("") > len(faults) - _OFTEN:
            self.problem = ""

    def _tell(self, kind: str, sentence: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            _LOG.warning("%s: %s", self._topic, sentence)


_REMEDIES = {
    "zero": "Have the camera's driver set the stamp",
    "invalid": "Have the camera's driver set the stamp, with nanosec below 1000000000",
    "repeated": (
        "Have the camera's driver stamp each image; if simulated time is paused, nothing is wrong"
    ),
    "back": "Look for images that overtake each other, and for a driver that corrects its clock",
    "wild": "Look for two cameras on one topic, and for a driver that mixes clocks",
}


def _text(stamp: int) -> str:
    whole, rest = divmod(stamp, _SECOND)
    return f"{whole}.{rest // 10**6:03}"
