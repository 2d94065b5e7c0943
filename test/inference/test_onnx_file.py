# SPDX-License-Identifier: Apache-2.0
"""What is read of ONNX files by hand is read of whatever ONNX Runtime takes, and else refused."""

from __future__ import annotations

import pytest

from scrfd_ros.errors import ModelError
from scrfd_ros.inference.onnx_file import normalizes_input


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x3e", "KeyError"),
        (b"\x3a", "IndexError"),
        (b"\x38" + b"\xff" * 11, "a number of more than 10 bytes"),
    ],
    ids=["unknown kind of field", "cut off", "endless number"],
)
def test_what_is_no_onnx_file_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        normalizes_input(content)


def test_groups_in_an_onnx_file_are_passed_over() -> None:
    assert normalizes_input(b"\xab\x01\xac\x01") is False
