# SPDX-License-Identifier: Apache-2.0
"""A whole ONNX file is told from everything else, and fields are written as protobuf does."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from scrfd_ros.models.onnx_format import field, is_onnx


@pytest.mark.parametrize("name", ["500m", "2.5g", "det_500m"])
def test_real_models_are_onnx_files(detector_path: Callable[[str], Path], name: str) -> None:
    with detector_path(name).open("rb") as stream:
        assert is_onnx(stream)


def test_a_part_of_a_model_is_none(detector_path: Callable[[str], Path]) -> None:
    content = detector_path("500m").read_bytes()
    for size in (0, 1, 100, len(content) // 2, len(content) - 1):
        assert not is_onnx(io.BytesIO(content[:size]))
    assert not is_onnx(io.BytesIO(content + b"?"))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"<html>please log in</html>", id="web page"),
        pytest.param(b"PK\x03\x04" + bytes(1000), id="zip archive"),
        pytest.param(bytes(1000), id="zeros"),
        pytest.param(b"\xff" * 1000, id="ones"),
        pytest.param(field(1, 7) + field(7, b""), id="no operator set"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", id="Git LFS pointer"),
    ],
)
def test_other_files_are_none(content: bytes) -> None:
    assert not is_onnx(io.BytesIO(content))


def test_fields_are_read_by_the_package_onnx() -> None:
    tensor = onnx.TensorProto.FromString(field(1, 300) + field(2, 1) + field(8, "weight"))
    assert (list(tensor.dims), tensor.data_type, tensor.name) == ([300], 1, "weight")
    attribute = onnx.AttributeProto.FromString(field(2, 0.25) + field(4, b"\x00\xff"))
    assert (attribute.f, attribute.s) == (0.25, b"\x00\xff")
