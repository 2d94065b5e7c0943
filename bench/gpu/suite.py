# SPDX-License-Identifier: Apache-2.0
"""The tests that need a GPU, `test/gpu`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpu.outcomes import Failure, NotRun

_ROOT = Path(__file__).resolve().parents[2]
_NO_TESTS = 5  # exit status of pytest


def run(folder: Path) -> dict[str, Any]:
    """Run them; their output goes to the log of the step."""
    command = [sys.executable, "-c", "import pytest, sys; sys.exit(pytest.main())"]
    # Not `python -m pytest`, which would import the checkout.
    result = subprocess.run(
        [*command, "-p", "no:cacheprovider", "test/gpu"],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(result.stdout)
    *_, last = result.stdout.strip().split("\n")
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", last)}
    counts.pop("warnings", None)
    if result.returncode == _NO_TESTS or set(counts) == {"skipped"}:
        raise NotRun(f"pytest: {last}")
    if result.returncode:
        raise Failure(f"pytest: {last}", counts)
    return counts
