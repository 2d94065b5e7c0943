# SPDX-License-Identifier: Apache-2.0
"""What commands print fits together: text, log lines and progress bars."""

from __future__ import annotations

import logging
import sys

import pytest
from tqdm import tqdm

from scrfd_ros.cli.output import LogOutput


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
