# SPDX-License-Identifier: Apache-2.0
"""What commands print fits together: text, log lines and progress bars."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from scrfd_ros.cli.main import main
from scrfd_ros.cli.output import LogOutput, fitted


def test_log_lines_go_above_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.Logger("test")
    logger.addHandler(LogOutput())
    with tqdm(range(3), "searching", file=sys.stderr, ncols=80) as bar:
        logger.warning("an image cannot be read")
        bar.update()
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert "an image cannot be read" in lines
    assert lines.index("an image cannot be read") < len(lines) - 1
    assert lines[-1].startswith("searching: ")


def test_a_folder_that_is_made_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = tmp_path / "found" / "faces.png"
    arguments = ["detect", "--recognizer", "none", "--detector", "500m", "--output", str(drawn)]
    assert main([*arguments, "--json", str(drawn.with_suffix(".json"))]) == 0
    assert capsys.readouterr().err == f"scrfd: {drawn.parent} is a new folder\n"
    assert main(arguments) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Anna", "Anna    "),
        ("Annabell", "Annabell"),
        ("Annabella", "Annab..."),
        ("王小明", "王小明  "),
        ("王小明王小", "王小... "),
        ("Zoe\N{COMBINING DIAERESIS}", "Zoe\N{COMBINING DIAERESIS}     "),
        ("", "        "),
    ],
)
def test_texts_fit_their_column(text: str, expected: str) -> None:
    assert fitted(text, 8) == expected
