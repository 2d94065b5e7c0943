# SPDX-License-Identifier: Apache-2.0
"""OpenCV touches no memory outside of an image; bench/guard_pages.py tries more sizes."""

from __future__ import annotations

import ctypes
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

import scrfd_ros

BENCH = Path(__file__).parents[1] / "bench"
# Functions of OpenCV that touch no image of the caller: sizes, settings, and the drawings of
# engines/drawn_faces.py, which are always the same.
NO_IMAGE = {"ellipse", "GaussianBlur", "getTextSize", "haveImageReader", "setNumThreads"}


@pytest.fixture
def guard_pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCH))
    import guard_pages

    # OpenCV starts its threads, as it has long done when all tests run.
    cv2.GaussianBlur(np.zeros((2000, 2000), np.uint8), (31, 31), 5)
    yield guard_pages
    del sys.modules["guard_pages"]


def test_every_function_of_opencv_is_tried(guard_pages: ModuleType) -> None:
    package = Path(scrfd_ros.__file__).parent
    text = "".join(path.read_text("utf-8") for path in package.rglob("*.py"))
    called = set(re.findall(r"cv2\.([a-zA-Z]+)\(", text)) - NO_IMAGE
    assert called == {name for call in guard_pages.CALLS for name in call.functions}


def test_opencv_stays_inside(
    guard_pages: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if cv2.__version__.startswith("4.5."):  # it refuses arrays of one pixel
        larger = tuple(size for size in guard_pages.SPECIAL if max(size) > 2)
        monkeypatch.setattr(guard_pages, "SPECIAL", larger)
    died = guard_pages.main(["--every", "100003", "--jobs", "2"])
    table = capsys.readouterr().out
    assert not died, table
    assert table.count("clean | clean") == len(guard_pages.CALLS)


def reading(offset: Callable[[int], int]) -> Callable[[Any], Callable[[int, int], object]]:
    """A call that reads one byte, at an offset that depends on the number of bytes."""

    def prepare(guarded: Any) -> Callable[[int, int], object]:
        def read(width: int, height: int) -> object:
            image = guarded.place(height, width, 3)
            return ctypes.string_at(image.ctypes.data + offset(image.nbytes), 1)

        return read

    return prepare


@pytest.mark.parametrize(
    ("offset", "row"),
    [
        (lambda size: size - 1, "4 | clean | clean"),
        (lambda size: size, "4 | 4 died: 1x1, 1x7, 5x5, 640x480 | clean"),
        (lambda size: -1, "4 | clean | 4 died: 1x1, 1x7, 5x5, 640x480"),
        (lambda size: size if size == 3 * 5 * 5 else 0, "4 | 1 died: 5x5 | clean"),
    ],
)
def test_one_byte_outside_is_seen(
    guard_pages: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    offset: Callable[[int], int],
    row: str,
) -> None:
    call = guard_pages.Call("a byte", (), reading(offset))
    monkeypatch.setattr(guard_pages, "CALLS", (call,))
    monkeypatch.setattr(guard_pages, "SPECIAL", ((1, 1), (1, 7), (5, 5), (640, 480)))
    assert guard_pages.main(["--every", "1000000"]) == ("died" in row)
    assert f"| a byte | none | {row} |" in capsys.readouterr().out


def test_results_are_guarded_too(
    guard_pages: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepare(guarded: Any) -> Callable[[int, int], object]:
        def write(width: int, height: int) -> None:
            result = guarded.place(height, width, 3).copy()
            ctypes.memset(result.ctypes.data + result.nbytes, 0, 1)

        return write

    monkeypatch.setattr(guard_pages, "CALLS", (guard_pages.Call("a write", (), prepare),))
    monkeypatch.setattr(guard_pages, "SPECIAL", ((2, 3),))
    assert guard_pages.main(["--every", "1000000"]) == 1
    assert "| a write | none | 1 | 1 died: 2x3 | clean |" in capsys.readouterr().out


def test_a_call_that_fails_is_no_result(
    guard_pages: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = guard_pages.Call("a failure", (), lambda guarded: lambda width, height: 1 // 0)
    monkeypatch.setattr(guard_pages, "CALLS", (call,))
    with pytest.raises(RuntimeError, match="a failure: failed at 1x1"):
        guard_pages.main(["--every", "1000000"])


def test_a_call_that_hangs_is_told(
    guard_pages: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(guarded: Any) -> Callable[[int, int], object]:
        return lambda width, height: time.sleep(3600)

    monkeypatch.setattr(guard_pages, "CALLS", (guard_pages.Call("a wait", (), prepare),))
    monkeypatch.setattr(guard_pages, "_LIMIT", 1)
    with pytest.raises(RuntimeError, match="a wait: ended by SIGALRM at 1x1"):
        guard_pages.main(["--every", "1000000", "--jobs", "2"])
