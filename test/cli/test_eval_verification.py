# SPDX-License-Identifier: Apache-2.0
"""`scrfd eval verification` tells people apart in real images, says where it finds no face, and
refuses bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scrfd_ros.cli.main import main
from scrfd_ros.images.files import read_image, write_image
from scrfd_ros.models.download import ensure_picture


@pytest.fixture
def faces(
    tmp_path: Path, detector_path: Callable[[str], Path], recognizer_path: Callable[[str], Path]
) -> Path:
    """Pairs of four images, one of them empty."""
    detector_path("2.5g")
    recognizer_path("w600k_mbf")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("obama.jpg", "obama2.jpg", "biden.jpg"):
        (folder / name).symlink_to(ensure_picture(name))
    write_image(folder / "nobody.png", np.zeros((99, 99, 3), np.uint8))
    lines = [
        "picture_a,picture_b,same",
        "obama.jpg,obama2.jpg,1",
        "obama.jpg,biden.jpg,0",
        "biden.jpg,obama2.jpg,0",
        "biden.jpg,nobody.png,1",
    ]
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_results(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "results"
    command = ["eval", "verification", str(faces / "pairs.csv"), "--images", str(faces)]
    assert main([*command, "--output", str(output)]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "2 pairs of one person, 2 of different people" in text
    assert "4 images, 1 without a face; pairs with those, not accepted: 1" in text
    assert text.count("too few pairs of different people") == 3
    assert "no threshold to recommend" in text

    result = json.loads((output / "result.json").read_text())
    # Of the four comparisons of a pair of one person with one of different people, the pair without
    # a face loses both: it is not left out.
    assert result["area_under_curve"] == 0.5
    assert result["pictures_without_face"] == ["nobody.png"]
    assert result["pairs_without_face"] == 1
    assert result["accuracy"] is None
    for name in ("roc.png", "histogram.png"):
        assert read_image(output / name).shape == (500, 800, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--aligned"], "pixels; aligned faces have 112x112", id="not aligned"),
        pytest.param(["--recognizer", "none"], "needs a recognizer", id="no recognizer"),
        pytest.param(["--images", "nowhere"], "nowhere: lacks 4 of the 4 images", id="no folder"),
    ],
)
def test_bad_input(
    faces: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    command = ["eval", "verification", str(faces / "pairs.csv"), "--images", str(faces)]
    assert main([*command, "--output", str(tmp_path / "results"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("scrfd: error: ")
    assert message in error


def test_an_output_that_cannot_be_made_is_refused_before_the_work(
    faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = faces / "pairs.csv" / "results"
    command = ["eval", "verification", str(faces / "pairs.csv"), "--images", str(faces)]
    assert main([*command, "--output", str(output)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"scrfd: error: {output}/result.json: cannot write: Not a directory\n"
