# SPDX-License-Identifier: Apache-2.0
"""ONNX files as bytes, and the little of their content that ONNX Runtime does not tell.

Read by hand, as the package onnx would bring its own protobuf onto the robot, for every other
program there as well. Numbers of fields: onnx.proto of the ONNX project; encoding:
https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from scrfd_ros.errors import ModelError

_MODEL_GRAPH, _GRAPH_NODE, _NODE_OP_TYPE = 7, 1, 4
_GRAPH_INITIALIZER, _GRAPH_SPARSE_INITIALIZER, _SPARSE_PARTS = 5, 15, (1, 2)
_NODE_ATTRIBUTE, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, (5, 10), (6, 11)
_MODEL_FUNCTION, _FUNCTION_NODE = 25, 7
_TENSOR_EXTERNAL, _ENTRY_KEY, _ENTRY_VALUE = 13, 1, 2
_VARINT, _BYTES = 0, 2
_SIZES = {1: 8, 3: 0, 4: 0, 5: 4}
"""Bytes of other kinds: numbers, and the marks at the ends of a group, which are old but valid."""

_LONGEST_VARINT = 10
_CHANGES_NOTHING = (b"Identity", b"Constant")
_FIRST_NODES = 8


def read_model(path: Path) -> bytes:
    """The content of an ONNX file that has its weights inside.

    Raises:
        ModelError: it cannot be read, or its weights are in files beside it: its checksum would
            not be theirs, and engines are built from one file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot read the model file: {error.strerror}") from error
    refuse_external_data(path, content)
    return content


def refuse_external_data(path: Path, content: bytes) -> None:
    """Refuse a model of which weights are in other files.

    Raises:
        ModelError: so it is; says how to put them in.
    """
    names = external_files(content)
    if names:
        source, result = str(path), str(path.with_name(f"{path.stem}_whole.onnx"))
        code = (
            f"import onnx; onnx.save_model(onnx.load({source!r}), {result!r}, "
            f"save_as_external_data=False)"
        )
        raise ModelError(
            f"{path}: its weights are in other files ({', '.join(names[:3])}), which its checksum "
            f"does not cover; expected one file with all in it. To make one: pip install onnx; "
            f"python3 -c {shlex.quote(code)}"
        )


def external_files(content: bytes) -> list[str]:
    """Names of the files that hold weights of an ONNX model, sorted; empty for a whole one.

    Also empty for what is no ONNX model, which ONNX Runtime refuses.
    """
    names: set[str] = set()

    def tensor(message: memoryview) -> None:
        for entry in _byte_fields(message, _TENSOR_EXTERNAL):
            key, value = (
                b"".join(map(bytes, _byte_fields(entry, field)))
                for field in (_ENTRY_KEY, _ENTRY_VALUE)
            )
            if key == b"location":
                names.add(value.decode(errors="replace"))

    def node(message: memoryview) -> None:
        for attribute in _byte_fields(message, _NODE_ATTRIBUTE):
            for field in _ATTRIBUTE_TENSORS:
                for part in _byte_fields(attribute, field):
                    tensor(part)
            for field in _ATTRIBUTE_GRAPHS:
                for part in _byte_fields(attribute, field):
                    graph(part)

    def graph(message: memoryview) -> None:
        for part in _byte_fields(message, _GRAPH_INITIALIZER):
            tensor(part)
        for sparse in _byte_fields(message, _GRAPH_SPARSE_INITIALIZER):
            for field in _SPARSE_PARTS:
                for part in _byte_fields(sparse, field):
                    tensor(part)
        for part in _byte_fields(message, _GRAPH_NODE):
            node(part)

    model = memoryview(content)
    try:
        for part in _byte_fields(model, _MODEL_GRAPH):
            graph(part)
        for function in _byte_fields(model, _MODEL_FUNCTION):
            for part in _byte_fields(function, _FUNCTION_NODE):
                node(part)
    except (IndexError, KeyError, RecursionError):
        return []
    return sorted(names)


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
