# SPDX-License-Identifier: Apache-2.0
"""As much of the ONNX file format as this package reads and writes without the package onnx.

A file is one protocol buffer message, ModelProto of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto;
https://protobuf.dev/programming-guides/encoding tells how messages are encoded. Bytes written here
depend on no library's version, so that their checksum can be known in advance.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

_VARINT, _LENGTH, _FLOAT32 = 0, 2, 5  # wire types

_IR_VERSION, _GRAPH, _OPSET_IMPORT = 1, 7, 8  # fields that every ModelProto has


def field(number: int, value: int | float | str | bytes) -> bytes:
    """One field of a message; `bytes` are a message inside it, or raw data."""
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    if isinstance(value, float):
        return _varint(number << 3 | _FLOAT32) + struct.pack("<f", value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | _LENGTH) + _varint(len(content)) + content


def is_onnx(stream: BinaryIO) -> bool:
    """Whether an open file is one ONNX model from beginning to end, by its outermost fields.

    An HTML page, another kind of file, or a model that is cut off or has something appended, is
    not. What the graph holds is not looked at.
    """
    end = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    found = set()
    while stream.tell() < end:
        try:
            key = _read_varint(stream)
            if key & 7 == _VARINT:
                _read_varint(stream)
            elif key & 7 == _LENGTH:
                size = _read_varint(stream)
                if size > end - stream.tell():
                    return False
                stream.seek(size, os.SEEK_CUR)
            else:
                return False
        except ValueError:
            return False
        if key >> 3 == 0:
            return False
        found.add(key >> 3)
    return {_IR_VERSION, _GRAPH, _OPSET_IMPORT} <= found


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 63, 7):
        byte = stream.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] <= 0x7F:
            return value
    raise ValueError("not a variable-length integer")
