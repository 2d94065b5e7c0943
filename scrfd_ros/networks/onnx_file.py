"""The little of an ONNX file's content that ONNX Runtime does not tell.

Read by hand, as the package onnx would bring its own protobuf onto the robot, for every other
program there as well. Numbers of fields: onnx.proto of the ONNX project; encoding:
https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

_MODEL_GRAPH, _GRAPH_NODE, _NODE_OP_TYPE = 7, 1, 4
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_CHANGES_NOTHING = ("Identity", "Constant")
_FIRST_NODES = 8


def normalizes_input(content: bytes) -> bool:
    """Whether a valid ONNX model begins with (x - mean) * scale, as exports from MXNet do."""
    model = _byte_fields(memoryview(content))
    graph = next(value for number, value in model if number == _MODEL_GRAPH)
    nodes = (value for number, value in _byte_fields(graph) if number == _GRAPH_NODE)
    operators = [
        bytes(value).decode()
        for node in islice(nodes, _FIRST_NODES)
        for number, value in _byte_fields(node)
        if number == _NODE_OP_TYPE
    ]
    return [name for name in operators if name not in _CHANGES_NOTHING][:2] == ["Sub", "Mul"]


def _byte_fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field of a protobuf message that has bytes as content."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        number, kind = divmod(varint(), 8)
        if kind == _BYTES:
            size = varint()
            yield number, message[at : at + size]
            at += size
        elif kind == _VARINT:
            varint()
        else:
            at += {_FIXED64: 8, _FIXED32: 4}[kind]
