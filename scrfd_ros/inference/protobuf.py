# SPDX-License-Identifier: Apache-2.0
"""Protocol buffer messages, of which ONNX files consist, as bytes.

Read and written here, as the package onnx would install its own protobuf for all programs of the
robot. Bytes written here also depend on no library's version: their checksum is known in advance.
Encoding: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

VARINT, BYTES = 0, 2  # wire types
_FLOAT32 = 5
_SIZES = {1: 8, 3: 0, 4: 0, _FLOAT32: 4}
"""Bytes of the other wire types: numbers, and the marks at the ends of groups, an old form."""

_MAX_VARINT = 10  # bytes


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        number: says what it is.
        kind: its wire type.
        content: its value as bytes; of text, raw data and messages without their length.
        whole: all its bytes, as they stand in the message.
    """

    number: int
    kind: int
    content: memoryview
    whole: memoryview


def field(number: int, value: int | float | str | bytes) -> bytes:
    """One field of a message; `bytes` are a message inside it, or raw data."""
    if isinstance(value, int):
        return _varint(number << 3 | VARINT) + _varint(value)
    if isinstance(value, float):
        return _varint(number << 3 | _FLOAT32) + struct.pack("<f", value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def read_fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message, in order; all of them `whole`, one after the other, are the message.

    Raises:
        ValueError: the message is malformed or cut off.
    """
    at = 0

    def varint() -> int:
        nonlocal at
        value = 0
        for shift in range(0, 7 * _MAX_VARINT, 7):
            if at == len(message):
                raise ValueError("cut off within a number")
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError(f"a number of more than {_MAX_VARINT} bytes")

    while at < len(message):
        begin = at
        number, kind = divmod(varint(), 8)
        start = at
        if kind == VARINT:
            varint()
        elif kind == BYTES:
            size = varint()
            start = at
            at += size
        elif kind in _SIZES:
            at += _SIZES[kind]
        else:
            raise ValueError(f"a field of the unknown wire type {kind}")
        if number == 0:
            raise ValueError("a field with the number 0")
        if at > len(message):
            raise ValueError(f"cut off within field {number}")
        yield Field(number, kind, message[start:at], message[begin:at])


def byte_fields(message: memoryview, *wanted: int) -> Iterator[memoryview]:
    """Content of the fields with these numbers that are text, raw data or messages.

    Raises:
        ValueError: the message is malformed or cut off.
    """
    for each in read_fields(message):
        if each.kind == BYTES and each.number in wanted:
            yield each.content


def integers(message: memoryview, number: int) -> list[int]:
    """The values of a field of whole numbers, signed, 64 bits; written one by one or packed.

    Raises:
        ValueError: the message is malformed or cut off.
    """
    values = []
    for each in read_fields(message):
        if each.number == number:
            value = shift = 0
            for byte in each.content:
                value |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    values.append(value - (value >> 63 << 64))
                    value = shift = 0
    return values
