# SPDX-License-Identifier: Apache-2.0
"""Forms in which detectors of one input size are exported, made from the real 2.5g."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

SIZE = (320, 256)
"""Width and height of their inputs: small, so that tests are quick."""


def _constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _resizes(model: onnx.ModelProto) -> list[tuple[int, onnx.NodeProto]]:
    nodes = enumerate(model.graph.node)
    return [(number, node) for number, node in nodes if node.op_type == "Resize"]


def fixed(real: Path) -> onnx.ModelProto:
    """2.5g, of which the published file is simplified at 640x640, at `SIZE`."""
    model = onnx.load(str(real))
    width, height = SIZE
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    sizes[2].dim_value, sizes[3].dim_value = height, width
    constants = _constants(model)
    for (_, node), stride in zip(_resizes(model), (16, 8), strict=True):
        tensor = constants[node.input[3]]
        old = numpy_helper.to_array(tensor)
        new = np.array([*old[:2], height // stride, width // stride])
        tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
    for output in model.graph.output:
        stride = int(output.name.split("_")[1])
        rows = output.type.tensor_type.shape.dim[1]
        rows.dim_value = 2 * (height // stride) * (width // stride)
    del model.graph.value_info[:]
    return model


def _add_constant(model: onnx.ModelProto, name: str, values: NDArray[np.int64]) -> str:
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    return name


def not_simplified(model: onnx.ModelProto) -> None:
    """Height and width of a Resize are constants, the rest comes from a shape, as PyTorch traces.

    The graph has no declared shapes inside.
    """
    nodes = model.graph.node
    constants = _constants(model)
    for number, node in reversed(_resizes(model)):
        new = numpy_helper.to_array(constants[node.input[3]])[2:]
        begin, end, pair = (
            _add_constant(model, f"{node.output[0]} {name}", np.array(values))
            for name, values in (("begin", [0]), ("end", [2]), ("pair", new))
        )
        shape, part, sizes = (f"{node.output[0]} {name}" for name in ("shape", "part", "sizes"))
        nodes.insert(number, helper.make_node("Concat", [part, pair], [sizes], axis=0))
        nodes.insert(number, helper.make_node("Slice", [shape, begin, end], [part]))
        nodes.insert(number, helper.make_node("Shape", [node.input[0]], [shape]))
        node.input[3] = sizes


def weights_among_inputs(model: onnx.ModelProto) -> None:
    """As in ONNX files up to IR version 3."""
    model.ir_version = 3
    for tensor in model.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(value)


def fixed_rows(model: onnx.ModelProto) -> None:
    """The rows of an output are a constant."""
    (reshape,) = (node for node in model.graph.node if "bbox_8" in node.output)
    width, height = SIZE
    rows = 2 * (height // 8) * (width // 8)
    reshape.input[1] = _add_constant(model, "fixed rows", np.array([1, rows, 4]))


def fixed_crop(model: onnx.ModelProto) -> None:
    """Nothing beyond the size of the input is looked at: smaller images work, larger do not."""
    width, height = SIZE
    begin, end, axes = (
        _add_constant(model, name, np.array(values))
        for name, values in (("begin", [0, 0]), ("end", [height, width]), ("axes", [2, 3]))
    )
    own = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["cropped" if name == own else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Slice", [own, begin, end, axes], ["cropped"]))


def shifted(model: onnx.ModelProto) -> None:
    """The image is moved by the difference to the fixed size: runs at others, and finds others."""
    own = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["shifted" if name == own else name for name in node.input]
    width, height = SIZE
    # Padding at one side by the difference, and at the other by its opposite, which crops.
    _add_constant(model, "own sizes", np.array([1, 3, height, width]))
    _add_constant(model, "none", np.array([0, 0, 0, 0]))
    nodes = [
        helper.make_node("Shape", [own], ["shape"]),
        helper.make_node("Sub", ["shape", "own sizes"], ["difference"]),
        helper.make_node("Sub", ["none", "difference"], ["ends"]),
        helper.make_node("Concat", ["difference", "ends"], ["pads"], axis=0),
        helper.make_node("Pad", [own, "pads"], ["shifted"]),
    ]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
