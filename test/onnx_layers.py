# SPDX-License-Identifier: Apache-2.0
"""Networks of random weights, put together layer by layer and written as PyTorch exports them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Sizes = Sequence["int | None"]  # None for a size that is free

INPUT = "input.1"
_OPSET, _IR_VERSION = 11, 6  # as in InsightFace's exports


class Map(NamedTuple):
    """A feature map [batch, channels, height / stride, width / stride] by its name in the graph."""

    name: str
    channels: int
    stride: int


class Layers:
    """A network that grows layer by layer, from the input image [batch, 3, height, width].

    The weights are random, as large as keeps the signal's mean square (He et al., 2015,
    https://arxiv.org/abs/1502.01852). Convolutions without a name stand for those with a BatchNorm
    folded in: exports number their weights, and name all others. One name given twice is one
    weight, shared.
    """

    def __init__(self, seed: int) -> None:
        self.image = Map(INPUT, 3, 1)
        self._weights: dict[str, NDArray[np.float32]] = {}
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, NDArray[Any]] = {}
        self._shapes: dict[str, Map] = {}
        self._layers = 0

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node; returns the name of its output."""
        output = output or str(len(self._nodes))
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def conv(
        self,
        x: Map,
        channels: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        groups: int = 1,
        gain: float = 1.0,
        name: str = "",
        bias: bool = True,
    ) -> Map:
        """Convolution that multiplies the mean square of its input by `gain`, its size by 1/stride.

        The layers after it are the caller's: ReLU halves the mean square, so it takes a gain of 2.
        """
        name = name or self._next_layer()
        inputs = x.channels // groups
        deviation = (gain / (inputs * kernel**2)) ** 0.5
        parameters = [
            self.weight(f"{name}.weight", (channels, inputs, kernel, kernel), 0, deviation)
        ]
        if bias:
            parameters.append(self.weight(f"{name}.bias", (channels,), 0, 0.05))
        output = self.add(
            "Conv",
            x.name,
            *parameters,
            dilations=[1, 1],
            group=groups,
            kernel_shape=[kernel] * 2,
            pads=[kernel // 2] * 4,
            strides=[stride] * 2,
        )
        return Map(output, channels, x.stride * stride)

    def relu(self, x: Map) -> Map:
        return x._replace(name=self.add("Relu", x.name))

    def prelu(self, x: Map) -> Map:
        slope = self.weight(f"{self._next_layer()}.slope", (x.channels, 1, 1), 0.25, 0.05)
        return x._replace(name=self.add("PRelu", x.name, slope))

    def sum(self, x: Map, y: Map) -> Map:
        return x._replace(name=self.add("Add", x.name, y.name))

    def halve(self, x: Map, operator: str, ceil_mode: int) -> Map:
        """MaxPool or AveragePool of 2 x 2 pixels."""
        output = self.add(
            operator,
            x.name,
            ceil_mode=ceil_mode,
            kernel_shape=[2] * 2,
            pads=[0] * 4,
            strides=[2] * 2,
        )
        return Map(output, x.channels, x.stride * 2)

    def enlarge(self, x: Map, like: Map) -> Map:
        """Repeat pixels until the map is as large as another one of as many channels."""
        nothing = self._constant(np.empty(0, np.float32))  # no region of interest, no scales
        output = self.add(
            "Resize",
            x.name,
            nothing,
            nothing,
            self._shape(like),
            coordinate_transformation_mode="asymmetric",
            cubic_coeff_a=-0.75,
            mode="nearest",
            nearest_mode="floor",
        )
        return x._replace(name=output, stride=like.stride)

    def batch_norm(self, x: Map, output: str = "") -> Map:
        """BatchNorm that cannot be folded, as no convolution comes right before it."""
        own = f"bn{self._next_layer()}"
        means = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
        parameters = [
            self.weight(f"{own}.{part}", (x.channels,), mean, 0.1) for part, mean in means.items()
        ]
        norm = self.add(
            "BatchNormalization", x.name, *parameters, output=output, epsilon=1e-5, momentum=0.9
        )
        return x._replace(name=norm)

    def group_norm(self, x: Map, groups: int, name: str) -> Map:
        """GroupNorm. It has no operator of its own: InstanceNormalization of groups as channels."""
        grouped = self.reshape(x.name, 0, groups, -1)
        ones = self._constant(np.ones(groups, np.float32))
        zeros = self._constant(np.zeros(groups, np.float32))
        norm = self.add("InstanceNormalization", grouped, ones, zeros, epsilon=1e-5)
        back = self.add("Reshape", norm, self._shape(x))
        weight = self.weight(f"{name}.weight", (x.channels, 1, 1), 1, 0.1)
        bias = self.weight(f"{name}.bias", (x.channels, 1, 1), 0, 0.1)
        return x._replace(name=self.add("Add", self.add("Mul", back, weight), bias))

    def reshape(self, name: str, *sizes: int, output: str = "") -> str:
        return self.add("Reshape", name, self._constant(np.array(sizes, np.int64)), output=output)

    def weight(self, name: str, shape: Sequence[int], mean: float, deviation: float) -> str:
        """Normally distributed numbers, unless the name is known; returns it."""
        if name not in self._weights:
            values = self._random.standard_normal(shape, np.float32)
            self._weights[name] = values * np.float32(deviation) + np.float32(mean)
        return name

    def spread(self, wanted: Mapping[str, tuple[float, float]]) -> None:
        """Give every channel of convolutions, by name, a mean and a deviation, measured on noise.

        Random weights leave both to chance: a detector would find faces everywhere, or nowhere.
        """
        outputs = {
            name: [node.output[0] for node in self._nodes if f"{name}.weight" in node.input]
            for name in wanted
        }
        names = [output for several in outputs.values() for output in several]
        model = self._model((None, None, None), dict.fromkeys(names, (None,) * 4))
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        noise = self._random.uniform(-1, 1, (1, 3, 256, 256)).astype(np.float32)
        maps = dict(zip(names, session.run(names, {INPUT: noise}), strict=True))
        for name, (mean, deviation) in wanted.items():
            weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
            values = np.hstack([maps[output].reshape(len(bias), -1) for output in outputs[name]])
            scale = deviation / values.std(axis=1)
            weight *= scale[:, None, None, None]
            bias[:] = mean - scale * (values.mean(axis=1) - bias)

    def write(self, path: Path, sizes: Sizes, outputs: Mapping[str, Sizes]) -> Path:
        """Write the network; returns the path.

        Args:
            sizes: batch, height and width of the input.
            outputs: names and shapes.
        """
        onnx.save(self._model(sizes, outputs), str(path))
        return path

    def _model(self, sizes: Sizes, outputs: Mapping[str, Sizes]) -> onnx.ModelProto:
        batch, height, width = sizes
        nodes = self._nodes
        constants = {**self._weights, **self._constants}
        if batch is not None and height is not None and width is not None:
            nodes = [node for node in nodes if node.output[0] not in self._shapes]
            for name, x in self._shapes.items():
                shape = batch, x.channels, height // x.stride, width // x.stride
                constants[name] = np.array(shape, np.int64)
        graph = helper.make_graph(
            nodes,
            "graph",
            [_value(INPUT, (batch, 3, height, width))],
            [_value(name, shape) for name, shape in outputs.items()],
        )
        opset = helper.make_opsetid("", _OPSET)
        model = helper.make_model(graph, ir_version=_IR_VERSION, opset_imports=[opset])
        # Not before: make_graph and make_model copy what they are given.
        for name, values in constants.items():
            model.graph.initializer.append(numpy_helper.from_array(values, name))
        return model

    def _shape(self, x: Map) -> str:
        """The shape of a map, which `write` makes a constant where the sizes are fixed."""
        name = self.add("Shape", x.name)
        self._shapes[name] = x
        return name

    def _constant(self, values: NDArray[Any]) -> str:
        name = f"constant{len(self._constants)}"
        self._constants[name] = values
        return name

    def _next_layer(self) -> str:
        self._layers += 1
        return str(self._layers)


def _value(name: str, shape: Sizes) -> onnx.ValueInfoProto:
    sizes = [f"{name}.{axis}" if size is None else size for axis, size in enumerate(shape)]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)
