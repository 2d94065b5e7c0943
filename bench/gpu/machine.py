# SPDX-License-Identifier: Apache-2.0
"""What the figures depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scrfd_ros.evaluation.benchmark import machine_info
from scrfd_ros.inference.cuda import device_memory
from scrfd_ros.inference.cuda_api import cuda_api
from scrfd_ros.inference.tensorrt_library import load_tensorrt

_DRIVER = (Path("/proc/driver/nvidia/version"), Path("/etc/nv_tegra_release"))
"""Files whose first line names the driver: on a Jetson the second."""


def describe(folder: Path) -> dict[str, Any]:
    """GPU, versions and memory; fails with the reason if engines cannot run here."""
    _, here = load_tensorrt()
    used, total = device_memory()
    return {
        **machine_info(),
        "gpu": here.gpu,
        "driver": next((_first_line(path) for path in _DRIVER if path.exists()), None),
        "cuda_from_python": cuda_api().name,
        "device_memory_mib": total >> 20,
        "device_memory_used_mib": used >> 20,
    }


def _first_line(path: Path) -> str:
    return path.read_text().partition("\n")[0]
