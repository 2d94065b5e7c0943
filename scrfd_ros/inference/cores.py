# SPDX-License-Identifier: Apache-2.0
"""How many processor cores this process may use, as in a container with a quota."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

MAX_THREADS = 256
"""Largest number of threads to ask for; more is a slip of the pen."""


def usable_cores(root: Path = Path("/")) -> int:
    """Cores that this process may keep busy, at least 1.

    The processors that its affinity allows (taskset, cpuset, `docker --cpuset-cpus`), with those
    that are threads of one core counted once, but not more than the quota of its control groups
    (`docker --cpus`, `CPUQuota=` of systemd, `limits.cpu` of Kubernetes); a fraction is rounded up.

    Args:
        root: folder that has proc and sys; another one than / is for tests.
    """
    allowed = os.sched_getaffinity(0)
    cores = len({_siblings(root, processor) for processor in allowed})
    return max(1, min([cores, *(math.ceil(quota) for quota in _quotas(root))]))


def _siblings(root: Path, processor: int) -> str:
    """What the processors of one core have in common; for a machine that does not tell, itself."""
    topology = root / f"sys/devices/system/cpu/cpu{processor}/topology"
    return _text(topology / "thread_siblings_list") or str(processor)


def _quotas(root: Path) -> Iterator[float]:
    """Cores' worth of time that each control group above this process grants, where it limits it.

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
    """Folders of a control group and of those it is in.

    The path may be that outside of a container, within which only its last group can be seen, at
    the top: what is not there is passed over.
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
    except (OSError, ValueError):  # not there, or not for us
        return ""
