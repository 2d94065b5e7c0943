# SPDX-License-Identifier: Apache-2.0
"""What `Counts` reports of a camera's images."""

from __future__ import annotations

import pytest

from scrfd_ros.node.counts import Counts


def test_in_words() -> None:
    counts = Counts()
    assert str(counts) == (
        "0 handled, 0 dropped for newer ones, 0 skipped, an unknown number lost on the way"
    )
    for missing in (None, 2, 0, 1):
        counts.receive(1.0, missing)
    counts.drop()
    counts.finish(2.0, {})
    counts.damage(2.0, "cut short")
    counts.fail(3.0, "broken")
    assert str(counts) == (
        "1 handled, 1 dropped for newer ones, 1 skipped, 3 lost on the way, 1 damaged, "
        "1 not finished"
    )


def test_a_damaged_image_is_reported_for_ten_seconds() -> None:
    counts = Counts()
    counts.finish(0.0, {})
    counts.damage(0.0, "cut short")
    for now, reported in ((5.0, True), (10.0, True), (10.1, False)):
        counts.finish(now, {})
        assert ("damage" in counts.warnings) == reported
    counts.finish(20.0, {})
    counts.damage(20.0, "cut short")
    assert counts.warnings["damage"] == "2 of 5 images damaged, the last: cut short"


def test_an_image_that_is_finished_ends_the_error_and_not_the_last_reason() -> None:
    counts = Counts()
    counts.fail(0.0, "broken")
    assert counts.reason == counts.last_reason == "broken"
    counts.finish(1.0, {})
    assert (counts.reason, counts.last_reason) == ("", "broken")


def test_busy_since_the_first_image_that_waits() -> None:
    counts = Counts()
    for now in (1.0, 2.0):
        counts.receive(now, None)
        assert counts.busy_since == 1.0
    counts.finish(3.0, {})
    assert (counts.busy_since, counts.in_hand) == (3.0, 1)


@pytest.mark.parametrize("name", ["arrivals", "outputs", "warnings"])
def test_a_snapshot_stays(name: str) -> None:
    counts = Counts()
    before = counts.snapshot()
    counts.receive(1.0, None)
    counts.finish(1.0, {})
    counts.warn("stamps", "stamps are zero")
    assert not getattr(before, name) and getattr(counts, name)
