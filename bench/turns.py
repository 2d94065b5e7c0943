# SPDX-License-Identifier: Apache-2.0
"""Ways to do something, timed in turns, so that a slow phase of the machine affects all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray


def time_ratio(
    candidate: Callable[[], object], reference: Callable[[], object], rounds: int
) -> float:
    """Median time of the candidate over that of the reference."""
    times = times_in_turns({"candidate": candidate, "reference": reference}, rounds)
    return float(np.median(times["candidate"]) / np.median(times["reference"]))


def times_in_turns(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, NDArray[np.float64]]:
    """Seconds of each call by this clock, float64 [rounds], by the function's name."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = clock()
            function()
            times[name].append(clock() - start)
    return {name: np.array(taken) for name, taken in times.items()}
