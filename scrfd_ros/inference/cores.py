# SPDX-License-Identifier: Apache-2.0
"""The processor: its name, and how many cores this process may use, as in a container."""

from __future__ import annotations

import contextlib
import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path

MAX_THREADS = 256
"""Maximum number of threads; a larger one is a typing error."""


def usable_cores(root: Path = Path("/")) -> int:
    """Number of cores that this process may use, at least 1.

    These are the processors that its affinity allows (taskset, cpuset, `docker --cpuset-cpus`),
    where threads of one core count once, limited by the quota of its control groups (`docker
    --cpus`, `CPUQuota=` of systemd, `limits.cpu` of Kubernetes), rounded up.

    Args:
        root: folder with proc and sys; tests pass another one than /.
    """
    allowed = os.sched_getaffinity(0)
    cores = len({_siblings(root, processor) for processor in allowed})
    return max(1, min([cores, *(math.ceil(quota) for quota in _quotas(root))]))


def processor_name() -> str:
    """Name of the processor, or of the board where processors have none, as on a Jetson."""
    processors, board = Path("/proc/cpuinfo"), Path("/proc/device-tree/model")
    if processors.exists():
        for line in processors.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return board.read_text().rstrip("\0") if board.exists() else platform.machine()


def _siblings(root: Path, processor: int) -> str:
    """A text that the processors of one core share; the processor itself if that is unknown."""
    topology = root / f"sys/devices/system/cpu/cpu{processor}/topology"
    return _text(topology / "thread_siblings_list") or str(processor)


def _quotas(root: Path) -> Iterator[float]:
    """Quota, in cores, of each control group of this process that has one.

    https://docs.kernel.org/admin-guide/cgroup-v2.html and, for the older kind,
    https://docs.kernel.org/scheduler/sched-bwc.html.
    """
    mounts = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            for group in _groups((mounts, mounts / "unified"), path):
                yield from _quota(*[*_text(group / "cpu.max").split(), "", ""][:2])
        elif "cpu" in controllers.split(","):
            for group in _groups((mounts / controllers, mounts / "cpu"), path):
                quota, period = (
                    _text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period")
                )
                yield from _quota(quota, period)


def _groups(mounts: tuple[Path, ...], path: str) -> Iterator[Path]:
    """Folders of a control group and of its parents.

    The path may be the one outside a container, inside of which only its last group is visible, at
    the top. Callers skip folders that do not exist.
    """
    group = Path(os.path.normpath(f"/{path.lstrip('/')}"))  # no way up from the top
    for mount in mounts:
        for one in (group, *group.parents):
            yield mount / one.relative_to("/")


def _quota(quota: str, period: str) -> Iterator[float]:
    # "max" in version 2 and -1 in version 1 stand for no limit.
    with contextlib.suppress(ValueError):
        if int(quota) > 0 and int(period) > 0:
            yield int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):  # missing, or not readable
        return ""
