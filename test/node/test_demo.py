# SPDX-License-Identifier: Apache-2.0
"""The demonstration as `ros2 run scrfd_ros demo` starts it, in an environment without a profile."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from ament_index_python.packages import get_package_prefix

LONGEST = 300  # seconds, on a machine that is busy with other tests


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if "PROFILES_FILE" not in name}
    return subprocess.run(
        [Path(get_package_prefix("scrfd_ros"), "lib", "scrfd_ros", "demo"), *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=LONGEST,
    )  # fmt: skip


def test_finds_the_people_without_a_transport_profile(tmp_path: Path) -> None:
    result = demo(tmp_path)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    # What a newcomer sees is about faces, and fits.
    assert lines[0].startswith("Looking for the people in t1.jpg")
    assert "6 people, all different" in result.stdout
    assert len(lines) <= 14 and max(map(len, lines)) <= 80
    assert "CUDA" not in result.stdout + result.stderr
    assert len(json.loads((tmp_path / "output" / "demo.json").read_text())["faces"]) == 6


@pytest.mark.parametrize(
    ("argument", "status", "text"),
    [("--help", 0, "usage: demo"), ("--color", 2, "unrecognized arguments: --color")],
)
def test_arguments(argument: str, status: int, text: str, tmp_path: Path) -> None:
    result = demo(tmp_path, argument)
    assert result.returncode == status
    assert text in result.stdout + result.stderr
    assert not list(tmp_path.iterdir())  # it has not run
