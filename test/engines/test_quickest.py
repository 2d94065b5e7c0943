# SPDX-License-Identifier: Apache-2.0
"""Where OpenVINO is installed, auto takes it if it is faster: measured once, kept, told."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from onnx_files import scrfd_outputs, write_detector, write_recognizer

from scrfd_ros.engines import quickest
from scrfd_ros.engines.open import open_network
from scrfd_ros.engines.quickest import quickest_backend
from scrfd_ros.errors import ModelError, ScrfdError
from scrfd_ros.inference.load import has_openvino

TIMES = {"onnxruntime": 10.0, "openvino": 6.0}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_recognizer(tmp_path / "any.onnx")


@pytest.fixture
def kept(model: Path) -> Path:
    return model.with_name("any.onnx.speed.json")


@pytest.fixture(autouse=True)
def openvino(openvino_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_openvino()
    monkeypatch.syspath_prepend(openvino_folder)
    assert has_openvino()


@pytest.fixture
def races(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The models that were measured. The measurement is replaced by one that gives `TIMES`."""
    measured: list[Path] = []

    def measure(model: Path, *_: object) -> dict[str, float]:
        measured.append(model)
        return dict(TIMES)

    monkeypatch.setattr(quickest, "_measure", measure)
    return measured


def choose(model: Path, threads: int = 2) -> str:
    return quickest_backend(model, None, False, threads)


@pytest.mark.usefixtures("without_gpu")
def test_measured_once_and_kept(model: Path, kept: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        networks = [open_network(model, threads=1) for _ in range(2)]
    assert "networks run on ONNX Runtime or OpenVINO: no CUDA device" in caplog.text
    (entry,) = json.loads(kept.read_text())["measurements"]
    times = entry["milliseconds"]
    assert all(0 < each < 1000 for each in times.values())
    faster = "openvino" if times["openvino"] < 0.95 * times["onnxruntime"] else "onnxruntime"
    for network, when in zip(networks, ("now", "earlier"), strict=True):
        assert network.backend.startswith(f"{faster} ")
        assert f"any.onnx: taking {faster}, measured {when}: onnxruntime " in caplog.text
    assert caplog.text.count("any.onnx: taking ") == 2


@pytest.mark.parametrize(
    ("openvino_takes", "chosen"), [(6.0, "openvino"), (9.4, "openvino"), (9.6, "onnxruntime")]
)
def test_openvino_has_to_be_faster_by_a_twentieth(
    model: Path,
    races: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    openvino_takes: float,
    chosen: str,
) -> None:
    monkeypatch.setitem(TIMES, "openvino", openvino_takes)
    assert choose(model) == choose(model) == chosen
    assert races == [model]


def test_other_conditions_are_measured_apart(
    model: Path, kept: Path, races: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_of_them() -> None:
        choose(model)
        choose(model, threads=1)
        quickest_backend(model, (64, 64), False, 2)
        quickest_backend(model, (64, 64), True, 2)

    all_of_them()
    all_of_them()
    assert len(races) == 4
    with monkeypatch.context() as patch:
        patch.setattr(quickest, "processor_name", lambda: "another processor")
        choose(model)
    with monkeypatch.context() as patch:
        patch.setattr(quickest.metadata, "version", lambda name: "2027.0")
        choose(model)
    write_recognizer(model, dimensions=128)  # another model of that name
    choose(model)
    assert len(races) == 7
    for threads in range(3, 9):
        choose(model, threads)
    assert len(json.loads(kept.read_text())["measurements"]) == 8


def test_openvino_without_data_about_its_package(
    model: Path, kept: Path, races: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is where its archive was unpacked, and PYTHONPATH names it."""

    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(quickest.metadata, "version", version)
    assert choose(model) == choose(model) == "openvino"
    assert races == [model]
    (entry,) = json.loads(kept.read_text())["measurements"]
    assert entry["versions"]["openvino"] is None


def damaged(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return write


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(b"\xff\xfe{"), id="no text"),
        pytest.param(lambda path: path.write_bytes(b"[" * 100_000), id="deep"),
        pytest.param(lambda path: path.write_bytes(b"[1]"), id="a list"),
        pytest.param(lambda path: os.truncate(path, 200), id="cut off"),
        pytest.param(damaged(lambda found: found.update(format=2)), id="another format"),
        pytest.param(damaged(lambda found: found.update(measurements=[1])), id="a number"),
        pytest.param(
            damaged(lambda found: found["measurements"][0].update(milliseconds={})), id="no times"
        ),
        pytest.param(
            damaged(lambda found: found["measurements"][0]["milliseconds"].update(openvino="1")),
            id="a text as time",
        ),
        pytest.param(
            damaged(lambda found: found["measurements"][0]["milliseconds"].update(openvino=-1.0)),
            id="a time below 0",
        ),
    ],
)
def test_damaged_results_are_measured_anew(
    model: Path, kept: Path, races: list[Path], damage: Callable[[Path], object]
) -> None:
    choose(model)
    whole = json.loads(kept.read_text())["measurements"][0]
    damage(kept)
    assert choose(model) == "openvino"
    assert len(races) == 2
    assert json.loads(kept.read_text())["measurements"][0] == whole


@pytest.mark.usefixtures("races")
def test_results_that_cannot_be_kept(
    model: Path, kept: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise ScrfdError(f"{path}: cannot write: Read-only file system")

    monkeypatch.setattr(quickest, "write_bytes", refuse)
    quickest._log_not_kept.cache_clear()
    assert choose(model) == choose(model) == "openvino"
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert warnings == [
        "OpenVINO and ONNX Runtime are compared at every start: "
        f"{kept}: cannot write: Read-only file system"
    ]


def test_a_model_that_cannot_be_measured(
    tmp_path: Path, kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_detector(tmp_path / "any.onnx", scrfd_outputs(32, 32))
    assert choose(path) == "onnxruntime"
    assert (
        "any.onnx runs on ONNX Runtime, as it could not be compared with OpenVINO: the size of"
        in (caplog.text)
    )
    assert not kept.exists()


def test_a_measurement_that_does_not_end(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(quickest, "_TIMEOUT", 0.01)
    assert choose(model) == "onnxruntime"
    assert "timed out after 0.01 seconds" in caplog.text


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx: cannot read the model file"):
        choose(tmp_path / "none.onnx")


@pytest.mark.usefixtures("simulated_gpu")
def test_not_beside_a_gpu(model: Path, kept: Path) -> None:
    assert open_network(model).backend.startswith("tensorrt ")
    assert not kept.exists()
