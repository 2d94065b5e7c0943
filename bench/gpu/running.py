# SPDX-License-Identifier: Apache-2.0
"""Run steps one after the other, each in a process of its own with a time limit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
INTERRUPTED = "interrupted"
"""The reason for the row of the step that ran when a signal arrived."""

_STEP = Path(__file__).with_name("step.py")
_POLL = 0.05  # seconds
_LAST_LINES = 3  # of the log of a step that crashed


@dataclass(frozen=True)
class Step:
    """Something to try.

    Attributes:
        name: of its row.
        function: that does it, as "module.function" of this package; see `step`.
        arguments: of the function, besides the folder.
        limit: maximum time, seconds.
        needs_ros: it starts a ROS 2 node.
        is_needed: without it no other step makes sense.
    """

    name: str
    function: str
    arguments: tuple[Any, ...] = ()
    limit: float = 120.0
    needs_ros: bool = False
    is_needed: bool = False


@dataclass
class Row:
    """What became of a step.

    Attributes:
        name: of the step.
        outcome: `PASSED`, `FAILED` or `NOT_RUN`.
        reason: why it failed or was not run.
        seconds: that it took.
        figures: what it measured.
    """

    name: str
    outcome: str = NOT_RUN
    reason: str = "the run ended before it"
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)


class Interrupted(Exception):
    """SIGINT or SIGTERM arrived."""


def run_all(
    steps: Sequence[Step],
    folder: Path,
    seconds: float,
    without_ros: str,
    written: Callable[[list[Row]], None],
) -> list[Row]:
    """Run the steps in order; a step that fails costs its own row only.

    Args:
        folder: for what the steps write; their logs go to its folder logs.
        seconds: for all steps together.
        without_ros: why there is no ROS 2 here; empty if there is.
        written: called with all rows before the first step and after each.

    Returns:
        One row for each step, in order. If SIGINT or SIGTERM arrives, the step that runs and all
        later ones are not run.
    """
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    rows = [Row(step.name) for step in steps]
    written(rows)
    end = time.monotonic() + seconds
    with contextlib.suppress(Interrupted), _signals_raise(), _bar(steps) as bar:
        for step, row in zip(bar, rows, strict=True):
            bar.set_description(step.name)
            left = end - time.monotonic()
            if left <= 0:
                row.reason = "no time left"
            elif step.needs_ros and without_ros:
                row.reason = without_ros
            else:
                row.reason = INTERRUPTED  # unless it ends
                _run(step, row, folder, left)
            bar.write(_line(row))
            written(rows)
            if step.is_needed and row.outcome != PASSED:
                for later in rows[rows.index(row) + 1 :]:
                    later.reason = row.reason
                break
    written(rows)
    return rows


def _run(step: Step, row: Row, folder: Path, left: float) -> None:
    """Run a step for at most its limit and the seconds left."""
    log, result = (folder / "logs" / f"{step.name}{end}" for end in (".log", ".json"))
    result.unlink(missing_ok=True)
    start = time.monotonic()
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [
                *(sys.executable, str(_STEP), str(folder), str(result)),
                *(step.function, json.dumps(step.arguments)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it starts ends with it
        )
        try:
            while process.poll() is None and time.monotonic() < start + min(step.limit, left):
                time.sleep(_POLL)
            status = process.poll()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            row.seconds = round(time.monotonic() - start, 1)
    found = json.loads(result.read_text()) if result.exists() else {"figures": {}}
    row.outcome, row.figures = FAILED, found["figures"]
    if status is None and left < step.limit:
        row.outcome, row.reason = NOT_RUN, "no time left"
    elif status is None:
        row.reason = f"not done after {step.limit:.1f} s"
    elif status == 0 and result.exists():
        row.outcome, row.reason = found["outcome"], found["reason"]
    else:
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        said = log.read_text(errors="replace").split("\n")
        last = "; ".join([line.strip() for line in said if line.strip()][-_LAST_LINES:])
        row.reason = f"its process ended {how}, and said: {last}"
    result.unlink(missing_ok=True)


def _bar(steps: Sequence[Step]) -> Any:
    return tqdm(steps, "steps", leave=False, disable=None)


def _line(row: Row) -> str:
    """A row for the terminal, in 80 columns; the report has all of it."""
    text = f"{row.outcome:8}{row.seconds:6.1f} s  {row.name}"
    if row.reason:
        text += f": {row.reason}"
    return text if len(text) <= 80 else f"{text[:77]}..."


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Within it SIGINT and SIGTERM raise `Interrupted`."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, interrupt) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
