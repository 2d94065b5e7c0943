# SPDX-License-Identifier: Apache-2.0
"""The parts of an ONNX model as bytes: nodes, tensors, inputs and outputs; read, written, replaced.

https://github.com/onnx/onnx/blob/main/onnx/onnx.proto has the numbers of the fields. What a change
does not name stays as it is, byte for byte.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.errors import ModelError
from scrfd_ros.inference.protobuf import Field, byte_fields, field, integers, read_fields

NODE, INITIALIZER, INPUT, OUTPUT, VALUE_INFO = 1, 5, 11, 12, 13
"""Numbers of the fields of a graph."""

_MODEL_GRAPH = 7
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_KIND, _NODE_ATTRIBUTE = 1, 2, 3, 4, 5
_TENSOR_SIZE, _TENSOR_TYPE, _TENSOR_FLOATS, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 4, 8, 9
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE, _SHAPE_SIZE = 1, 2, 1, 2, 1
_SIZE_NUMBER, _SIZE_NAME = 1, 2
_FLOAT = 1  # TensorProto.DataType

Part = bytes | memoryview


class Node(NamedTuple):
    """An operation of a graph: its kind, such as Conv, and the names of its values."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def graph_of(content: bytes) -> memoryview:
    """The one graph of an ONNX model.

    Raises:
        ModelError: it has none, or several.
        ValueError: it is malformed or cut off.
    """
    graphs = list(byte_fields(memoryview(content), _MODEL_GRAPH))
    if len(graphs) != 1:
        raise ModelError(f"not an ONNX model: it has {len(graphs)} graphs, expected 1")
    return graphs[0]


def graph_inputs(graph: memoryview) -> list[memoryview]:
    """The ValueInfoProtos of a graph's inputs; old files list weights among them: not these.

    Raises:
        ValueError: it is malformed or cut off.
    """
    weights = set(map(tensor_name, byte_fields(graph, INITIALIZER)))
    return [each for each in byte_fields(graph, INPUT) if value_name(each) not in weights]


def input_shapes(content: bytes) -> list[list[int | None]]:
    """The declared shapes of an ONNX model's inputs, see `value_shape`.

    Raises:
        ModelError: it is malformed, or cut off.
    """
    try:
        return list(map(value_shape, graph_inputs(graph_of(content))))
    except ValueError as error:
        raise ModelError(f"not a whole ONNX model, {len(content)} bytes: {error}") from error


def with_graph(content: bytes, change: Callable[[Field], Part], more: bytes = b"") -> bytes:
    """An ONNX model with changes in its graph.

    Args:
        content: the model.
        change: what takes the place of a field of the graph, encoded; its `whole` keeps it.
        more: fields to add at the end, encoded.

    Raises:
        ModelError, ValueError: see `graph_of`.
    """
    parts = (*map(change, read_fields(graph_of(content))), more)
    graph = field(_MODEL_GRAPH, b"".join(parts))
    return b"".join(
        graph if part.number == _MODEL_GRAPH else part.whole
        for part in read_fields(memoryview(content))
    )


def read_node(node: memoryview) -> Node:
    """A NodeProto."""
    kind, inputs, outputs = (
        tuple(map(_text, byte_fields(node, number)))
        for number in (_NODE_KIND, _NODE_INPUT, _NODE_OUTPUT)
    )
    return Node("".join(kind), inputs, outputs)


def with_inputs(node: memoryview, inputs: Sequence[str]) -> bytes:
    """A NodeProto with other inputs."""
    rest = (part.whole for part in read_fields(node) if part.number != _NODE_INPUT)
    return b"".join((*(field(_NODE_INPUT, name) for name in inputs), *rest))


def node(
    kind: str,
    output: str,
    inputs: Sequence[str],
    **attributes: float | str | list[int] | NDArray[Any],
) -> bytes:
    """A NodeProto with one output, whose name it has too."""
    content = b"".join(field(_NODE_INPUT, name) for name in inputs) + field(_NODE_OUTPUT, output)
    content += field(_NODE_NAME, output) + field(_NODE_KIND, kind)
    parts = (field(_NODE_ATTRIBUTE, _attribute(*item)) for item in attributes.items())
    return content + b"".join(parts)


def _attribute(name: str, value: float | str | list[int] | NDArray[Any]) -> bytes:
    """An AttributeProto."""
    if isinstance(value, float):
        return field(1, name) + field(2, value) + field(20, 1)
    if isinstance(value, int):
        return field(1, name) + field(3, value) + field(20, 2)
    if isinstance(value, str):
        return field(1, name) + field(4, value) + field(20, 3)
    if isinstance(value, list):
        return field(1, name) + b"".join(field(8, item) for item in value) + field(20, 7)
    return field(1, name) + field(5, tensor(name, value)) + field(20, 4)


def tensor(name: str, values: NDArray[Any]) -> bytes:
    """A TensorProto of float32."""
    sizes = b"".join(field(_TENSOR_SIZE, size) for size in values.shape)
    content = field(_TENSOR_TYPE, _FLOAT) + field(_TENSOR_NAME, name)
    return sizes + content + field(_TENSOR_RAW, values.astype("<f4").tobytes())


def tensor_name(tensor: memoryview) -> str:
    """The name of a TensorProto."""
    return "".join(map(_text, byte_fields(tensor, _TENSOR_NAME)))


def float_values(tensor: memoryview) -> NDArray[np.float32] | None:
    """The values of a TensorProto of float32; None if it has another type or is malformed."""
    if integers(tensor, _TENSOR_TYPE) != [_FLOAT]:
        return None
    # In one piece as raw data, else one by one or packed.
    raw = list(byte_fields(tensor, _TENSOR_RAW)) or [
        part.content for part in read_fields(tensor) if part.number == _TENSOR_FLOATS
    ]
    content = b"".join(raw)
    shape = integers(tensor, _TENSOR_SIZE)
    if len(content) != 4 * math.prod(shape):
        return None
    return np.frombuffer(content, "<f4").reshape(shape).astype(np.float32)


def value(name: str, shape: Sequence[int | str] | None = None) -> bytes:
    """A ValueInfoProto, of an input or output: its name and, with a shape, that of float32 values.

    Args:
        shape: sizes, with a name for each that is free; None leaves type and shape open.
    """
    content = field(_VALUE_NAME, name)
    if shape is None:
        return content
    sizes = b"".join(field(_SHAPE_SIZE, _size(size)) for size in shape)
    kind = field(1, _FLOAT) + field(_TENSOR_SHAPE, sizes)
    return content + field(_VALUE_TYPE, field(_TYPE_TENSOR, kind))


def _size(size: int | str) -> bytes:
    """A dimension of a TensorShapeProto."""
    return field(_SIZE_NUMBER if isinstance(size, int) else _SIZE_NAME, size)


def value_name(value: memoryview) -> str:
    """The name of a ValueInfoProto."""
    return "".join(map(_text, byte_fields(value, _VALUE_NAME)))


def value_shape(value: memoryview) -> list[int | None]:
    """The declared sizes of a ValueInfoProto, None where one is free; empty if none is declared."""
    numbers = (
        integers(size, _SIZE_NUMBER)
        for kind in byte_fields(value, _VALUE_TYPE)
        for tensor in byte_fields(kind, _TYPE_TENSOR)
        for shape in byte_fields(tensor, _TENSOR_SHAPE)
        for size in byte_fields(shape, _SHAPE_SIZE)
    )
    return [found[0] if found else None for found in numbers]


def with_free_sizes(value: memoryview, numbers: Container[int]) -> bytes:
    """A ValueInfoProto in whose shape the sizes of these numbers are free, without names."""

    def of_shape(shape: Field) -> bytes:
        sizes = enumerate(read_fields(shape.content))
        freed = (field(_SHAPE_SIZE, b"") if at in numbers else size.whole for at, size in sizes)
        return field(shape.number, b"".join(freed))

    def of_tensor(tensor: Field) -> bytes:
        return field(tensor.number, _within(tensor.content, _TENSOR_SHAPE, of_shape))

    def of_type(kind: Field) -> bytes:
        return field(kind.number, _within(kind.content, _TYPE_TENSOR, of_tensor))

    return _within(value, _VALUE_TYPE, of_type)


def _within(message: memoryview, number: int, change: Callable[[Field], bytes]) -> bytes:
    """A message with a change of the fields of one number."""
    parts = read_fields(message)
    return b"".join(change(part) if part.number == number else part.whole for part in parts)


def _text(part: memoryview) -> str:
    return bytes(part).decode(errors="replace")
