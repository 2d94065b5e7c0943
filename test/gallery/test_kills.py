# SPDX-License-Identifier: Apache-2.0
"""Processes that are killed while they change a gallery; `bench/gallery_kills.py` kills more."""

from __future__ import annotations

from killed_writers import Kills


def test_kills_lose_nothing_and_leave_nothing(place: str) -> None:
    kills = Kills(place)
    for _ in range(12):
        kills.round()
    assert kills.changes > 3
    assert sum(kills.moments.values()) == 12
