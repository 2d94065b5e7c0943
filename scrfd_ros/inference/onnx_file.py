# SPDX-License-Identifier: Apache-2.0
"""ONNX files as bytes, and the few things in them that ONNX Runtime does not report.

A file is one ModelProto, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, which has the
numbers of the fields.
"""

from __future__ import annotations

import shlex
from itertools import islice
from pathlib import Path

from scrfd_ros.errors import ModelError
from scrfd_ros.inference.protobuf import BYTES, VARINT, byte_fields, read_fields

_MODEL_IR_VERSION, _MODEL_GRAPH, _MODEL_OPSETS, _MODEL_FUNCTION = 1, 7, 8, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE_INITIALIZER = 1, 5, 15
_NODE_OP_TYPE, _NODE_ATTRIBUTE, _FUNCTION_NODE = 4, 5, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _SPARSE_PARTS = (5, 10), (6, 11), (1, 2)
_TENSOR_EXTERNAL, _ENTRY_KEY, _ENTRY_VALUE = 13, 1, 2

_CHANGES_NOTHING = (b"Identity", b"Constant")
_FIRST_NODES = 8


def read_model(path: Path) -> bytes:
    """The content of an ONNX file that has its weights inside.

    Raises:
        ModelError: it cannot be read, or its weights are in files beside it: its checksum would
            not be theirs, and engines are built from one file.
    """
    content = read_file(path)
    refuse_external_data(path, content)
    return content


def read_file(path: Path) -> bytes:
    """The content of a model's file, unchecked.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot read the model file: {error.strerror}") from error


def refuse_external_data(path: Path, content: bytes) -> None:
    """Refuse a model with weights in other files.

    Raises:
        ModelError: it has some; says how to make one file of them.
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


def load_error(path: Path, library: str, size: int, error: Exception) -> ModelError:
    """The error for a file of so many bytes that a library cannot load."""
    return ModelError(
        f"{path}: not an ONNX model that {library} can load ({size} bytes): {one_line(error)}. "
        f"Fetch the file again, or check its path"
    )


def one_line(error: Exception) -> str:
    """What an error says, without line breaks."""
    return " ".join(str(error).split())


def external_files(content: bytes) -> list[str]:
    """Names of the files that hold weights of an ONNX model, sorted; empty where none do.

    Also empty for anything but an ONNX model, which ONNX Runtime refuses.
    """
    names: set[str] = set()

    def tensor(message: memoryview) -> None:
        for entry in byte_fields(message, _TENSOR_EXTERNAL):
            key, value = (
                b"".join(map(bytes, byte_fields(entry, number)))
                for number in (_ENTRY_KEY, _ENTRY_VALUE)
            )
            if key == b"location":
                names.add(value.decode(errors="replace"))

    def node(message: memoryview) -> None:
        for attribute in byte_fields(message, _NODE_ATTRIBUTE):
            for part in byte_fields(attribute, *_ATTRIBUTE_TENSORS):
                tensor(part)
            for part in byte_fields(attribute, *_ATTRIBUTE_GRAPHS):
                graph(part)

    def graph(message: memoryview) -> None:
        for part in byte_fields(message, _GRAPH_INITIALIZER):
            tensor(part)
        for sparse in byte_fields(message, _GRAPH_SPARSE_INITIALIZER):
            for part in byte_fields(sparse, *_SPARSE_PARTS):
                tensor(part)
        for part in byte_fields(message, _GRAPH_NODE):
            node(part)

    model = memoryview(content)
    try:
        for part in byte_fields(model, _MODEL_GRAPH):
            graph(part)
        for function in byte_fields(model, _MODEL_FUNCTION):
            for part in byte_fields(function, _FUNCTION_NODE):
                node(part)
    except (ValueError, RecursionError):
        return []
    return sorted(names)


def is_onnx(content: bytes) -> bool:
    """Whether this is one ONNX model from beginning to end, by its outermost fields.

    False for an HTML page, another kind of file, and a model that is cut off or has something
    appended. The content of the graph is not examined.
    """
    found = set()
    try:
        for field in read_fields(memoryview(content)):
            if field.kind not in (VARINT, BYTES):
                return False
            found.add(field.number)
    except ValueError:
        return False
    return {_MODEL_IR_VERSION, _MODEL_GRAPH, _MODEL_OPSETS} <= found


def normalizes_input(content: bytes) -> bool:
    """Whether an ONNX model begins with (x - mean) * scale, as exports from MXNet do.

    Raises:
        ModelError: this is not an ONNX model, or a damaged one.
    """
    try:
        nodes = (
            node
            for graph in byte_fields(memoryview(content), _MODEL_GRAPH)
            for node in byte_fields(graph, _GRAPH_NODE)
        )
        operators = [
            bytes(name)
            for node in islice(nodes, _FIRST_NODES)
            for name in byte_fields(node, _NODE_OP_TYPE)
        ]
    except ValueError as error:
        raise ModelError(f"not a whole ONNX model, {len(content)} bytes: {error}") from error
    return [name for name in operators if name not in _CHANGES_NOTHING][:2] == [b"Sub", b"Mul"]
