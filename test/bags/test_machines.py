# SPDX-License-Identifier: Apache-2.0
"""The faces that x86_64 and aarch64 find in the same pictures are equal within a tolerance.

bench/machines.py made the files, on x86_64 and in user-mode emulation of aarch64.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from scrfd_ros.bags.recordings import compare_recordings
from scrfd_ros.bags.tolerances import TOLERANCES

BENCH = Path(__file__).parents[2] / "bench"
FILES = Path(__file__).parent / "machines"


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCH))
    import machines

    yield machines
    del sys.modules["machines"]


def test_the_tolerance_is_needed_and_holds(machines: ModuleType) -> None:
    (ours, x86_64), (theirs, aarch64) = (
        machines.load(FILES / f"{machine}.npz") for machine in ("x86_64", "aarch64")
    )
    assert "x86_64" in ours and "aarch64" in theirs
    for found, golden in ((x86_64, aarch64), (aarch64, x86_64)):
        assert len(compare_recordings(found, golden).failures) == 2
        limits = TOLERANCES["another-machine"]
        comparison = compare_recordings(found, golden, limits)
        assert not comparison.failures
        figures = comparison.figures
        assert figures["faces"] > 60
        assert 1 - figures["min_iou"] < (1 - limits["min_iou"]) / 2
        for name in ("score_difference", "landmark_distance", "embedding_distance"):
            assert figures[f"max_{name}"] < limits[f"max_{name}"] / 2


def test_exactly_half_a_size_is_the_same(machines: ModuleType) -> None:
    first = (0, 0)
    assert machines.PARTS[0] == ("t1.jpg", (0, 0, 1280, 886))
    found, golden = (
        {first: machines.load(FILES / f"{machine}.npz")[1][first]}
        for machine in ("x86_64", "aarch64")
    )
    figures = compare_recordings(found, golden).figures
    assert figures["faces"] == 6
    assert figures["min_iou"] > 0.9999
    assert figures["max_landmark_distance"] < 1e-5
    assert figures["max_embedding_distance"] < 1e-5


@pytest.mark.skipif(platform.machine() != "x86_64", reason="takes long where it is emulated")
def test_here_the_same_faces_are_found(
    machines: ModuleType,
    detector_path: Callable[[str], Path],
    recognizer_path: Callable[[str], Path],
) -> None:
    detector_path("500m")
    recognizer_path("w600k_mbf")
    found = {(number, 0): faces for number, faces in enumerate(machines.find())}
    _, expected = machines.load(FILES / "x86_64.npz")
    assert not compare_recordings(found, expected).failures
