# SPDX-License-Identifier: Apache-2.0
"""Every test is run on aarch64, or there is a reason why not."""

from __future__ import annotations

from pathlib import Path

import pytest
from aarch64.parts import LEFT_OUT, PARTS

ROOT = Path(__file__).parents[2]
RUN = [path for paths in PARTS.values() for path in paths]
TESTS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("test/**/test_*.py"))


def is_named(test: str, names: list[str]) -> bool:
    """Whether a file of tests, a folder above it, or a test in it is one of these."""
    return any(test == name.split("::")[0] or test.startswith(f"{name}/") for name in names)


@pytest.mark.parametrize("name", [*RUN, *LEFT_OUT])
def test_exists(name: str) -> None:
    path, *test = name.split("::")
    assert (ROOT / path).exists()
    if test:
        assert f"\ndef {test[0]}" in (ROOT / path).read_text("utf-8")


def test_every_file_is_run_or_left_out() -> None:
    assert [test for test in TESTS if not is_named(test, [*RUN, *LEFT_OUT])] == []


def test_nothing_is_run_twice() -> None:
    twice = [test for test in TESTS if sum(is_named(test, [name]) for name in RUN) > 1]
    assert twice == []
