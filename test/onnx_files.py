# SPDX-License-Identifier: Apache-2.0
"""Small real ONNX files in the forms that detectors and recognizers come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from scrfd_ros.inference.network import Network

Shape = Sequence["int | str"]  # a name stands for a size that is free

EMBEDDING_SIZE = 512
_POOL = 16  # keeps the recognizers' weights small: 112 / 16 = 7 pixels a side
_FEATURES = 3 * 7 * 7


def scrfd_outputs(
    width: int,
    height: int,
    *,
    landmarks: bool = True,
    strides: Sequence[int] = (8, 16, 32),
    rank: int = 3,
    numeric: bool = False,
    seed: int = 0,
) -> dict[str, NDArray[np.float32]]:
    """Random outputs of an SCRFD network, by name and in the order of real exports.

    Scores are 0 to 1 and all different, distances and offsets in strides: -1 to 8. No box is inside
    out.
    """
    random = np.random.default_rng(seed)
    anchors = 2 if len(strides) == 3 else 1
    kinds = {"score": 1, "bbox": 4, "kps": 10} if landmarks else {"score": 1, "bbox": 4}
    outputs: dict[str, NDArray[np.float32]] = {}
    for kind, columns in kinds.items():
        for stride in strides:
            rows = (width // stride) * (height // stride) * anchors
            values = random.random((rows, columns)) * (1 if kind == "score" else 9)
            values = values - (0 if kind == "score" else 1)
            if kind == "bbox":
                values[:, 2:] = np.maximum(values[:, 2:], -values[:, :2])
            name = str(440 + 3 * len(outputs)) if numeric else f"{kind}_{stride}"
            outputs[name] = values.reshape((1,) * (rank - 2) + values.shape).astype(np.float32)
    return outputs


def write_detector(
    path: Path,
    outputs: Mapping[str, NDArray[np.float32]],
    input_shape: Shape = (1, 3, "height", "width"),
    *,
    declared: Mapping[str, Shape] | None = None,
    dtype: int = TensorProto.FLOAT,
) -> Path:
    """A network that answers every image with `outputs`, of the `declared` shapes or its own."""
    nodes = [helper.make_node("Identity", [f"{name} value"], [name]) for name in outputs]
    shapes = declared or {name: array.shape for name, array in outputs.items()}
    values = {f"{name} value": array for name, array in outputs.items()}
    return write_graph(path, nodes, input_shape, shapes, values, dtype=dtype)


def write_recognizer(
    path: Path,
    batch: str = "free",
    *,
    normalizes_input: bool = False,
    dimensions: int = EMBEDDING_SIZE,
) -> Path:
    """A network from aligned faces to embeddings: the mean of 16 x 16 pixels times random weights.

    Args:
        path: file to write.
        batch: what it does with several faces. "free": one row each. "fixed": it declares one.
            "refuses": it declares any number, and fails. "flattens": it puts them into one row.
            "mixes": each row depends on the other faces.
        normalizes_input: the graph begins with Sub and Mul, as exports from MXNet do.
        dimensions: length of an embedding.
    """
    weights = np.random.default_rng(1).standard_normal((_FEATURES, dimensions)).astype(np.float32)
    constants: dict[str, NDArray[Any]] = {
        "weights": weights,
        "rows": np.array([-1, _FEATURES], np.int64),
    }
    nodes = []
    planes = "input.1"
    if normalizes_input:
        constants |= {
            "mean": np.array(127.5, np.float32),
            "factor": np.array(1 / 127.5, np.float32),
        }
        nodes += [
            helper.make_node("Sub", [planes, "mean"], ["centerd"]),
            helper.make_node("Mul", ["centerd", "factor"], ["scaled"]),
        ]
        planes = "scaled"
    nodes += [
        helper.make_node(
            "AveragePool", [planes], ["pooled"], kernel_shape=[_POOL] * 2, strides=[_POOL] * 2
        ),
        helper.make_node("Reshape", ["pooled", "rows"], ["features"]),
    ]
    if batch in ("free", "fixed"):
        nodes.append(helper.make_node("MatMul", ["features", "weights"], ["516"]))
    else:
        nodes.append(helper.make_node("MatMul", ["features", "weights"], ["each"]))
        if batch == "mixes":
            nodes.append(helper.make_node("CumSum", ["each", "axis"], ["516"]))
            constants["axis"] = np.array(0, np.int64)
        else:
            one_row = {"refuses": [1, dimensions], "flattens": [1, -1]}[batch]
            constants["one row"] = np.array(one_row, np.int64)
            nodes.append(helper.make_node("Reshape", ["each", "one row"], ["516"]))
    faces: int | str = 1 if batch == "fixed" else "N"
    # One row whatever the input, as w600k_mbf declares too.
    return write_graph(path, nodes, (faces, 3, 112, 112), {"516": (1, dimensions)}, constants)


def write_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    input_shape: Shape,
    outputs: Mapping[str, Shape],
    constants: Mapping[str, NDArray[Any]],
    *,
    dtype: int = TensorProto.FLOAT,
    output_dtype: int = TensorProto.FLOAT,
) -> Path:
    """Write a graph whose one input is called input.1; returns the path."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("input.1", dtype, input_shape)],
        [helper.make_tensor_value_info(name, output_dtype, outputs[name]) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    # Old versions, so that every ONNX Runtime reads them.
    model = helper.make_model(graph, ir_version=7, opset_imports=[helper.make_opsetid("", 13)])
    onnx.save(model, str(path))
    return path


class Recorded:
    """A network that remembers the shape of every input it is given; otherwise the one it wraps."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.shapes: list[tuple[int, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        self.shapes += [array.shape for array in inputs.values()]
        return self._network(inputs)
