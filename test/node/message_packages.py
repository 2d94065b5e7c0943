# SPDX-License-Identifier: Apache-2.0
"""Optional packages of messages, built for the tests if they are missing."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent / "optional_messages"
PACKAGES = ("foxglove_msgs", "hri_msgs", "rosbag2_interfaces")


def is_installed(package: str) -> bool:
    """Whether a node finds a package that was not built here."""
    command = [sys.executable, "-c", f"import {package}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def make_importable(folder: Path) -> dict[str, str]:
    """Build what is missing in the folder, for this process and for others.

    Returns:
        The environment variables with which another process finds it.
    """
    missing = [name for name in PACKAGES if not is_installed(name)]
    if not missing:
        return {}
    prefix = folder / "prefix"
    _build(missing, folder / "build", prefix)
    (modules,) = prefix.glob("lib/python*/site-packages")
    sys.path.append(str(modules))
    # A process looks for libraries where LD_LIBRARY_PATH said when it was started; one that is
    # loaded already is found by its name.
    for library in prefix.glob("lib/*.so"):
        ctypes.CDLL(str(library))
    places = {
        "PYTHONPATH": modules,
        "LD_LIBRARY_PATH": prefix / "lib",
        "AMENT_PREFIX_PATH": prefix,
    }
    return {
        name: os.pathsep.join(filter(None, (str(place), os.environ.get(name))))
        for name, place in places.items()
    }


def _build(packages: list[str], folder: Path, prefix: Path) -> None:
    environment = os.environ | {"CMAKE_PREFIX_PATH": os.environ["AMENT_PREFIX_PATH"]}
    options = {
        "CMAKE_INSTALL_PREFIX": prefix,
        "CMAKE_INSTALL_RPATH": "$ORIGIN",
        "CMAKE_C_FLAGS": "-O0",
        "CMAKE_CXX_FLAGS": "-O0",
        "Python3_EXECUTABLE": sys.executable,
        "PACKAGES": ";".join(packages),
        "BUILD_TESTING": "OFF",
    }
    configure = ["cmake", "-G", "Ninja", "-S", SOURCE, "-B", folder]
    configure += [f"-D{name}={value}" for name, value in options.items()]
    for command in (configure, ["cmake", "--build", folder, "--target", "install"]):
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"{result.stdout[-5000:]}{result.stderr[-5000:]}"
