# SPDX-License-Identifier: Apache-2.0
"""The report counts what passed, failed, was skipped, and crashed. Here nothing is emulated."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

TESTS = """
import pytest
def test_good(): pass
def test_bad(): assert 1 == 2
@pytest.mark.skip("no need")
def test_skipped(): pass
"""
CRASH = """
import os, signal
def test_before(): pass
def test_crash(): os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    program = importlib.import_module("aarch64.__main__")
    parts = {}
    for name, text in (("good and bad", TESTS), ("crash", CRASH)):
        path = tmp_path / f"test_{name[:5].strip()}.py"
        path.write_text(text)
        parts[name] = [str(path)]
    monkeypatch.setattr(program, "PARTS", parts)
    monkeypatch.setattr(program, "EMULATED", False)
    monkeypatch.setattr(program, "FOLDER", tmp_path)
    monkeypatch.setattr(program, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(program, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["test-aarch64"])
    monkeypatch.setattr(program, "ensure_picture", lambda name: None)
    return program


def test_counts(program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main() == 1
    report = (tmp_path / "report.md").read_text("utf-8")
    assert "| good and bad | 1 | 1 | 1 |" in report
    assert "failure: test_good::test_bad: assert 1 == 2\n" in report
    assert "skipped: test_good::test_skipped: no need\n" in report
    assert "| crash | 0 | 1 | 0 |" in report
    assert "crash: SIGSEGV after " in report and report.count("test_before") == 1
    assert "| together | 1 | 2 | 1 |" in report
    rows = [line for line in capsys.readouterr().out.splitlines() if " passed " in line]
    assert len(rows) == 2 and max(map(len, rows)) <= 80


def test_unknown_part(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["test-aarch64", "engines"])
    with pytest.raises(SystemExit):
        program.main()
