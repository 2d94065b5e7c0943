"""The little of an ONNX file's content that ONNX Runtime does not tell.

Read by hand, as the package onnx would bring its own protobuf onto the robot, for every other
program there as well. Numbers of fields: onnx.proto of the ONNX project; encoding:
https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from scrfd_ros.errors import ModelError

_MODEL_GRAPH, _GRAPH_NODE, _NODE_OP_TYPE = 7, 1, 4
_VARINT, _BYTES = 0, 2
_SIZES = {1: 8, 3: 0, 4: 0, 5: 4}
"""Bytes of other kinds: numbers, and the marks at the ends of a group, which are old but valid."""

_LONGEST_VARINT = 10
_CHANGES_NOTHING = (b"Identity", b"Constant")
_FIRST_NODES = 8


def normalizes_input(content: bytes) -> bool:
    """Whether an ONNX model begins with (x - mean) * scale, as exports from MXNet do.

    Raises:
        ModelError: this is no ONNX model, which ONNX Runtime would have told too.
    """
    try:
        nodes = (
            node
            for graph in _byte_fields(memoryview(content), _MODEL_GRAPH)
            for node in _byte_fields(graph, _GRAPH_NODE)
        )
        operators = [
            bytes(name)
            for node in islice(nodes, _FIRST_NODES)
            for name in _byte_fields(node, _NODE_OP_TYPE)
        ]
    except (IndexError, KeyError) as error:
        raise ModelError(f"{len(content)} bytes that are no whole ONNX model: {error!r}") from error
    return [name for name in operators if name not in _CHANGES_NOTHING][:2] == [b"Sub", b"Mul"]


def _byte_fields(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Content of each field of this number in a protobuf message that has bytes as content."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = 0
        for place in range(_LONGEST_VARINT):
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return value
        raise IndexError(f"a number of more than {_LONGEST_VARINT} bytes")

    while at < len(message):
        number, kind = divmod(varint(), 8)
        if kind == _BYTES:
            size = varint()
            if number == wanted:
                yield message[at : at + size]
            at += size
        elif kind == _VARINT:
            varint()
        else:
            at += _SIZES[kind]
