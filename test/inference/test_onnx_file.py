# SPDX-License-Identifier: Apache-2.0
"""Whole ONNX files are distinguished from other files, and damaged ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scrfd_ros.errors import ModelError
from scrfd_ros.inference.onnx_file import is_onnx, normalizes_input
from scrfd_ros.inference.protobuf import field


@pytest.mark.parametrize("content", [b"\x3e", b"\x3a", b"\x38" + b"\xff" * 11])
def test_a_damaged_file_is_refused(content: bytes) -> None:
    with pytest.raises(ModelError, match=f"^not a whole ONNX model, {len(content)} bytes: "):
        normalizes_input(content)


def test_groups_in_an_onnx_file_are_passed_over() -> None:
    assert normalizes_input(b"\xab\x01\xac\x01") is False


@pytest.mark.parametrize("name", ["500m", "2.5g", "det_500m"])
def test_real_models_are_onnx_files(detector_path: Callable[[str], Path], name: str) -> None:
    assert is_onnx(detector_path(name).read_bytes())


def test_a_part_of_a_model_is_not_one(detector_path: Callable[[str], Path]) -> None:
    content = detector_path("500m").read_bytes()
    for size in (0, 1, 100, len(content) // 2, len(content) - 1):
        assert not is_onnx(content[:size])
    assert not is_onnx(content + b"?")


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
def test_other_files_are_not(content: bytes) -> None:
    assert not is_onnx(content)
