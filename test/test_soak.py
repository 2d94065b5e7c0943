# SPDX-License-Identifier: Apache-2.0
"""A short soak completes, and a leak, a lost image or a missing answer is reported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCH))
    import soak

    yield soak
    for name in ("soak", "full_rate", "process_usage"):
        del sys.modules[name]


def test_a_short_soak(
    tmp_path: Path, detector_path: Callable[[str], Path], recognizer_path: Callable[[str], Path]
) -> None:
    detector_path("500m")
    recognizer_path("w600k_mbf")
    report, plot = tmp_path / "soak.json", tmp_path / "soak.png"
    command = [sys.executable, BENCH / "soak.py", "--minutes", "0.35"]
    result = subprocess.run(
        [*map(str, command), "--json", str(report), "--plot", str(plot)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    content = json.loads(report.read_text())
    assert len(content["samples"]) >= 20
    assert len({kind for _, kind in content["faults"]}) >= 3
    for images in content["images"].values():
        assert images["sent"] > 100 and images["answered"] > 0
    assert cv2.imread(str(plot)).shape == (800, 800, 3)


@pytest.mark.parametrize(
    ("growth", "noise", "flat"),
    [(0, 0, True), (0, 3, True), (100, 3, False), (-100, 3, True), (1, 0.1, True), (4, 0.1, False)],
    ids=["constant", "noise", "leak", "shrinks", "within the limit", "small leak"],
)
def test_a_leak_is_told(soak: ModuleType, growth: float, noise: float, flat: bool) -> None:
    random = np.random.default_rng(0)
    values = 100 + np.linspace(0, 2 * growth, 1000) + np.abs(random.normal(0, noise, 1000))
    values[::50] += 300  # peaks of large images
    found = soak.trend(values.tolist(), 0.02)
    assert found.is_flat == flat
    # The slope of a line through equal values is a rounding error, which differs between
    # processors.
    rounding = 1e-9 * found.level
    assert abs(found.growth - 0.9 * growth) <= found.uncertainty + 0.01 * abs(growth) + rounding


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({}, ""),
        ({"in no count": 21}, "21 images in no count"),
        ({"in no count": -1}, "-1 images in no count"),
        ({"answers that came": 47}, ""),
        ({"answers that came": 46}, "answers are missing"),
        ({"answers that came": 51}, "answers are missing, or too many"),
        ({"to images not sent": 1}, "answers are missing, or too many"),
    ],
    ids=[
        "good",
        "lost",
        "counted twice",
        "before discovery",
        "answer lost",
        "answer twice",
        "answer to nothing",
    ],
)
def test_wrong_counts_are_told(soak: ModuleType, changes: dict[str, int], complaint: str) -> None:
    images = {"in no count": 5, "sent while not all is counted": 20, "answered": 50}
    images |= {"answers that came": 50, "sent while not all is heard": 3}
    images |= {"to images not sent": 0, **changes}
    assert complaint in "; ".join(soak.wrong_counts("front", images))
    assert bool(soak.wrong_counts("front", images)) == bool(complaint)
