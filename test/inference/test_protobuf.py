# SPDX-License-Identifier: Apache-2.0
"""Fields are written and read as protobuf does; malformed messages are refused."""

from __future__ import annotations

import onnx
import pytest

from scrfd_ros.inference.protobuf import byte_fields, field, integers, read_fields


def test_fields_are_read_by_the_package_onnx() -> None:
    tensor = onnx.TensorProto.FromString(field(1, 300) + field(2, 1) + field(8, "weight"))
    assert (list(tensor.dims), tensor.data_type, tensor.name) == ([300], 1, "weight")
    attribute = onnx.AttributeProto.FromString(field(2, 0.25) + field(4, b"\x00\xff"))
    assert (attribute.f, attribute.s) == (0.25, b"\x00\xff")


def test_fields_of_the_package_onnx_are_read() -> None:
    tensor = onnx.TensorProto(dims=[300], data_type=1, name="weight", raw_data=b"\0" * 300)
    content = memoryview(tensor.SerializeToString())
    assert [bytes(part) for part in byte_fields(content, 8)] == [b"weight"]
    assert [bytes(part) for part in byte_fields(content, 8, 9)] == [b"weight", b"\0" * 300]
    assert [field[:2] for field in read_fields(content)] == [
        (1, 0),
        (2, 0),
        (8, 2),
        (9, 2),
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"\x3e", "the unknown wire type 6", id="unknown wire type"),
        pytest.param(b"\x3a", "cut off within a number", id="number cut off"),
        pytest.param(b"\x3a\x05abcd", "cut off within field 7", id="text cut off"),
        pytest.param(b"\x3d\x00\x00", "cut off within field 7", id="float cut off"),
        pytest.param(b"\x38" + b"\xff" * 11, "a number of more than 10 bytes", id="endless number"),
        pytest.param(b"\x00\x00", "a field with the number 0", id="field 0"),
    ],
)
def test_malformed_messages_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        list(read_fields(memoryview(content)))


def test_whole_fields_are_the_message() -> None:
    content = field(1, 300) + b"\x8a\x80\x00\x04some" + field(2, 0.5) + field(3, b"")
    fields = list(read_fields(memoryview(content)))
    assert b"".join(each.whole for each in fields) == content
    assert [(each.number, bytes(each.content)) for each in fields[1::2]] == [(1, b"some"), (3, b"")]


def test_whole_numbers_are_read() -> None:
    unpacked = onnx.TensorProto(dims=[3, 1 << 40, 0])
    packed = onnx.TensorProto(int64_data=[-1, 1, -(2**63), 2**63 - 1])
    assert integers(memoryview(unpacked.SerializeToString()), 1) == [3, 1 << 40, 0]
    assert integers(memoryview(packed.SerializeToString()), 7) == [-1, 1, -(2**63), 2**63 - 1]
    assert integers(memoryview(packed.SerializeToString()), 1) == []
