# SPDX-License-Identifier: Apache-2.0
"""Parts of ONNX models are read, written and replaced as the package onnx understands them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from scrfd_ros.errors import ModelError
from scrfd_ros.inference.onnx_parts import (
    INPUT,
    NODE,
    OUTPUT,
    graph_of,
    node,
    read_node,
    tensor,
    tensor_name,
    value,
    value_name,
    value_shape,
    with_free_sizes,
    with_graph,
    with_inputs,
)
from scrfd_ros.inference.protobuf import byte_fields, field

LONG_WAY = b"\x8a\x80\x00\x04some"
"""A field 1 with the text "some"; its number takes more bytes than it needs."""


def test_what_is_written_is_read_by_the_package_onnx() -> None:
    written = onnx.NodeProto.FromString(
        node("Conv", "y", ["x", "w"], pads=[1, 1], alpha=0.5, axis=2, mode="nearest")
    )
    expected = helper.make_node(
        "Conv", ["x", "w"], ["y"], name="y", pads=[1, 1], alpha=0.5, axis=2, mode="nearest"
    )
    assert sorted(map(str, written.attribute)) == sorted(map(str, expected.attribute))
    assert (written.op_type, written.input, written.output) == ("Conv", ["x", "w"], ["y"])
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    constant = onnx.NodeProto.FromString(node("Constant", "c", [], value=values))
    np.testing.assert_array_equal(numpy_helper.to_array(constant.attribute[0].t), values)
    shape: list[int | str] = ["batch", 3, 640]
    expected_value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
    assert onnx.ValueInfoProto.FromString(value("x", shape)) == expected_value
    assert onnx.ValueInfoProto.FromString(value("x")) == onnx.ValueInfoProto(name="x")


def test_what_the_package_onnx_writes_is_read() -> None:
    made = helper.make_node("Add", ["a", "", "b"], ["c"], name="sum")
    message = memoryview(made.SerializeToString())
    assert read_node(message) == ("Add", ("a", "", "b"), ("c",))
    changed = onnx.NodeProto.FromString(with_inputs(message, ["d"]))
    assert changed == helper.make_node("Add", ["d"], ["c"], name="sum")
    info = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT16, ["N", 3, 64, None])
    message = memoryview(info.SerializeToString())
    assert (value_name(message), value_shape(message)) == ("x", [None, 3, 64, None])
    freed = onnx.ValueInfoProto.FromString(with_free_sizes(message, (1, 2)))
    assert freed == helper.make_tensor_value_info(
        "x", onnx.TensorProto.FLOAT16, ["N", None, None, None]
    )
    array = numpy_helper.from_array(np.zeros(3, np.float32), "weights")
    assert tensor_name(memoryview(array.SerializeToString())) == "weights"
    assert tensor_name(memoryview(tensor("weights", np.zeros(3)))) == "weights"
    assert value_shape(memoryview(value("x"))) == []


def test_what_is_not_changed_stays_byte_for_byte() -> None:
    some = value("x", [1, "N", 3])
    later = field(4000, b"of a later version")
    shape = later + field(1, field(1, 1) + later) + field(1, field(2, "N"))
    inner = later + field(2, shape) + field(1, 1)
    message = field(2, field(1, inner) + later) + later + LONG_WAY
    freed = with_free_sizes(memoryview(message), (9,))
    assert freed == message and value_name(memoryview(message)) == "some"
    content = later + field(7, later + field(NODE, later) + field(OUTPUT, some)) + field(1, 8)
    assert with_graph(content, lambda part: part.whole) == content
    changed = with_graph(
        content, lambda part: b"" if part.number == OUTPUT else part.whole, field(INPUT, some)
    )
    expected = later + field(7, later + field(NODE, later) + field(INPUT, some)) + field(1, 8)
    assert changed == expected


def test_real_files_stay_byte_for_byte(detector_path: Callable[[str], Path]) -> None:
    content = detector_path("2.5g").read_bytes()
    assert with_graph(content, lambda part: part.whole) == content
    model = onnx.load_from_string(content)
    nodes = [read_node(part) for part in byte_fields(graph_of(content), NODE)]
    assert nodes == [
        (each.op_type, tuple(each.input), tuple(each.output)) for each in model.graph.node
    ]


@pytest.mark.parametrize("content", [b"", field(7, b"") * 2], ids=["none", "two"])
def test_a_model_has_one_graph(content: bytes) -> None:
    with pytest.raises(ModelError, match=r"it has [02] graphs, expected 1"):
        graph_of(content)
