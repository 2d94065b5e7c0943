# SPDX-License-Identifier: Apache-2.0
"""The tests that need a GPU, `test/gpu`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gpu.outcomes import Failure, NotRun

_ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path) -> dict[str, Any]:
    """Run them; their output goes to the log of the step."""
    report = folder / "logs" / "tests.xml"
    # Not `python -m pytest`, which would import the checkout.
    command = [sys.executable, "-c", "import pytest, sys; sys.exit(pytest.main())"]
    result = subprocess.run([*command, "test/gpu", f"--junitxml={report}"], cwd=_ROOT)
    suite = ElementTree.parse(report).find("testsuite")
    assert suite is not None
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    if counts["tests"] == counts["skipped"]:
        raise NotRun("all of them were skipped, see the log")
    if result.returncode:
        raise Failure("see the log", counts)
    return counts
