# SPDX-License-Identifier: Apache-2.0
"""`scrfd convert` and `scrfd verify`, on a simulated GPU and without one."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from onnx_files import scrfd_outputs, write_detector, write_recognizer

from scrfd_ros.cli.main import main
from scrfd_ros.inference.engine_file import metadata_path, read_metadata
from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_recognizer(tmp_path / "any.onnx")


@pytest.mark.usefixtures("simulated_gpu")
def test_convert_and_verify(
    detector_path: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "engines" / "scrfd_2.5g.engine"
    options = ["--workspace", "3072", "--precision", "fp32"]
    assert main(["convert", str(detector_path("2.5g")), str(engine), *options]) == 0
    out = capsys.readouterr().out
    assert f"{engine}: fp32\nbuilt for Simulated (compute capability 8.7), tensorrt 10.3.0" in out
    assert "agrees with the model: faces 10, missed faces 0, extra faces 0," in out
    assert main(["verify", str(engine)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"[OK] {engine} loads, on tensorrt 10.3.0 fp32"
    assert lines[1] == "Bindings: 10"
    assert lines[2] == "  [0] INPUT  input.1 dims=[1, 3, 640, 640] type=float32"
    bindings = {line.split(maxsplit=2)[2] for line in lines[3:12]}
    assert "score_8 dims=[1, 12800, 1] type=float32" in bindings
    assert "kps_32 dims=[1, 800, 10] type=float32" in bindings
    metadata = [line.split(maxsplit=1) for line in lines[12:]]
    assert ["precision", "fp32"] in metadata
    assert ["model", str(detector_path("2.5g"))] in metadata


@pytest.mark.usefixtures("simulated_gpu")
def test_verify_writes_the_facts_of_a_foreign_engine(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "any.engine"
    assert main(["convert", str(model), str(engine)]) == 0
    metadata_path(engine).unlink()
    assert main(["verify", str(engine)]) == 0
    captured = capsys.readouterr()
    assert "It has no file of metadata: --onnx MODEL compares it with its model" in captured.out
    assert main(["verify", str(engine), "--onnx", str(model)]) == 0
    out = capsys.readouterr().out
    assert "dims=[-1, 3, 112, 112]" in out
    assert "[1, 3, 112, 112] to [32, 3, 112, 112], best [8, 3, 112, 112]" in out
    metadata = read_metadata(engine)
    assert metadata is not None and metadata.agreement["min_cosine"] > 0.999


@pytest.mark.usefixtures("simulated_gpu")
def test_verify_holds_the_engine_against_the_right_model(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_recognizer(tmp_path / "other.onnx", normalizes_input=True)
    engine = tmp_path / "any.engine"
    main(["convert", str(model), str(engine)])
    assert main(["verify", str(engine), "--onnx", str(model)]) == 0
    assert main(["verify", str(engine), "--onnx", str(other)]) == 2
    assert f"any.engine: built from {model} with SHA-256" in capsys.readouterr().err


@pytest.mark.usefixtures("simulated_gpu")
def test_verify_finds_damage(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "any.engine"
    main(["convert", str(model), str(engine)])
    engine.write_bytes(engine.read_bytes()[:-7])
    assert main(["verify", str(engine)]) == 2
    err = capsys.readouterr().err
    assert "any.engine: damaged or replaced" in err and "scrfd convert" in err


@pytest.mark.parametrize("arguments", [["convert", "a.onnx", "a.engine"], ["verify", "a.engine"]])
def test_one_line_where_there_is_no_gpu(
    arguments: list[str], without_gpu: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("scrfd: error: no CUDA device: ")
    assert captured.err.endswith(".onnx files run on ONNX Runtime\n")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["any.onnx", "--precision", "fp32"], "is the model itself", id="itself"),
        pytest.param(["other.onnx", "--print-trtexec", "10.3"], "expected a name", id="onnx"),
        pytest.param(["a.engine", "--print-trtexec", "7.1"], "7.1 is too old", id="old"),
    ],
)
def test_nothing_is_overwritten(
    arguments: list[str],
    message: str,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(model.parent)
    before = model.read_bytes()
    assert main(["convert", "any.onnx", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert model.read_bytes() == before


def test_old_name_of_the_recognizer(
    tmp_path: Path, without_gpu: None, caplog: pytest.LogCaptureFixture
) -> None:
    write_recognizer(tmp_path / "w600k_r50.onnx")  # not the real one: it is called corrupt
    path = str(tmp_path / "arcface_r100.onnx")
    main(["convert", path, str(tmp_path / "a.engine"), "--print-trtexec", "8.6"])
    assert "arcface_r100 stands for w600k_r50" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["a.onnx", "a.plan"], "a.plan does not end in .engine or .onnx", id="suffix"),
        pytest.param(["a.onnx", "a.engine", "--batch", "4:2:8"], "min:opt:max in this", id="batch"),
        pytest.param(["a.onnx", "a.engine", "--batch", "0"], "found '0'", id="no batch"),
        pytest.param(["a.onnx", "a.engine", "--workspace", "0"], "999999", id="workspace"),
        pytest.param(["a.onnx", "a.engine", "--workspace", "9" * 20], "999999", id="too much"),
        pytest.param(["a.onnx", "a.engine", "--input-size", "0x64"], "WxH", id="no size"),
        pytest.param(["a.onnx", "a.engine", "--input-size", "640"], "WxH", id="size"),
        pytest.param(["a.onnx", "a.engine", "--precision", "fp8"], "invalid choice", id="fp8"),
        pytest.param(["a.onnx", "a.engine", "--print-trtexec", "new"], "10.3", id="version"),
    ],
)
def test_usage_errors(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["convert", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("version", "flags"),
    [
        pytest.param("8.5", ["--fp16", "--memPoolSize=workspace:3072"], id="8.5"),
        pytest.param("8.6", ["--fp16", "--memPoolSize=workspace:3072"], id="8.6"),
        pytest.param("10.3.0", ["--fp16", "--memPoolSize=workspace:3072"], id="10.3"),
        pytest.param("11.4", ["--memPoolSize=workspace:3072"], id="11.4"),
    ],
)
def test_trtexec(
    version: str, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_detector(tmp_path / "a.onnx", scrfd_outputs(640, 640), (1, 3, 640, 640))
    arguments = ["--workspace", "3072", "--print-trtexec", version]
    assert main(["convert", str(model), "e/a.engine", *arguments]) == 0
    *preparation, trtexec, verify = commands(capsys.readouterr().out)
    assert trtexec[0].endswith("trtexec")
    source = "e/a.trtexec.onnx" if preparation else str(model)
    assert trtexec[1:] == [f"--onnx={source}", "--saveEngine=e/a.engine", *flags]
    assert verify == ["scrfd", "verify", "e/a.engine", "--onnx", str(model)]
    assert [words[:4] for words in preparation] == (
        [["scrfd", "convert", str(model), "e/a.trtexec.onnx"]] if version == "11.4" else []
    )


def test_trtexec_of_a_batch(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "b.engine"
    main(["convert", str(model), str(engine), "--batch", "1:4:8", "--print-trtexec", "10.3"])
    preparation, trtexec, _ = commands(capsys.readouterr().out)
    assert trtexec[-3:] == [
        "--minShapes=input.1:1x3x112x112",
        "--optShapes=input.1:4x3x112x112",
        "--maxShapes=input.1:8x3x112x112",
    ]
    assert main(preparation[1:]) == 0, "the command it prints works"
    prepared = OnnxRuntimeNetwork(tmp_path / "b.trtexec.onnx")
    assert prepared.inputs[0].shape == (None, 3, 112, 112)


def test_trtexec_of_an_unknown_version(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["convert", str(model), "a.engine", "--print-trtexec"]) == 2
    assert "TensorRT is not installed for this Python" in capsys.readouterr().err


def commands(text: str) -> list[list[str]]:
    """Words of the commands in a shell script, as a shell reads them."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [shlex.split(line) for line in lines]
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    return found
