# SPDX-License-Identifier: Apache-2.0
"""`scrfd compare` says what another set-up changes; its exit status, whether that is too much."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bag_files import raw, write_bag
from numpy.typing import NDArray
from onnx_files import write_recognizer

from scrfd_ros.cli import compare
from scrfd_ros.cli.main import main
from scrfd_ros.images.files import write_image

Image = NDArray[np.uint8]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def people(image: Callable[[str], Image]) -> Image:
    """Two people."""
    return np.ascontiguousarray(image("t1.jpg")[:, :420])


@pytest.fixture(scope="module")
def folder(people: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images")
    write_image(path / "people.png", people)
    write_image(path / "a_image_with_a_long_name.png", people[::2, ::2])
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command; gives its exit status and what it printed."""

    def run(*words: object, recognizer: str = "none") -> tuple[int, str, str]:
        command = ["compare", *map(str, words), "--backend", "onnxruntime"]
        command += ["--detector", "500m", "--recognizer", recognizer]
        try:
            status = main(command)
        except SystemExit as error:
            status = int(error.code or 0)
        printed = capsys.readouterr()
        assert all(len(line) <= 80 or str(tmp_path) in line for line in printed.out.splitlines())
        return status, printed.out, printed.err

    return run


def test_a_model_agrees_with_itself_under_its_name(
    run: Run, folder: Path, detector_path: Callable[[str], Path], tmp_path: Path
) -> None:
    file = tmp_path / "a,b.onnx"  # a comma in a path is no option
    file.symlink_to(detector_path("500m"))
    status, out, err = run("500m", file, folder, recognizer="w600k_mbf")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == [
        "A  scrfd_500m_bnkps, 640x640, onnxruntime CPU, w600k_mbf",
        "B  a,b, 640x640, onnxruntime CPU, w600k_mbf",
    ]
    rows = {line[:24].strip(): line[24:].split() for line in lines[4:11]}
    assert rows["faces in A"] == ["4", ">=", "1", "within"]
    assert rows["found by A only"] == rows["found by B only"] == ["0", "<=", "0", "within"]
    assert rows["IoU of boxes"][:5] == ["1.0000", "1.0000", ">=", "0.98", "within"]
    assert rows["cosine of embeddings"][3] == "0.998"
    assert lines[-1] == "within the limits, 2 images"


def test_differences_are_told_drawn_and_written(run: Run, folder: Path, tmp_path: Path) -> None:
    drawn, report = tmp_path / "new" / "drawn", tmp_path / "new" / "report.json"
    words = ["500m", "500m,input-size=160x160", folder, "--output", drawn, "--json", report]
    status, out, err = run(*words)
    assert (status, err) == (1, f"scrfd: {tmp_path / 'new'} is a new folder\n")
    assert "B  scrfd_500m_bnkps, 160x160, onnxruntime CPU\n" in out
    assert "\noutside the limits; 2 of 2 images differ\n" in out
    assert f"drawn into {drawn}\nall figures in {report}\n" in out
    names = ["a_image_with_a_long_name.png", "people.png"]
    assert sorted(path.name for path in drawn.iterdir()) == names
    values = json.loads(report.read_text())
    assert values["a"]["setup"] == "500m"
    assert values["b"] == {
        "setup": "500m,input-size=160x160",
        "title": "scrfd_500m_bnkps, 160x160, onnxruntime CPU",
        "sha256": values["a"]["sha256"],
    }
    assert values["within_limits"] is False
    assert values["different"] == names == sorted(values["pictures"])
    assert values["limits"]["min_iou"] == values["figures"]["min_iou"]["limit"] == 0.98
    assert values["figures"]["min_iou"]["picture"] in names
    # An old folder would mix with the new one.
    status, _, err = run(*words)
    assert status == 2
    assert "drawn: exists already; give another path, or remove it" in err


def test_limits_can_be_chosen(run: Run, folder: Path) -> None:
    words = ["500m", "500m,input-size=320", folder]
    status, out, _ = run(*words)
    assert status == 1
    assert "B  scrfd_500m_bnkps, 320 (at most 320x320), onnxruntime CPU\n" in out
    lax = ["--limit", "min_iou=0.7", "--limit", "max_landmark_distance=0.2"]
    status, out, _ = run(*words, "--limits", "int8", *lax)
    assert status == 0, out
    assert ">= 0.7  within" in out


def test_precision(run: Run, folder: Path) -> None:
    status, out, _ = run("500m", "500m,precision=fp16", folder)
    assert status == 0
    assert "B  scrfd_500m_bnkps_fp16, 640x640, onnxruntime CPU\n" in out
    status, out, _ = run("w600k_mbf", "w600k_mbf,precision=fp16", folder)
    assert status == 0
    assert "cosine of embeddings" in out and "norms differ by" in out
    status, _, err = run("500m", "500m,precision=int8", folder)
    assert status == 2
    assert "--calibration" in err


@pytest.mark.usefixtures("simulated_gpu")
def test_an_engine(
    run: Run, folder: Path, detector_path: Callable[[str], Path], tmp_path: Path
) -> None:
    model = tmp_path / "scrfd_500m_bnkps.onnx"
    model.symlink_to(detector_path("500m"))
    assert main(["convert", str(model), str(tmp_path / "x.engine"), "--precision", "fp32"]) == 0
    status, out, _ = run(model, f"{tmp_path / 'x.engine'},backend=tensorrt", folder)
    assert status == 0
    assert (
        "A  scrfd_500m_bnkps, 640x640, onnxruntime CPU\nB  scrfd_500m_bnkps, 640x640, tens" in out
    )
    status, out, _ = run(model, f"{model},backend=tensorrt", folder)
    assert status == 0
    assert "B  scrfd_500m_bnkps, 640x640, tensorrt" in out


def test_a_bag(run: Run, people: Image, tmp_path: Path) -> None:
    entries = [raw("/camera/image_raw", 10**9 * stamp, people) for stamp in (1, 2)]
    status, out, _ = run("500m", "500m", write_bag(tmp_path / "bag", entries))
    assert status == 0
    assert out.endswith("within the limits, 2 images\n")


@pytest.mark.parametrize(
    ("setup", "words"),
    [
        ("500m,320x320", "expected MODEL or MODEL,KEY=VALUE such as 500m,input-size=320x320"),
        ("500m@320x320", "expected MODEL or MODEL,KEY=VALUE"),
        ("", "expected MODEL or MODEL,KEY=VALUE"),
        ("500m,size=320x320", "'size' in '500m,size=320x320' is unknown; expected backend, in"),
        ("500m,input-size=330", "such as auto, 960 or 640x480, found '330'"),
        ("500m,backend=cpu", "expected auto or tensorrt or onnxruntime or openvino, found 'cpu'"),
        ("500m,precision=fp16,precision=fp32", "'precision' in"),
        ("500m,input-size=100x100", "in multiples of 32"),
        ("500m,backend=tensorrt,precision=fp16", "precision is for ONNX Runtime. Build an engine"),
        ("600m", "'600m' is not the name of a model"),
        ("none.onnx", "none.onnx: cannot read the model file"),
        ("w600k_mbf", "w600k_mbf is a recognizer"),
    ],
)
def test_a_bad_setup_is_refused(run: Run, folder: Path, setup: str, words: str) -> None:
    status, out, err = run("500m", setup, folder)
    assert (status, out) == (2, "")
    assert words in " ".join(err.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--limit", "iou=1"], "expected NAME=VALUE, NAME one of faces, missed_faces"),
        (["--limit", "min_iou=high"], "expected NAME=VALUE"),
        (["--limits", "fp8"], "invalid choice: 'fp8'"),
    ],
)
def test_bad_options_are_refused(run: Run, folder: Path, options: list[str], words: str) -> None:
    status, _, err = run("500m", "500m", folder, *options)
    assert status == 2
    assert words in " ".join(err.split())


def test_input_that_is_none_is_refused_before_networks_are_loaded(run: Run, tmp_path: Path) -> None:
    status, _, err = run("none.onnx", "none.onnx", tmp_path / "nothing")
    assert status == 2
    assert "nothing: cannot read the image" in err


def test_a_report_that_cannot_be_written_is_refused_first(run: Run, folder: Path) -> None:
    file = folder / "people.png" / "new" / "report.json"
    status, _, err = run("none.onnx", "none.onnx", folder, "--json", file)
    assert status == 2
    assert f"{file}: cannot write: Not a directory" in err


def test_recognizers_of_other_models_and_drawings_are_refused(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    other = write_recognizer(tmp_path / "other.onnx", dimensions=128)
    status, _, err = run("w600k_mbf", other, folder)
    assert status == 2
    assert "the cosine of their embeddings means nothing" in err
    for words in (
        ["w600k_mbf", folder, "--output", tmp_path / "drawn"],
        ["w600k_mbf,input-size=640x640", folder],
    ):
        status, _, err = run("w600k_mbf", *words)
        assert status == 2
        assert "A and B are recognizers" in err


def test_help_is_complete() -> None:
    parser = argparse.ArgumentParser(prog="scrfd compare", description=compare.__doc__)
    compare.add_arguments(parser)
    help_text = " ".join(parser.format_help().split())
    for words in ("Exit status: 0 if", "MODEL[,KEY=VALUE...]", "--limit NAME=VALUE"):
        assert words in help_text


@pytest.mark.parametrize("limit", ["min_iou=nan", "min_iou=-1", "min_iou=inf", "iou=0.5"])
def test_refuses_limits_that_cannot_be_meant(
    limit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["compare", "500m", "500m", "images", "--limit", limit])
    assert caught.value.code == 2
    assert "VALUE at least 0" in capsys.readouterr().err
