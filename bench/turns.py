# SPDX-License-Identifier: Apache-2.0
"""Two ways to do something, timed in turns, so that a slow phase of the machine affects both."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np


def time_ratio(
    candidate: Callable[[], object], reference: Callable[[], object], rounds: int
) -> float:
    """Median time of the candidate over that of the reference."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for function, taken in zip((candidate, reference), times, strict=True):
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
    ours, theirs = np.median(times, axis=1)
    return float(ours / theirs)
