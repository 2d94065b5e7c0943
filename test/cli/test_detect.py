# SPDX-License-Identifier: Apache-2.0
"""`scrfd detect` prints, draws and writes the faces of an image, and refuses bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_files import scrfd_outputs, write_detector

from scrfd_ros.cli.main import main
from scrfd_ros.engines import quickest
from scrfd_ros.images.files import read_image, write_image

Image = Callable[[str], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory, image: Image) -> Path:
    """Six people, 1280x886."""
    path = tmp_path_factory.mktemp("images") / "people.png"
    write_image(path, image("t1.jpg"))
    return path


@pytest.fixture(scope="module")
def black(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody, 64x48."""
    path = tmp_path_factory.mktemp("images") / "black.png"
    write_image(path, np.zeros((48, 64, 3), np.uint8))
    return path


def report(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    assert isinstance(content, dict)
    return content


def is_number(value: object) -> bool:
    return isinstance(value, float) and np.isfinite(value)


def test_everything_at_once(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn, written = tmp_path / "new" / "drawn.png", tmp_path / "new" / "faces.json"
    files = ["--output", str(drawn), "--json", str(written)]
    assert main(["detect", str(people), *files, "--backend", "onnxruntime"]) == 0

    values = report(written)
    keys = ["image", "detector", "recognizer", "backend", "milliseconds", "faces"]
    assert list(values) == keys
    assert values["image"] == {"width": 1280, "height": 886}
    assert values["detector"] == "scrfd_2.5g_bnkps"
    assert values["recognizer"] == "w600k_mbf"
    assert values["backend"].startswith("onnxruntime ")
    stages = ["prepare", "detect", "decode", "align", "embed", "total"]
    assert list(values["milliseconds"]) == stages
    assert all(map(is_number, values["milliseconds"].values()))
    assert len(values["faces"]) == 6
    for face in values["faces"]:
        assert list(face) == ["score", "box", "landmarks", "embedding"]
        assert is_number(face["score"]) and 0.5 <= face["score"] <= 1
        x1, y1, x2, y2 = face["box"]
        assert 0 < x1 < x2 < 1280 and 0 < y1 < y2 < 886
        assert all(map(is_number, face["box"]))
        assert np.shape(face["landmarks"]) == (5, 2)
        assert all(x1 < x < x2 and y1 < y < y2 for x, y in face["landmarks"])
        assert np.shape(face["embedding"]) == (512,)
        assert np.linalg.norm(face["embedding"]) == pytest.approx(1)

    before, after = read_image(people), read_image(drawn)
    assert before.shape == after.shape
    assert drawn.read_bytes().startswith(b"\x89PNG")
    where = (before != after).any(axis=2)
    assert 0.001 < where.mean() < 0.2
    x1, y1, x2, y2 = map(round, values["faces"][0]["box"])
    assert where[y1, x1:x2].all() and where[y1:y2, x2].all()

    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:10])) <= 80
    assert lines[0] == f"people.png: scrfd_2.5g_bnkps + w600k_mbf, {values['backend']}"
    for row, (face, line) in enumerate(zip(values["faces"], lines[2:8], strict=True)):
        number, score, *corners = line.split()
        assert number == str(row) and score == f"{face['score']:.3f}"
        assert corners == [f"{value:.1f}" for value in face["box"]]
    assert lines[8] == f"6 faces in {values['milliseconds']['total']:.1f} ms"
    for stage in stages[:-1]:
        assert f"{stage} {values['milliseconds'][stage]:.1f}" in lines[9]
    assert str(drawn) in "\n".join(lines[10:]) and str(written) in "\n".join(lines[10:])


def test_without_recognizer(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "faces.json"
    arguments = ["--detector", "500m", "--recognizer", "none", "--json", str(written)]
    assert main(["detect", str(people), *arguments]) == 0
    values = report(written)
    assert values["detector"] == "scrfd_500m_bnkps" and values["recognizer"] is None
    assert list(values["milliseconds"]) == ["prepare", "detect", "decode", "total"]
    assert [face["embedding"] for face in values["faces"]] == [[]] * 6
    assert "w600k" not in capsys.readouterr().out


def test_29_people(image: Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "solvay_conference_1927.png", image("solvay_conference_1927.jpg"))
    path = str(tmp_path / "solvay_conference_1927.png")
    assert main(["detect", path, "--recognizer", "none"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("29 faces in ")
    assert max(map(len, lines)) <= 80


def test_score_and_nms(people: Path, tmp_path: Path) -> None:
    def faces(*arguments: str) -> list[dict[str, Any]]:
        written = tmp_path / "faces.json"
        model = ["--detector", "500m", "--recognizer", "none"]
        assert main(["detect", str(people), *model, "--json", str(written), *arguments]) == 0
        found = report(written)["faces"]
        assert isinstance(found, list)
        return found

    usual = faces()
    strict = faces("--score", "0.85")
    assert strict == [face for face in usual if face["score"] >= 0.85]
    assert 0 < len(strict) < len(usual) == 6
    assert len(faces("--nms", "1")) > 6
    assert faces("--score", "1") == []


def test_one_face(tmp_path: Path, image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "one.jpg", image("obama.jpg"))
    assert main(["detect", str(tmp_path / "one.jpg"), "--recognizer", "none"]) == 0
    assert "\n1 face in " in capsys.readouterr().out


def test_nobody(black: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn, written = tmp_path / "drawn.png", tmp_path / "faces.json"
    assert main(["detect", str(black), "--output", str(drawn), "--json", str(written)]) == 0
    assert "\n0 faces in " in capsys.readouterr().out
    assert report(written)["faces"] == []
    np.testing.assert_array_equal(read_image(drawn), read_image(black))


def test_model_file_without_landmarks(
    black: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = scrfd_outputs(640, 640, landmarks=False)
    outputs["score_8"][:] = outputs["score_16"][:] = outputs["score_32"][:] = 0
    outputs["score_32"][0, 7] = 0.75
    model = write_detector(tmp_path / "scrfd_1g.onnx", outputs)
    written = tmp_path / "faces.json"
    words = ["--detector", str(model), "--input-size", "640x640", "--json", str(written)]
    assert main(["detect", str(black), *words]) == 0
    values = report(written)
    assert values["detector"] == "scrfd_1g" and values["recognizer"] is None
    (face,) = values["faces"]
    assert face["score"] == 0.75 and face["landmarks"] == face["embedding"] == []
    *lines, _ = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("note: scrfd_1g.onnx finds no landmarks")
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--detector", "500"], "'500' is not the name of a detector", id="detector"),
        pytest.param(["--detector", "w600k_mbf"], "expected a detector", id="a recognizer"),
        pytest.param(["--recognizer", "r50"], "'r50' is not the name of a", id="recognizer"),
        pytest.param(["--recognizer", "2.5g"], "expected a recognizer", id="a detector"),
        pytest.param(["--detector", "none.onnx"], "none.onnx: cannot read", id="missing model"),
        pytest.param(["--detector", "{text}"], "not an ONNX model", id="model is text"),
        pytest.param(
            ["--detector", "a.engine", "--backend", "onnxruntime"],
            "onnxruntime does not run TensorRT engines",
            id="engine for ONNX Runtime",
        ),
        pytest.param(["--output", "{text}/faces.png"], "faces.png: cannot write", id="no folder"),
        pytest.param(["--json", "{folder}"], "cannot write: Is a directory", id="JSON to a folder"),
    ],
)
def test_refuses_arguments(
    black: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "text.onnx").write_text("not a network")
    places = {"text": tmp_path / "text.onnx", "folder": tmp_path}
    arguments = [argument.format(**places) for argument in arguments]
    if "--recognizer" not in arguments:
        arguments += ["--recognizer", "none"]
    assert main(["detect", str(black), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("scrfd: error: ") and message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("missing.png", "missing.png: cannot read the image: No such", id="missing"),
        pytest.param("text.png", "text.png: not an image that OpenCV", id="text"),
        pytest.param("", "Is a directory", id="folder"),
    ],
)
def test_refuses_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    (tmp_path / "text.png").write_text("not an image")
    assert main(["detect", str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"scrfd: error: {tmp_path}") and message in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("name", ["faces.xyz", "faces", "."])
def test_refuses_other_formats_before_any_work(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["detect", "missing.png", "--output", name])
    assert caught.value.code == 2
    assert f"{name} does not end in .png or" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--score", "--nms"])
@pytest.mark.parametrize("value", ["-0.1", "1.01", "nan", "inf", "half", ""])
def test_refuses_thresholds(
    black: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["detect", str(black), f"{option}={value}"])
    assert caught.value.code == 2
    expected = f"argument {option}: expected a number from 0 to 1, found {value!r}"
    assert expected in capsys.readouterr().err


def test_exif_orientation_is_followed(
    tmp_path: Path, image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    # Turned a quarter to the left, with the EXIF tag that says so: 6, "rotate 90 degrees right".
    turned = cv2.rotate(image("t1.jpg"), cv2.ROTATE_90_COUNTERCLOCKWISE)
    jpeg = cv2.imencode(".jpg", turned)[1].tobytes()
    tag = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    exif = b"Exif\0\0" + tag
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "phone.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    written = tmp_path / "faces.json"
    arguments = ["--recognizer", "none", "--json", str(written)]
    assert main(["detect", str(tmp_path / "phone.jpg"), *arguments]) == 0
    values = report(written)
    assert values["image"] == {"width": 1280, "height": 886}
    assert len(values["faces"]) == 6


@pytest.mark.parametrize("option", [["--super-resolution"], ["--min-quality", "0.5"]])
def test_refuses_options_of_recognition_without_a_recognizer(
    black: Path, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["detect", str(black), "--recognizer", "none", *option]) == 2
    assert "there is no recognizer" in capsys.readouterr().err


def test_the_old_name_of_super_resolution(black: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", str(black), "--recognizer", "none", "--enlarge"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == (
        "scrfd detect: --enlarge is deprecated and will be removed in the next version; use "
        "--super-resolution"
    )
    assert second.startswith("scrfd: error: --super-resolution and --min-quality are for")


def test_an_image_on_its_side(people: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "side.png", np.ascontiguousarray(np.rot90(read_image(people))))
    written, drawn = tmp_path / "faces.json", tmp_path / "drawn.png"
    model = ["--detector", "500m", "--recognizer", "none", "--json", str(written)]
    assert main(["detect", str(people), *model]) == 0
    expected = report(written)["faces"]
    side = ["detect", str(tmp_path / "side.png"), "--rotation", "90", "--output", str(drawn)]
    assert main([*side, *model]) == 0
    assert report(written)["image"] == {"width": 886, "height": 1280}
    assert read_image(drawn).shape == (1280, 886, 3)
    for found, face in zip(report(written)["faces"], expected, strict=True):
        x1, y1, x2, y2 = face["box"]
        assert found["box"] == pytest.approx([y1, 1280 - x2, y2, 1280 - x1], abs=1e-3)
        for (x, y), (column, row) in zip(found["landmarks"], face["landmarks"], strict=True):
            assert (x, y) == pytest.approx((row, 1280 - column), abs=1e-3)


@pytest.mark.usefixtures("without_gpu")
def test_a_backend_for_each_network_is_named(
    people: Path,
    tmp_path: Path,
    openvino_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """auto may choose one for the detector and another one for the recognizer."""
    monkeypatch.syspath_prepend(openvino_folder)
    times = {"onnxruntime": 2.0, "openvino": 1.0}

    def measure(model: Path, *_: object) -> dict[str, float]:
        slow = "openvino" if "w600k" in model.name else "onnxruntime"
        return times | {slow: 9.0}

    monkeypatch.setattr(quickest, "_measure", measure)
    monkeypatch.setattr(quickest, "_read", lambda path: [])
    monkeypatch.setattr(quickest, "_keep", lambda path, measurements: None)
    assert main(["detect", str(people), "--json", str(tmp_path / "faces.json")]) == 0
    assert report(tmp_path / "faces.json")["backend"] == "openvino CPU + onnxruntime CPU"
    assert ", openvino CPU + onnxruntime CPU\n" in capsys.readouterr().out
