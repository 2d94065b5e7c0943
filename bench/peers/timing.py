# SPDX-License-Identifier: Apache-2.0
"""Times of several sides, measured in turns, and the part of them inside the network."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import onnxruntime
from numpy.typing import ArrayLike
from tqdm import tqdm

_RUNS = ("run", "run_with_iobinding", "run_with_ort_values")

Summary = dict[str, float]
"""Median, p10 and p90 of many samples."""


class NetworkClock:
    """Measures the time inside every session of ONNX Runtime and OpenVINO in this process.

    Attributes:
        milliseconds: of each run since the last `clear`.
    """

    def __init__(self) -> None:
        self.milliseconds: list[float] = []

    def clear(self) -> None:
        self.milliseconds.clear()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Measure until the end. OpenVINO has to be imported before, if it is used."""
        runs = [(onnxruntime.InferenceSession, name) for name in _RUNS]
        if "openvino" in sys.modules:
            runs.append((sys.modules["openvino"].InferRequest, "infer"))
        with ExitStack() as stack:
            for owner, name in runs:
                stack.enter_context(patch.object(owner, name, self._timed(getattr(owner, name))))
            yield

    def _timed(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            result = run(*args, **keywords)
            self.milliseconds.append(1e3 * (time.perf_counter() - start))
            return result

        return timed


class Sample(NamedTuple):
    """One run, milliseconds: in total, and outside the network."""

    total: float
    outside: float


def sample(clock: NetworkClock, function: Callable[[], object]) -> Sample:
    clock.clear()
    start = time.perf_counter()
    function()
    total = 1e3 * (time.perf_counter() - start)
    return Sample(total, total - sum(clock.milliseconds))


def in_turns(
    clock: NetworkClock, sides: Mapping[str, Callable[[], object]], repeat: int, what: str
) -> dict[str, dict[str, Summary]]:
    """Median times of each side, total and outside.

    In each turn each side runs twice, and the second run counts. The first brings caches and idle
    threads into the state that they have where that side runs alone.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in sides}
    turns = [turn for _ in range(repeat) for turn in sides.items()]
    for function in sides.values():
        function()
    for name, function in tqdm(turns, desc=what, leave=False, disable=None):
        function()
        samples[name].append(sample(clock, function))
    return {name: summaries(found) for name, found in samples.items()}


def summaries(samples: list[Sample]) -> dict[str, Summary]:
    columns = zip(Sample._fields, zip(*samples, strict=True), strict=True)
    return {name: summary(values) for name, values in columns}


def summary(values: ArrayLike) -> Summary:
    p10, median, p90 = np.percentile(values, (10, 50, 90)).tolist()
    return {"median": median, "p10": p10, "p90": p90}
