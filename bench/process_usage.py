# SPDX-License-Identifier: Apache-2.0
"""Memory, threads and file descriptors of a process."""

from __future__ import annotations

from pathlib import Path

MEMORY, THREADS, DESCRIPTORS = "memory, KiB", "threads", "descriptors"


def usage(pid: int | str) -> dict[str, int]:
    """Resident memory in KiB, threads and open descriptors of a process; "self" for this one."""
    process = Path("/proc", str(pid))
    fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return {
        MEMORY: int(fields["VmRSS"].split()[0]),
        THREADS: int(fields["Threads"]),
        DESCRIPTORS: len(list((process / "fd").iterdir())),
    }
