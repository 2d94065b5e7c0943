# SPDX-License-Identifier: Apache-2.0
"""Rates of events."""

from __future__ import annotations

from collections.abc import Sequence


def rate(times: Sequence[float], now: float) -> float:
    """Events per second, from the times of the last ones; falls when no more come.

    Args:
        times: seconds, rising.
        now: seconds, of the same clock.
    """
    if len(times) < 2:
        return 0.0
    intervals = len(times) - 1
    mean = (times[-1] - times[0]) / intervals
    silence = now - times[-1]
    if silence > 2 * mean:  # one interval late, or more
        return intervals / (now - times[0]) if now > times[0] else 0.0
    return 1 / mean if mean > 0 else 0.0
