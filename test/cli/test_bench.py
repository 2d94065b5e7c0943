# SPDX-License-Identifier: Apache-2.0
"""`scrfd bench` prints what it measured within 80 columns, writes it, and refuses bad input."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_files import scrfd_outputs, write_detector, write_recognizer

from scrfd_ros.cli import bench
from scrfd_ros.cli.main import main
from scrfd_ros.errors import BackendError
from scrfd_ros.images.files import write_image
from scrfd_ros.inference.cuda import cuda_device
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER

QUICK = ["--repeat", "2", "--warmup", "0"]
SMALL = [*QUICK, "--input-size", "64x64"]

ModelPath = Callable[[str], Path]


@pytest.fixture(scope="module")
def black(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody, 96x64."""
    path = tmp_path_factory.mktemp("images") / "black.png"
    write_image(path, np.zeros((64, 96, 3), np.uint8))
    return path


def table(lines: list[str], heading: str) -> list[list[str]]:
    """The rows of the printed table below the line that begins so."""
    first = next(row for row, line in enumerate(lines) if line.startswith(heading)) + 3
    rows = []
    while first < len(lines) and lines[first].startswith("|"):
        rows.append([cell.strip() for cell in lines[first].split("|")[1:-1]])
        first += 1
    return rows


def ran(report: dict[str, Any]) -> set[str]:
    """Hardware that was measured."""
    return {row["hardware"] for row in report["detection"] if row["milliseconds"] is not None}


COLUMNS = ("onnxruntime", "openvino", "tensorrt", "speedup")


def printed(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, Any]]:
    """Printed lines and JSON report of two real detectors on the image of six people."""
    written = tmp_path_factory.mktemp("new") / "folder" / "bench.json"
    models = ["--detector", "500m", "2.5g", "--recognizer", "w600k_mbf"]
    options = ["--backend", "onnxruntime", *QUICK, "--json", str(written)]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["bench", *models, *options]) == 0
    *lines, last = out.getvalue().splitlines()
    assert last == f"results in {written}"
    return lines, json.loads(written.read_text())


def test_report(real: tuple[list[str], dict[str, Any]]) -> None:
    _, report = real
    assert list(report) == [
        *("date", "machine", "image", "repeat", "warmup"),
        *("configurations", "networks", "detection", "auto", "not_measured"),
    ]
    assert datetime.datetime.fromisoformat(report["date"]).tzinfo is not None
    assert Path(report["image"].pop("path")).name == "t1.jpg"
    assert report["image"] == {"width": 1280, "height": 886}
    assert (report["repeat"], report["warmup"]) == (2, 0)
    assert [each["detector"] for each in report["configurations"]] == ["500m", "2.5g"]
    assert [each["faces"] for each in report["configurations"]] == [6, 6]
    assert [row["model"] for row in report["networks"]] == [
        "SCRFD 500m",
        "SCRFD 2.5g",
        "ArcFace w600k_mbf",
    ]
    for row in report["networks"]:
        assert (
            row["onnxruntime"] > 0 and row["openvino"] is row["tensorrt"] is row["speedup"] is None
        )
    assert {row["hardware"] for row in report["detection"]} == {
        *("CPU", "OpenVINO", "CUDA", "TensorRT")
    }
    assert {row["resolution"] for row in report["detection"]} == {"640x448"}
    assert {row["input_size"] for row in report["configurations"]} == {"auto"}


def test_prints_what_it_writes(real: tuple[list[str], dict[str, Any]]) -> None:
    lines, report = real
    assert max(map(len, lines)) <= 80
    machine = " ".join(lines[: lines.index(report["date"])])
    for fact in ("processor", "processors", "python", "numpy", "opencv", "onnxruntime"):
        assert str(report["machine"][fact]) in machine
    rows = {line[:14].rstrip(): line[14:].split() for line in lines}
    for key, label in bench._STAGES.items():
        spreads = [each["milliseconds"].get(key, {}) for each in report["configurations"]]
        cells = [printed(spread.get(name)) for spread in spreads for name in ("median", "p95")]
        assert rows[label] == cells
    assert rows["images/s"] == [
        printed(each["images_per_second"]) for each in report["configurations"]
    ]
    assert rows["faces"] == ["6", "6"]
    assert table(lines, "Each network") == [
        [row["model"], *(printed(row[name]) for name in COLUMNS)] for row in report["networks"]
    ]
    assert table(lines, "Detection") == [
        [
            *(row["hardware"], row["model"], row["resolution"]),
            *map(printed, (row["images_per_second"], row["milliseconds"])),
        ]
        for row in report["detection"]
    ]
    for each in report["configurations"]:
        total = each["milliseconds"]["total"]["median"]
        assert f" 6 faces: {total:.2f} ms = {each['images_per_second']:.1f} FPS" in " ".join(lines)


def test_says_why_figures_are_missing(real: tuple[list[str], dict[str, Any]]) -> None:
    lines, report = real
    for reason in report["not_measured"]:
        assert reason in lines[lines.index("Not measured (-)") :]
    assert [reason.partition(":")[0] for reason in report["not_measured"]] == [
        *(name for name in bench._BACKENDS if name != "onnxruntime"),
        *(
            {row["hardware"] for row in report["detection"]}
            - {"OpenVINO", "TensorRT"}
            - ran(report)
        ),
        "times on the device",
    ]


def test_many_files_with_long_names(
    tmp_path: Path, black: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detectors = [
        write_detector(tmp_path / f"{'long' * 20}_{row}.onnx", scrfd_outputs(64, 64, seed=row))
        for row in range(4)
    ]
    recognizer = write_recognizer(tmp_path / f"{'name' * 20}.onnx")
    written = tmp_path / "bench.json"
    models = ["--detector", *map(str, detectors), "--recognizer", str(recognizer)]
    assert main(["bench", *models, "--image", str(black), *SMALL, "--json", str(written)]) == 0
    captured = capsys.readouterr()
    *lines, _ = captured.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert captured.err == "", "a progress bar is for terminals"
    report = json.loads(written.read_text())
    assert [each["detector"] for each in report["configurations"]] == list(map(str, detectors))
    assert report["image"] == {"path": str(black), "width": 96, "height": 64}
    for number in range(4):  # the end of a path tells files apart
        assert sum(f"long_{number}.onnx" in line for line in lines) >= 4
    assert sum(line.startswith("end to end") for line in lines) == 2


@pytest.mark.parametrize(
    ("recognizer", "reason"),
    [
        pytest.param("none", "align, embed: no recognizer", id="no recognizer"),
        pytest.param("", "align, embed: scrfd_1g.onnx finds no landmarks", id="no landmarks"),
    ],
)
def test_without_embeddings(
    tmp_path: Path,
    black: Path,
    capsys: pytest.CaptureFixture[str],
    recognizer: str,
    reason: str,
) -> None:
    detector = write_detector(
        tmp_path / "scrfd_1g.onnx", scrfd_outputs(64, 64, landmarks=recognizer == "none")
    )
    recognizer = recognizer or str(write_recognizer(tmp_path / "faces.onnx"))
    models = ["--detector", str(detector), "--recognizer", recognizer]
    assert main(["bench", *models, "--image", str(black), *SMALL]) == 0
    out = capsys.readouterr().out
    assert reason in out and max(map(len, out.splitlines())) <= 80
    assert next(line.split() for line in out.splitlines() if line.startswith("embed")) == [
        *("embed", "-", "-")
    ]
    assert "ArcFace" not in "".join(line for line in out.splitlines() if line.startswith("|"))


def test_takes_the_models_that_are_there(
    tmp_path: Path,
    detector_path: ModelPath,
    recognizer_path: ModelPath,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench, "default_model_directory", lambda: tmp_path)
    first = [detector_path("2.5g")], [recognizer_path("w600k_mbf")]
    assert (bench._models(None, DETECTOR), bench._models(None, RECOGNIZER)) == first
    (tmp_path / detector_path("2.5g").name).write_bytes(b"damaged")
    assert bench._models(None, DETECTOR) == first[0]
    (tmp_path / detector_path("500m").name).symlink_to(detector_path("500m"))
    assert bench._models(None, DETECTOR) == [detector_path("500m")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--detector", "500"], "'500' is not the name of a detector", id="detector"),
        pytest.param(["--recognizer", "2.5g"], "expected a recognizer", id="a detector"),
        pytest.param(["--detector", "none.onnx"], "none.onnx: cannot read", id="missing model"),
        pytest.param(["--image", "none.png"], "none.png: cannot read the", id="missing image"),
        pytest.param(["--json", "{text}/report.json"], "cannot write: File exists", id="no folder"),
        pytest.param(["--image", "{text}"], "not an image that OpenCV ", id="text"),
    ],
)
def test_refuses(
    black: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "text.png").write_text("not an image")
    arguments = [argument.format(text=tmp_path / "text.png") for argument in arguments]
    defaults = {"--image": str(black), "--detector": "2.5g", "--recognizer": "none"}
    for option, value in defaults.items():
        if option not in arguments:
            arguments += [option, value]
    assert main(["bench", *arguments, *QUICK]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("scrfd: error: ") and message in captured.err
    assert captured.err.count("\n") == 1 and captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeat", "0"], "expected a whole number of at least 1, found '0'"),
        (["--repeat", "many"], "expected a whole number of at least 1, found 'many'"),
        (["--warmup", "-1"], "expected a whole number of at least 0, found '-1'"),
        (["--input-size", "100x64"], "in multiples of 32, at most 16777216 pixels in total, such"),
        (["--backend", "cuda"], "invalid choice: 'cuda'"),
        (["--detector"], "expected at least one argument"),
    ],
    ids=lambda value: "=".join(value) if isinstance(value, list) else "",
)
def test_usage_errors(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_tensorrt_without_a_device(black: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        cuda_device()
    except BackendError:
        pass
    else:
        pytest.skip("this machine has a CUDA device")
    options = ["--detector", "2.5g", "--recognizer", "none", "--image", str(black), *QUICK]
    assert main(["bench", *options, "--backend", "tensorrt"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("scrfd: error: ") and captured.err.count("\n") == 1
    assert "no CUDA device" in captured.err
    assert main(["bench", *options]) == 0
    assert "\ntensorrt: no CUDA device" in capsys.readouterr().out


@pytest.mark.usefixtures("without_gpu")
def test_both_backends_of_a_processor_and_which_auto_takes(
    tmp_path: Path,
    black: Path,
    detector_path: ModelPath,
    openvino_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(openvino_folder)
    path, written = tmp_path / "any.onnx", tmp_path / "bench.json"
    path.symlink_to(detector_path("500m"))
    options = ["--image", str(black), *SMALL, "--json", str(written)]
    assert main(["bench", "--detector", str(path), "--recognizer", "none", *options]) == 0
    *lines, _ = capsys.readouterr().out.splitlines()
    report = json.loads(written.read_text())
    backends = [each["backend"] for each in report["configurations"]]
    assert backends == ["onnxruntime", "openvino"]
    (row,) = report["networks"]
    assert row["onnxruntime"] > 0 and row["openvino"] > 0
    assert report["machine"]["openvino"] is not None
    assert {"CPU", "OpenVINO"} == ran(report)
    assert max(map(len, lines)) <= 80
    assert report["auto"].keys() == {str(path)}
    assert report["auto"][str(path)] in ("onnxruntime CPU", "openvino CPU")
    assert f"auto takes {report['auto'][str(path)]} for" in " ".join(lines)
