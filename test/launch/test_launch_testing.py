# SPDX-License-Identifier: Apache-2.0
"""launch_test_of_faces.py passes under launch_testing, as ROS 2 runs such tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

reason = "launch_testing comes with an installed ROS 2, no registry package has it"
pytest.importorskip("launch_testing", reason=reason)
pytest.importorskip("launch_ros", reason=reason)

LAUNCH_TEST = Path(__file__).parent / "launch_test_of_faces.py"


def test_launch_test_of_faces(
    detector_path: Callable[[str], Path], recognizer_path: Callable[[str], Path]
) -> None:
    detector_path("500m")
    recognizer_path("w600k_mbf")
    command = [sys.executable, "-m", "launch_testing.launch_test", LAUNCH_TEST]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    said = f"{result.stdout}{result.stderr}"
    assert result.returncode == 0, said
    assert said.count("Ran 1 test") == 2, said  # while it ran, and of its end
