# SPDX-License-Identifier: Apache-2.0
"""The metadata of an engine is kept on disk, and an engine for another machine is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scrfd_ros.errors import ModelError
from scrfd_ros.inference.engine_file import (
    EngineMetadata,
    ShapeRange,
    check_metadata,
    differences,
    metadata_path,
    read_metadata,
    rebuild_command,
    write_engine,
)
from scrfd_ros.inference.tensorrt_library import Platform

PLAN = b"an engine"
ORIN = Platform("Orin", "8.7", "tensorrt 10.3.0", "12.6", "Linux aarch64")


@pytest.fixture
def metadata() -> EngineMetadata:
    return EngineMetadata(
        engine_sha256=hashlib.sha256(PLAN).hexdigest(),
        model="models/w600k_mbf.onnx",
        model_sha256="0" * 64,
        normalizes_input=False,
        platform=ORIN,
        precision="fp16",
        shapes=ShapeRange((1, 3, 112, 112), (8, 3, 112, 112), (32, 3, 112, 112)),
        options={"precision": "int8", "workspace": None, "calibration": "my images"},
        agreement={"min_cosine": 0.9998},
        built="2026-01-02T03:04:05+00:00",
    )


def test_facts_survive(tmp_path: Path, metadata: EngineMetadata) -> None:
    engine = tmp_path / "engines" / "any.engine"
    write_engine(engine, PLAN, metadata)
    assert engine.read_bytes() == PLAN
    assert read_metadata(engine) == metadata
    assert metadata_path(engine).name == "any.engine.json"
    assert sorted(path.name for path in engine.parent.iterdir()) == [
        "any.engine",
        "any.engine.json",
    ]


def test_no_metadata(tmp_path: Path) -> None:
    assert read_metadata(tmp_path / "any.engine") is None


def change_format(content: dict[str, Any]) -> None:
    content["format"] = 2


def drop_platform(content: dict[str, Any]) -> None:
    del content["platform"]


def spoil_platform(content: dict[str, Any]) -> None:
    content["platform"] = "Orin"


def spoil_shape(content: dict[str, Any]) -> None:
    content["shapes"]["min"] = ["one"]


def text_for_a_number(content: dict[str, Any]) -> None:
    content["platform"]["cuda"] = 12


def no_shape(content: dict[str, Any]) -> None:
    content["shapes"]["min"] = []


def huge_shape(content: dict[str, Any]) -> None:
    content["shapes"]["min"] = [1e400, 3, 112, 112]


def text_for_a_boolean(content: dict[str, Any]) -> None:
    content["normalizes_input"] = "no"


def text_for_figures(content: dict[str, Any]) -> None:
    content["agreement"] = {"faces": "six"}


def no_options(content: dict[str, Any]) -> None:
    content["options"] = None


def add_field(content: dict[str, Any]) -> None:
    content["color"] = "red"


@pytest.mark.parametrize(
    "change",
    [
        change_format,
        drop_platform,
        spoil_platform,
        spoil_shape,
        text_for_a_number,
        no_shape,
        huge_shape,
        text_for_a_boolean,
        text_for_figures,
        no_options,
        add_field,
    ],
)
def test_malformed_metadata(
    change: Callable[[dict[str, Any]], None], tmp_path: Path, metadata: EngineMetadata
) -> None:
    engine = tmp_path / "any.engine"
    write_engine(engine, PLAN, metadata)
    content = json.loads(metadata_path(engine).read_text())
    change(content)
    metadata_path(engine).write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"any\.engine\.json: .*build the engine again"):
        read_metadata(engine)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b"3", b"[" * 200_000],
    ids=lambda content: repr(content[:5]),
)
def test_facts_that_are_no_json_object(content: bytes, tmp_path: Path) -> None:
    metadata_path(tmp_path / "any.engine").write_bytes(content)
    with pytest.raises(ModelError, match=r"any\.engine\.json: not the metadata of an engine"):
        read_metadata(tmp_path / "any.engine")


def test_engine_for_here_is_accepted(metadata: EngineMetadata) -> None:
    check_metadata(Path("any.engine"), PLAN, metadata, ORIN)
    check_metadata(Path("any.engine"), PLAN, metadata, dataclasses.replace(ORIN, cuda="12.8"))


def test_damaged_engine(metadata: EngineMetadata) -> None:
    with pytest.raises(ModelError, match=r"any\.engine: damaged or replaced: 8 bytes with SHA-256"):
        check_metadata(Path("any.engine"), PLAN[:-1], metadata, ORIN)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("gpu", "NVIDIA H100", id="GPU"),
        pytest.param("compute_capability", "9.0", id="compute capability"),
        pytest.param("tensorrt", "tensorrt 10.7.0", id="TensorRT"),
        pytest.param("cuda", "13.0", id="CUDA"),
        pytest.param("system", "Linux x86_64", id="system"),
    ],
)
def test_engine_for_elsewhere(field: str, value: str, metadata: EngineMetadata) -> None:
    here = dataclasses.replace(ORIN, **{field: value})
    assert differences(ORIN, here) == [field]
    with pytest.raises(ModelError) as caught:
        check_metadata(Path("models/engines/any.engine"), PLAN, metadata, here)
    message = str(caught.value)
    assert f"for {ORIN}; here is {here}; " in message
    assert message.endswith(rebuild_command(Path("models/engines/any.engine"), metadata))


def test_rebuild_command(metadata: EngineMetadata) -> None:
    assert rebuild_command(Path("models/engines/any.engine"), metadata) == (
        "scrfd convert models/w600k_mbf.onnx models/engines/any.engine --input-size 112x112 "
        "--batch 1:8:32 --precision int8 --calibration 'my images'"
    )
    fixed = ShapeRange(*[(4, 3, 480, 640)] * 3)
    foreign = dataclasses.replace(metadata, precision="unknown", shapes=fixed, options={})
    assert rebuild_command(Path("my models/any.engine"), foreign) == (
        "scrfd convert models/w600k_mbf.onnx 'my models/any.engine' --input-size 640x480 --batch 4"
    )
