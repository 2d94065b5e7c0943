# SPDX-License-Identifier: Apache-2.0
"""Memory of this process; for programs that import nothing else of this folder."""

from __future__ import annotations

import re
from pathlib import Path


def peak_memory() -> float:
    """MiB that were resident at most."""
    (kibibytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kibibytes) / 1024
