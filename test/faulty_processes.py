# SPDX-License-Identifier: Apache-2.0
"""Children of this process that are killed, run out of disk, or may not write."""

from __future__ import annotations

import gc
import os
import random
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

LONGEST = 60
"""Seconds that a child may take."""
NOBODY = 65534
"""A user whom folders can be closed to, unlike root."""


def outcome_in_child(
    function: Callable[[], object],
    *,
    largest_file: int | None = None,
    as_other_user: bool = False,
    killed_at: int | None = None,
    traced: str = "",
) -> tuple[str, int]:
    """Call a function in a child process.

    Args:
        function: what to call.
        largest_file: bytes after which nothing more can be written to a file, as on a full disk.
        as_other_user: if this process is root's, to whom every folder is open, become somebody.
        killed_at: kill the child before this line of the traced files, counted from 0.
        traced: a part of their paths.

    Returns:
        outcome: empty; or the exception, with its type; or "killed".
        lines: how many lines of the traced files were run.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # Taking down networks that earlier tests left would wait for threads that are not here.
        gc.disable()
        try:
            lines = 0

            def trace(frame: FrameType, event: str, argument: Any) -> Any:
                nonlocal lines
                if traced not in frame.f_code.co_filename:
                    return None
                if event == "line":
                    if lines == killed_at:
                        os.kill(os.getpid(), signal.SIGKILL)
                    lines += 1
                return trace

            signal.alarm(LONGEST)
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
            if as_other_user and os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            outcome = ""
            sys.settrace(trace if traced else None)
            try:
                function()
            except Exception as error:
                outcome = f"{type(error).__name__}: {error}"
            sys.settrace(None)
            os.write(writer, f"{lines} {outcome}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        content = stream.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        ended_by = signal.Signals(os.WTERMSIG(status))
        assert ended_by is signal.SIGKILL, f"the child was ended by {ended_by.name}"
        return "killed", 0
    count, _, outcome = content.partition(" ")
    return outcome, int(count)


def kills(function: Callable[[], object], traced: str, max_kills: int = 1000) -> Iterator[int]:
    """Kill children that call a function, each before another line; first let one finish.

    Args:
        function: what to call.
        traced: a part of the paths of the files whose lines count.
        max_kills: if there are more lines, this number of them, with the first and the last.

    Yields the number of the line after each child: then the caller looks at what is left, and makes
    it as it was before.
    """
    outcome, lines = outcome_in_child(function, traced=traced)
    assert outcome == "" and lines > 1
    yield lines
    numbers = set(range(lines))
    if lines > max_kills:
        numbers = {0, lines - 1, *random.Random(0).sample(range(lines), max_kills - 2)}
    for number in sorted(numbers):
        outcome, _ = outcome_in_child(function, traced=traced, killed_at=number)
        assert outcome in ("killed", "")  # the network can save a line
        yield number


def open_to_all(folder: Path) -> None:
    """Let other users through to a folder of pytest's, if this process is root's."""
    if os.geteuid() == 0:
        for path in (folder, *folder.parents):
            if path.stat().st_mode & 0o055 != 0o055:
                path.chmod(path.stat().st_mode | 0o055)
