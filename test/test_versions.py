# SPDX-License-Identifier: Apache-2.0
"""The run with other versions finds interpreters, counts results, and says what it did not run.

That run itself is a command of its own: ./run.sh test-versions.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import versions

ROOT = Path(__file__).resolve().parents[1]
HERE = "{}.{}".format(*sys.version_info)


def fake_python(path: Path, answer: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{answer}\n")
    path.chmod(0o755)


@pytest.fixture
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No interpreters in PATH, which is a folder of this one, nor of pyenv."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setattr(versions, "ENVIRONMENTS", tmp_path / "environments")
    return tmp_path


def test_an_interpreter_in_path_is_taken(empty_machine: Path) -> None:
    python = empty_machine / "bin" / f"python{HERE}"
    fake_python(python, f'exec {sys.executable} "$@"')
    assert versions.find_interpreter(HERE) == str(python)


def test_a_shim_that_fails_is_passed_over_for_the_interpreter_of_pyenv(
    empty_machine: Path,
) -> None:
    fake_python(empty_machine / "bin" / f"python{HERE}", "exit 127")
    python = empty_machine / "pyenv" / "versions" / f"{HERE}.9" / "bin" / f"python{HERE}"
    fake_python(python, f'exec {sys.executable} "$@"')
    assert versions.find_interpreter(HERE) == str(python)


def test_an_interpreter_of_another_version_is_not_taken(empty_machine: Path) -> None:
    fake_python(empty_machine / "bin" / "python3.99", f'exec {sys.executable} "$@"')
    assert versions.find_interpreter("3.99") is None


def test_what_cannot_be_run_is_told(
    empty_machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert versions.main(["humble"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("humble: not run: no Python 3.10 ")
    row = printed.out.splitlines()[-1]
    assert row.startswith("| humble | 3.10 |") and row.endswith("| not run |")


def test_packages_that_cannot_be_installed_are_told(
    empty_machine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(versions.DISTRIBUTIONS, "humble", versions.Versions(HERE, ()))
    fake_python(empty_machine / "bin" / f"python{HERE}", f"[ $1 = -c ] && echo {HERE}")
    assert versions.main(["humble"]) == 1
    assert "the packages cannot be installed, see " in capsys.readouterr().err


def test_packages_are_those_of_the_other_tests() -> None:
    """But for tools, for ROS 2, and for what compiles or builds for a GPU.

    And for faiss, which needs a later numpy than Humble's.
    """
    others = {"coverage", "ruff", "mypy", "cyclonedds", "catkin-pkg", "cmake", "ninja"}
    others |= {"setuptools", "colcon-common-extensions", "tensorrt-rtx-cu13-", "nvidia-cuda-"}
    others |= {"faiss-cpu"}
    script = (ROOT / "run.sh").read_text("utf-8")
    listed = shlex.split(script.split("\ntest_packages=(\n")[1].split("\n)\n")[0])
    names = {package: re.match(r"[\w-]+", package) for package in listed}
    wanted = {package for package, name in names.items() if name and name[0] not in others}
    assert wanted | {"onnxruntime"} == set(versions.PACKAGES)
    assert [f"insightface={name}" for name in versions.WITHOUT_REQUIREMENTS] == [
        line for line in script.splitlines() if line.startswith("insightface=")
    ]


def test_results_are_counted(tmp_path: Path) -> None:
    results = tmp_path / "results.xml"
    suite = '<testsuite tests="9" failures="1" errors="2" skipped="3"/>'
    results.write_text(f"<testsuites>{suite}</testsuites>")
    assert versions.counts(results) == {"passed": 3, "failed": 3, "skipped": 3}


def test_what_needs_ros_is_skipped_and_the_rest_is_run(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("import rclpy\n\ndef test_one(): pass\n")
    (tmp_path / "test_two.py").write_text("def test_two(): pass\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "without_ros", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT / "test")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "needs ROS 2: imports rclpy" in run.stdout
    assert "1 passed, 1 skipped" in run.stdout, run.stdout
