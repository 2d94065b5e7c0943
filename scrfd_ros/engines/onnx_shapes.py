# SPDX-License-Identifier: Apache-2.0
"""Fix the sizes of an ONNX model's input, for programs that have no option for them."""

from __future__ import annotations

from scrfd_ros.errors import ModelError
from scrfd_ros.inference.engine_file import ShapeRange


def with_input_shape(content: bytes, shapes: ShapeRange) -> bytes:
    """The model with fixed sizes of its one input; a size that stays free is named batch.

    Real files name several sizes "?", which trtexec takes to be equal.

    Args:
        content: an ONNX model.
        shapes: of the input; a size with different minimum and maximum stays free.

    Raises:
        ModelError: the package onnx is missing.
    """
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise ModelError(
            "changing ONNX files takes the Python package onnx: pip install onnx"
        ) from error
    model = onnx.load_from_string(content)
    weights = {tensor.name for tensor in model.graph.initializer}
    (tensor,) = (tensor for tensor in model.graph.input if tensor.name not in weights)
    for size, low, high in zip(
        tensor.type.tensor_type.shape.dim, shapes.min, shapes.max, strict=True
    ):
        if low == high:
            size.dim_value = low
        else:
            size.dim_param = "batch"
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return bytes(model.SerializeToString())
