# SPDX-License-Identifier: Apache-2.0
"""TensorRT really parses and builds every kind of network; TensorRT-RTX does so without a GPU.

The engines are not run, which needs a GPU: see gpu/.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from layer_plans import write_arcface, write_scrfd

from scrfd_ros.engines.build import build_engine
from scrfd_ros.engines.onnx_precision import to_fp16, to_int8
from scrfd_ros.errors import ModelError
from scrfd_ros.inference.engine_file import ShapeRange
from scrfd_ros.inference.tensorrt_library import is_strongly_typed, product

MIB = 1 << 20


@pytest.fixture(scope="module")
def trt() -> ModuleType:
    reason = "needs the packages tensorrt-rtx-cu13-libs and tensorrt-rtx-cu13-bindings"
    module: ModuleType = pytest.importorskip("tensorrt_rtx_bindings", reason=reason)
    return module


def detector_shapes(batch: tuple[int, int, int] = (1, 1, 1), size: int = 640) -> ShapeRange:
    return ShapeRange(*((number, 3, size, size) for number in batch))


def face_shapes(batch: tuple[int, int, int]) -> ShapeRange:
    return ShapeRange(*((number, 3, 112, 112) for number in batch))


def test_is_strongly_typed(trt: ModuleType) -> None:
    assert is_strongly_typed(trt)
    assert product(trt).startswith("tensorrt_rtx 1.")


def test_engine_can_be_recorded(
    trt: ModuleType, recognizer_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT-RTX builds an engine that never allocates memory, which a CUDA graph needs."""
    flags = []
    set_flag = trt.IBuilderConfig.set_flag

    def seen(config: Any, flag: Any) -> None:
        flags.append(flag)
        set_flag(config, flag)

    monkeypatch.setattr(trt.IBuilderConfig, "set_flag", seen)
    model = recognizer_path("w600k_mbf").read_bytes()
    assert build_engine(trt, model, face_shapes((1, 2, 4)), "fp32")
    assert flags == [trt.BuilderFlag.REQUIRE_USER_ALLOCATION]


@pytest.mark.parametrize(
    ("name", "batch"),
    [
        pytest.param("2.5g", (1, 1, 1), id="2.5g"),
        pytest.param("500m", (1, 1, 1), id="500m, whose sizes are all called alike"),
        pytest.param("500m", (1, 2, 4), id="500m, batch"),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_real_detectors(
    precision: str,
    name: str,
    batch: tuple[int, int, int],
    trt: ModuleType,
    detector_path: Callable[[str], Path],
) -> None:
    content = detector_path(name).read_bytes()
    if precision == "fp16":
        content = to_fp16(content)
    plan = build_engine(trt, content, detector_shapes(batch), precision)
    assert len(plan) > MIB


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_real_recognizer(
    precision: str, trt: ModuleType, recognizer_path: Callable[[str], Path]
) -> None:
    content = recognizer_path("w600k_mbf").read_bytes()
    if precision == "fp16":
        content = to_fp16(content)
    if precision == "int8":
        noise = np.random.default_rng(0).standard_normal((2, 1, 3, 112, 112)).astype(np.float32)
        content = to_int8(content, noise)
    plan = build_engine(trt, content, face_shapes((1, 8, 32)), precision)
    assert len(plan) > {"fp32": 12 * MIB, "fp16": 6 * MIB, "int8": 3 * MIB}[precision]


@pytest.mark.parametrize("variant", ["1g", "10g", "34g"])
def test_detectors_of_published_shape(variant: str, trt: ModuleType, tmp_path: Path) -> None:
    path = write_scrfd(tmp_path / "any.onnx", variant)
    plan = build_engine(trt, path.read_bytes(), detector_shapes(), "fp32")
    path.unlink()
    assert len(plan) > MIB


@pytest.mark.parametrize("variant", ["r50", "r100"])
def test_recognizers_of_published_shape(variant: str, trt: ModuleType, tmp_path: Path) -> None:
    path = write_arcface(tmp_path / "any.onnx", variant)
    plan = build_engine(trt, path.read_bytes(), face_shapes((1, 8, 32)), "fp32")
    path.unlink()
    assert len(plan) > {"r50": 160 * MIB, "r100": 240 * MIB}[variant]


def test_not_an_onnx_file(trt: ModuleType) -> None:
    with pytest.raises(ModelError, match=r"tensorrt_rtx 1\.\S+ cannot parse it: .*Failed to parse"):
        build_engine(trt, b"nothing of the kind", face_shapes((1, 1, 1)), "fp32")


def test_words_of_tensorrt(trt: ModuleType, detector_path: Callable[[str], Path]) -> None:
    content = detector_path("500m").read_bytes()
    with pytest.raises(ModelError, match=r"cannot build an engine: .*OutOfMemory"):
        build_engine(trt, content, detector_shapes((1, 2, 4)), "fp32", workspace_mib=16)
