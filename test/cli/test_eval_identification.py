# SPDX-License-Identifier: Apache-2.0
"""`scrfd eval identification` tells enrolled people from strangers in real images, names what it
leaves out, and refuses folders that it cannot use."""

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
def people(
    tmp_path: Path, detector_path: Callable[[str], Path], recognizer_path: Callable[[str], Path]
) -> Path:
    """Three images of one person, one of another, one of nobody."""
    detector_path("2.5g")
    recognizer_path("w600k_mbf")
    folder = tmp_path / "people"
    for name, person in (
        ("obama.jpg", "obama"),
        ("obama2.jpg", "obama"),
        ("obama3.jpg", "obama"),
        ("biden.jpg", "biden"),
    ):
        (folder / person).mkdir(exist_ok=True, parents=True)
        (folder / person / name).symlink_to(ensure_picture(name))
    write_image(folder / "biden" / "nobody.png", np.zeros((99, 99, 3), np.uint8))
    return folder


def test_results(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (people / "obama" / "copy.jpg").write_bytes((people / "obama" / "obama.jpg").read_bytes())
    output = tmp_path / "results"
    command = ["eval", "identification", str(people), "--output", str(output), "--splits", "2"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "1 images are there twice for one person" in text
    assert "5 images, 1 without a face" in text
    assert text.count("too few searches of strangers") == 3
    assert "1 searches of 1 enrolled people, 1 of 1 strangers" in text

    result = json.loads((output / "result.json").read_text(), parse_constant=pytest.fail)
    assert result["people"] == 2
    assert [Path(name).name for name in result["images_without_face"]] == ["nobody.png"]
    (by_one,) = result["by_looks"]  # nobody has three images to be searched by
    assert by_one["suggested"] is None
    configured = by_one["configured"]
    assert (configured["dir"], configured["fpir"]) == (1, 0)
    # One person enrolled: nobody is second, and the margin is infinite, but no figure is.
    similar = result["most_similar_different_people"]
    assert len(similar) == 3  # obama's three images and biden's
    assert max(each["similarity"] for each in similar) < 0.3
    assert read_image(output / "dir.png").shape == (500, 800, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--aligned"], "pixels; aligned faces have 112x112", id="not aligned"),
        pytest.param(["--recognizer", "none"], "needs a recognizer", id="no recognizer"),
        pytest.param(["--min-quality", "1"], "nobody has two images with a face", id="quality"),
    ],
)
def test_bad_input(
    people: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    command = ["eval", "identification", str(people), "--output", str(tmp_path / "results")]
    assert main([*command, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("scrfd: error: ")
    assert message in error


@pytest.mark.parametrize(
    "arguments",
    [["--enrolled", "0"], ["--enrolled", "2"], ["--splits", "0"], ["--templates", "-1"]],
    ids=" ".join,
)
def test_bad_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["eval", "identification", str(tmp_path), *arguments])
    assert f"found {arguments[1]!r}" in capsys.readouterr().err
