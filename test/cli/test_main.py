# SPDX-License-Identifier: Apache-2.0
"""The `scrfd` command knows its sub-commands and its exit statuses."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from scrfd_ros.cli import detect
from scrfd_ros.cli.main import _COMMANDS, main


@pytest.mark.parametrize("arguments", [[], *([name] for name in _COMMANDS)], ids=" ".join)
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(" ".join(["usage: scrfd", *arguments]))


def test_help_says_what_each_command_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["detect", "Find the faces in an image."] in lines
    assert any(line[:1] == ["models"] and len(line) == 2 for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param([], "required: COMMAND", id="no command"),
        pytest.param(["recognize"], "invalid choice: 'recognize'", id="unknown command"),
        pytest.param(["convert"], "required: MODEL, OUT", id="no model"),
        pytest.param(["detect", "a.jpg", "--color"], "arguments: --color\n", id="unknown option"),
        pytest.param(
            ["detect", "a.jpg", "--scores=1"],
            "usage: scrfd detect [-h]",
            id="the usage is that of the command",
        ),
        pytest.param(
            ["detect", "a.jpg", "--scores=1"],
            "arguments: --scores=1; did you mean --score?\n",
            id="misspelled option",
        ),
        pytest.param(
            ["eval", "wider-face", "DIR", "--protocl", "vga"],
            "arguments: --protocl vga; did you mean --protocol?\n",
            id="misspelled option of an evaluation",
        ),
        pytest.param(
            ["detect", "--input-size", "100x64"],
            "--input-size: expected auto, a longer side, or a width and a height, in multiples of "
            "32, at most 16777216 pixels in total, such as auto, 960 or 640x480, found '100x64'\n",
            id="a size that is none",
        ),
    ],
)
def test_usage_errors(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out.removeprefix("scrfd_ros ")
    if not list(metadata.distributions(name="scrfd_ros")):
        assert printed == "from a checkout, not installed\n"
    else:
        setup = (Path(__file__).parents[2] / "setup.cfg").read_text("utf-8")
        assert f"\nversion = {printed}" in setup


def test_bad_input_is_an_error_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["detect", str(tmp_path / "none.jpg")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("scrfd: error: ") and captured.err.count("\n") == 1


def test_interrupt_has_the_shells_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(detect, "run", interrupted)
    assert main(["detect", "any.jpg"]) == 130


def test_output_that_nobody_reads_to_its_end() -> None:
    read, write = os.pipe()
    os.close(read)
    code = "from scrfd_ros.cli.main import main; raise SystemExit(main(['models', '--list']))"
    process = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (process.returncode, process.stderr) == (1, b"")


def test_arguments_default_to_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["scrfd", "detect", str(tmp_path / "none.jpg")])
    assert main() == 2
    assert "none.jpg" in capsys.readouterr().err


@pytest.mark.parametrize("is_verbose", [False, True])
def test_details_are_told_on_demand(
    is_verbose: bool, detector_path: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    code = "import sys; from scrfd_ros.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "detect", "--recognizer=none"]
    command += ["--detector", str(detector_path("500m")), *["--verbose"] * is_verbose]
    assert subprocess.run(command, check=False).returncode == 0
    captured = capfd.readouterr()
    assert captured.out.startswith("t1.jpg: scrfd_500m_bnkps, ")
    assert ("threads for the networks" in captured.err) == is_verbose
    if not is_verbose:
        assert captured.err == ""


@pytest.mark.parametrize("name", _COMMANDS.keys() - {"eval", "gallery"})
def test_every_command_can_be_verbose(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert "--verbose" in capsys.readouterr().out
