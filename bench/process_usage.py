# SPDX-License-Identifier: Apache-2.0
"""What a process holds: memory, threads, file descriptors."""

from __future__ import annotations

from pathlib import Path

MEMORY, THREADS, DESCRIPTORS = "memory, KiB", "threads", "descriptors"


def usage(pid: int | str) -> dict[str, int]:
    """Of a process, "self" for this one: resident memory in KiB, threads, open descriptors."""
    process = Path("/proc", str(pid))
    fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return {
        MEMORY: int(fields["VmRSS"].split()[0]),
        THREADS: int(fields["Threads"]),
        DESCRIPTORS: len(list((process / "fd").iterdir())),
    }
