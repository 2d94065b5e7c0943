# SPDX-License-Identifier: Apache-2.0
"""`scrfd eval wider-face` measures, goes on where it ended, and refuses bad input.

With real images and networks, on a small set in the form of WIDER FACE.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from wider_face_files import annotated, write_ground_truth, write_submission

from scrfd_ros.cli.main import main
from scrfd_ros.evaluation.wider_face import AnnotatedImage
from scrfd_ros.models.download import ensure_picture

ModelPath = Callable[[str], Path]

SIX = [
    *[(746, 339, 100, 141), (465, 265, 108, 151), (59, 263, 110, 133)],
    *[(1131, 271, 94, 128), (905, 54, 108, 150), (269, 147, 102, 118)],
]
NOBODY = (20, 700, 60, 70)  # annotated as a face of hard, and on no detector's list

IMAGES = {
    "t1.jpg": annotated(
        [*SIX, NOBODY],
        {"easy": [], "medium": range(6), "hard": range(7)},
        "0--Parade/0_Parade_six_1",
    ),
    "obama.jpg": annotated([(379, 83, 229, 346)], name="1--Handshaking/1_Handshaking_1_2"),
    "biden.jpg": annotated([(423, 161, 286, 401)], name="1--Handshaking/1_Handshaking_1_30"),
}
TRUTH = list(IMAGES.values())


def path_of(wider: Path, image: AnnotatedImage) -> Path:
    return wider / "WIDER_val" / "images" / image.event / f"{image.name}.jpg"


@pytest.fixture
def wider(tmp_path: Path) -> Path:
    """A folder with three images of the form of WIDER FACE, and their ground truth."""
    folder = tmp_path / "wider"
    for name, image in IMAGES.items():
        path = path_of(folder, image)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(ensure_picture(name))
    write_ground_truth(folder / "ground_truth", TRUTH)
    return folder


def run(*arguments: object) -> int:
    return main(["eval", "wider-face", *map(str, arguments)])


def result(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return report


def files(folder: Path) -> dict[str, bytes]:
    """Detections by the path of their file."""
    found = folder / "detections"
    return {str(path.relative_to(found)): path.read_bytes() for path in found.glob("*/*")}


@pytest.fixture
def options(detector_path: ModelPath, tmp_path: Path) -> list[str]:
    detector_path("500m")
    return [
        *("--detector", "500m", "--backend", "onnxruntime"),
        *("--output", str(tmp_path / "out")),
    ]


def test_from_images_to_figures(
    wider: Path, detector_path: ModelPath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector_path("2.5g")
    out = tmp_path / "new" / "out"
    assert run(wider, "--backend", "onnxruntime", "--output", out) == 0
    captured = capsys.readouterr()
    assert captured.err == "", "a progress bar is for terminals"
    lines = captured.out.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert "640x640, score 0.02, NMS 0.45" in captured.out
    assert "3 images run now, 0 before" in captured.out
    rows = {line[:11].strip(): line[11:].split() for line in lines}
    assert rows["easy"] == ["2", "100.00%", "100.00%", "93.80%", "+6.20%"]
    assert rows["medium"] == ["8", "100.00%", "100.00%", "92.02%", "+7.98%"]
    assert rows["hard"] == ["9", "88.89%", "88.89%", "77.13%", "+11.76%"]
    assert rows["<16"] == ["0", "-", "-"]
    assert rows["64-128"] == ["2", "50.00%", "50.00%"]
    assert rows[">=128"] == ["7", "100.00%", "100.00%"]

    report = result(out)
    assert report["subsets"]["hard"] == {
        "faces": 9,
        "average_precision": pytest.approx(8 / 9),
        "recall": pytest.approx(8 / 9),
    }
    assert report["events"]["0--Parade"]["easy"]["average_precision"] is None
    assert report["events"]["0--Parade"]["hard"]["average_precision"] == pytest.approx(6 / 7)
    assert report["events"]["1--Handshaking"]["easy"]["average_precision"] == 1
    assert report["published"] == pytest.approx({"easy": 0.938, "medium": 0.9202, "hard": 0.7713})
    assert report["difference"]["easy"] == pytest.approx(1 - 0.938)
    assert report["settings"].items() >= report["published_settings"].items()
    assert report["settings"]["detector"] == "scrfd_2.5g_bnkps"
    plot = cv2.imread(str(out / "precision_recall.png"))
    assert plot.shape == (500, 800, 3) and len(np.unique(plot.reshape(-1, 3), axis=0)) > 50

    name, count, first, *_ = files(out)["0--Parade/0_Parade_six_1.txt"].decode().splitlines()
    assert name == "0--Parade/0_Parade_six_1.jpg"
    assert report["detections"] > int(count) > 50
    x, y, width, height, score = map(float, first.split())
    assert (x, y, width, height) == pytest.approx((745.8, 339.2, 99.9, 141.4), abs=0.11)
    assert first.split()[:4] == [f"{value:.1f}" for value in (x, y, width, height)]
    assert score == pytest.approx(0.917, abs=0.001)


@pytest.mark.parametrize("inside", ["WIDER_val", "WIDER_val/images"])
def test_the_folder_may_be_one_inside(wider: Path, options: list[str], inside: str) -> None:
    folder = wider / inside
    (wider / "ground_truth").rename(folder / "ground_truth")
    assert run(folder, *options) == 0


def test_other_settings_are_called_so(
    wider: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(wider, *options, "--input-size", "320x320", "--score", "0.3") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "onnxruntime CPU, 320x320, score 0.3, NMS 0.45" in output
    assert "note: the published figures are of 640x640, score 0.02, NMS 0.45" in output
    report = result(tmp_path / "out")
    assert report["settings"]["input_size"] == [320, 320]


def test_original_size(
    wider: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(wider, *options, "--protocol", "original") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "original size, score 0.02" in output and "note: the published figures" in output
    report = result(tmp_path / "out")
    assert report["settings"]["protocol"] == "original"
    assert report["settings"]["input_size"] is None
    assert report["subsets"]["medium"]["average_precision"] == 1
    # Of the six people, 1280x886, this letterbox is the same: 10 rows of black, nothing scaled.
    vga = tmp_path / "vga"
    assert run(wider, *options, "--output", vga, "--input-size", "1280x896") == 0
    original, same = (files(folder) for folder in (tmp_path / "out", vga))
    equal = {path for path in original if original[path] == same[path]}
    assert equal == {"0--Parade/0_Parade_six_1.txt"}


def test_original_size_needs_a_detector_that_takes_any(
    wider: Path, detector_path: ModelPath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector_path("2.5g")
    out = tmp_path / "out"
    assert run(wider, "--protocol", "original", "--backend", "onnxruntime", "--output", out) == 2
    error = capsys.readouterr().err
    assert "the protocol original needs a detector that takes images of any size" in error
    assert "takes 640x640" in error and "500m" in error
    assert not out.exists()


def test_goes_on_after_an_error(
    wider: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(wider, *options, "--output", tmp_path / "whole") == 0
    last = path_of(wider, TRUTH[-1])
    content = last.read_bytes()
    last.unlink()
    last.write_bytes(content[:100])
    capsys.readouterr()
    assert run(wider, *options) == 2
    assert f"{last}: not an image that OpenCV " in capsys.readouterr().err
    assert len(files(out)) == 2 and not (out / "result.json").exists()
    last.write_bytes(content)
    assert run(wider, *options) == 0
    assert "1 images run now, 2 before" in capsys.readouterr().out
    assert files(out) == files(tmp_path / "whole")
    assert run(wider, *options) == 0
    assert "0 images run now, 3 before" in capsys.readouterr().out


def test_goes_on_after_a_sudden_end(
    wider: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = [annotated(SIX, name=f"0--Parade/0_Parade_{number}") for number in range(25)]
    for image in many:
        path_of(wider, image).symlink_to(ensure_picture("t1.jpg"))
    write_ground_truth(wider / "ground_truth", many)
    out = tmp_path / "out"
    code = "import sys; from scrfd_ros.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "eval", "wider-face", str(wider), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while len(list(out.glob("detections/*/*.txt"))) < 3:
            assert process.poll() is None, "ended before it could be ended"
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = {path: path.stat().st_mtime_ns for path in out.glob("detections/*/*.txt")}
    assert 3 <= len(before) < 25
    # What a kill in the middle of writing leaves, has not the name of a result.
    (out / "detections" / "0--Parade" / ".0_Parade_24.txt.123.part").write_text("0--Parade/0_")
    assert run(wider, *options) == 0
    assert f"{25 - len(before)} images run now, {len(before)} before" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}
    texts = {path.read_text().partition("\n")[2] for path in out.glob("detections/*/*.txt")}
    assert len(texts) == 1, "all images are the same"


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        pytest.param(["--score", "0.5"], "score was 0.02, is 0.5", id="score"),
        pytest.param(["--nms", "0.4"], "nms was 0.45, is 0.4", id="nms"),
        pytest.param(
            ["--input-size", "320x320"],
            "input_size was [640, 640], is [320, 320]",
            id="input size",
        ),
        pytest.param(["--protocol", "original"], "protocol was vga, is original", id="protocol"),
        pytest.param(
            ["--detector", "2.5g"],
            "detector was scrfd_500m_bnkps, is scrfd_2.5g_bnkps; sha256 was ",
            id="model",
        ),
    ],
)
def test_detections_of_other_settings_are_not_mixed(
    wider: Path,
    options: list[str],
    detector_path: ModelPath,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changed: list[str],
    difference: str,
) -> None:
    detector_path("2.5g")
    assert run(wider, *options) == 0
    before = files(tmp_path / "out")
    assert run(wider, *options, *changed) == 2
    error = capsys.readouterr().err
    assert difference in error and "choose another with --output" in error
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize("note", [None, "", "{", "[1, 2]"], ids=["missing", "empty", "{", "list"])
def test_refuses_a_folder_of_which_it_cannot_tell_how_it_was_made(
    wider: Path,
    options: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    note: str | None,
) -> None:
    out = tmp_path / "out"
    write_submission(out / "detections", TRUTH, [np.empty((0, 5))] * 3)
    if note is not None:
        (out / "settings.json").write_text(note)
    assert run(wider, *options) == 2
    error = capsys.readouterr().err
    assert str(out) in error and "choose another with --output" in error


def test_detections_alone(
    wider: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [np.column_stack((each.boxes, np.linspace(1, 0.5, len(each.boxes)))) for each in TRUTH]
    write_submission(tmp_path / "theirs", TRUTH, found)
    shutil.rmtree(wider / "WIDER_val")  # no images are needed
    monkeypatch.chdir(tmp_path)
    assert run(wider, "--detections", "theirs") == 0
    output = capsys.readouterr().out
    assert "9 faces, 9 detections" in output and "published figures" not in output
    report = result(tmp_path / "output" / "wider_face" / "theirs")
    assert report["settings"] is None and report["published"] == report["difference"] == {}
    figures = [each["average_precision"] for each in report["subsets"].values()]
    assert figures == [1, 1, 1]


def test_detections_of_the_official_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").mkdir()
    assert run("--detections", tmp_path / "none", "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "lacks the detections of 3226 images: 0--Parade/0_Parade_Parade_0_102.txt, " in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param([], "give the folder of WIDER_val, or --detections", id="nothing"),
        pytest.param(["{}/nowhere"], "nowhere: no such folder", id="no folder"),
        pytest.param(["{}"], "lacks 1 of the 3 images: 1--Handshaking/1_", id="an image less"),
        pytest.param(
            ["{}", "--detections", "{}/nowhere"], "nowhere: no such folder", id="no detections"
        ),
        pytest.param(["{}", "--detector", "w600k_mbf"], "expected a detector", id="recognizer"),
    ],
)
def test_refuses(
    wider: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    if "detector" not in message:
        path_of(wider, TRUTH[-1]).unlink()
    arguments = [argument.format(wider) for argument in arguments]
    assert run(*arguments, "--output", tmp_path / "out") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("scrfd: error: ") and message in captured.err
    assert captured.err.count("\n") == 1 and captured.out == ""
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written(
    wider: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("a file")
    assert run(wider, *options) == 2
    assert "cannot write" in capsys.readouterr().err
