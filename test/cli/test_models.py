# SPDX-License-Identifier: Apache-2.0
"""`scrfd models` says what is there, what the license allows, and what went wrong."""

from __future__ import annotations

import argparse
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from scrfd_ros.cli import models
from scrfd_ros.errors import DownloadError, ModelError
from scrfd_ros.models.catalogue import load_catalogue


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    models.add_arguments(parser)
    return models.run(parser.parse_args(arguments))


def states(output: str) -> dict[str, str]:
    """Model -> state, from a printed table."""
    names = load_catalogue().names()
    rows = [line.split() for line in output.splitlines()]
    return {row[0]: row[-1] for row in rows if row and row[0] in names}


def test_the_list_tells_present_from_corrupt_and_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scrfd_2.5g_bnkps.onnx").write_bytes(bytes(3_291_739))
    (tmp_path / "scrfd_34g.onnx").write_bytes(b"by hand")
    assert run("--list", "--directory", str(tmp_path)) == 0
    output = capsys.readouterr().out
    expected = dict.fromkeys(load_catalogue().names(), "missing")
    expected |= {"2.5g": "corrupt", "34g": "unverified"}
    assert states(output) == expected
    lines = output.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert [line.split()[0] for line in lines if line.endswith("state")] == [
        "detector",
        "recognizer",
        "super_resolution",
    ]
    assert "`scrfd models NAME` fetches it again" in lines[-3]
    assert "`scrfd models NAME` pins that of the file" in lines[-2]
    assert lines[-1] == f"in {tmp_path}"


def test_the_list_can_be_of_some_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list", "10g", "arcface_r100", "w600k_r50") == 0
    assert list(states(capsys.readouterr().out)) == ["10g", "w600k_r50"]


def test_a_file_put_in_place_by_hand_is_verified(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    detector_path: Callable[[str], Path],
) -> None:
    path = tmp_path / "scrfd_2.5g_bnkps.onnx"
    shutil.copy(detector_path("2.5g"), path)
    assert run("--list", "2.5g", "--directory", str(tmp_path)) == 0
    assert states(capsys.readouterr().out) == {"2.5g": "present"}


def test_a_detector_of_one_size_is_changed_to_take_any(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    detector_path: Callable[[str], Path],
) -> None:
    path = tmp_path / "scrfd_2.5g_bnkps.onnx"
    shutil.copy(detector_path("2.5g"), path)
    takes = "2.5g: this file takes 640x640 only; "
    assert run("--list", "2.5g", "--directory", str(tmp_path)) == 0
    assert f"{takes}it is changed for others when they are first needed" in (
        capsys.readouterr().out.splitlines()
    )
    assert run("2.5g", "--directory", str(tmp_path)) == 0
    output = capsys.readouterr().out
    assert f"{takes}the one in adapted/free_size takes any" in output.splitlines()
    assert states(output) == {"2.5g": "present"}
    assert (tmp_path / "adapted" / "free_size" / path.name).exists()


def test_a_detector_that_cannot_be_changed_is_good_without(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    detector_path: Callable[[str], Path],
) -> None:
    shutil.copy(detector_path("2.5g"), tmp_path / "scrfd_2.5g_bnkps.onnx")
    (tmp_path / "adapted").write_text("a file where a folder is wanted")
    assert run("2.5g", "--directory", str(tmp_path)) == 0
    output = capsys.readouterr().out
    assert output.startswith("2.5g: could not be changed to take any input size: ")
    assert states(output) == {"2.5g": "present"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="changed on x86_64 only")
def test_a_recognizer_is_changed_where_that_makes_it_faster(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recognizer_path: Callable[[str], Path],
) -> None:
    path = tmp_path / "w600k_mbf.onnx"
    shutil.copy(recognizer_path("w600k_mbf"), path)
    assert run("w600k_mbf", "--directory", str(tmp_path)) == 0
    assert states(capsys.readouterr().out) == {"w600k_mbf": "present"}
    changed = tmp_path / "adapted" / "prelu"
    assert {each.name for each in changed.iterdir()} == {path.name, f"{path.name}.json"}
    shutil.rmtree(tmp_path / "adapted")
    (tmp_path / "adapted").write_text("a file where a folder is wanted")
    assert run("w600k_mbf", "--directory", str(tmp_path)) == 0
    assert "w600k_mbf: could not be changed to take less time: " in capsys.readouterr().out


@pytest.mark.parametrize("position", [0, 1_000_000, -1], ids=["first", "within", "last"])
def test_a_wrong_byte_is_found(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    detector_path: Callable[[str], Path],
    position: int,
) -> None:
    content = bytearray(detector_path("2.5g").read_bytes())
    content[position] ^= 1
    (tmp_path / "scrfd_2.5g_bnkps.onnx").write_bytes(content)
    assert run("--list", "2.5g", "--directory", str(tmp_path)) == 0
    assert states(capsys.readouterr().out) == {"2.5g": "corrupt"}


def test_a_file_without_published_checksum_is_pinned(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    detector_path: Callable[[str], Path],
) -> None:
    path = tmp_path / "scrfd_34g.onnx"
    shutil.copy(detector_path("500m"), path)  # stands for any ONNX file
    assert run("34g", "--directory", str(tmp_path)) == 0
    output = capsys.readouterr()
    assert states(output.out) == {"34g": "present"}
    assert "no checksum is published" in output.err
    path.write_bytes(path.read_bytes() + b"?")
    assert run("--list", "34g", "--directory", str(tmp_path)) == 0
    assert states(capsys.readouterr().out) == {"34g": "corrupt"}


def test_a_failure_is_reported_after_license_and_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scrfd_34g.onnx").write_bytes(b"by hand")
    with pytest.raises(DownloadError, match=r"scrfd_34g.onnx is not a whole ONNX file"):
        run("34g", "--directory", str(tmp_path))
    output = capsys.readouterr().out
    license, table = output.index("non-commercial research only"), output.index("state")
    assert license < table
    assert states(output) == {"34g": "unverified"}
    assert max(map(len, output.splitlines()[:-1])) <= 80


def test_an_unknown_name_fetches_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"did you mean 2.5g"):
        run("500m", "25g", "--directory", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_default_is_a_detector_and_a_recognizer(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    detector_path: Callable[[str], Path],
    recognizer_path: Callable[[str], Path],
) -> None:
    for path in (detector_path("2.5g"), recognizer_path("w600k_mbf")):
        (tmp_path / path.name).symlink_to(path)
    assert run("--directory", str(tmp_path)) == 0
    assert states(capsys.readouterr().out) == {"2.5g": "present", "w600k_mbf": "present"}


def test_nothing_to_fetch_needs_no_notice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], detector_path: Callable[[str], Path]
) -> None:
    path = detector_path("2.5g")
    (tmp_path / path.name).symlink_to(path)
    assert run("2.5g", "--directory", str(tmp_path)) == 0
    captured = capsys.readouterr()
    assert "LICENSE" not in captured.out and captured.err == ""
