# SPDX-License-Identifier: Apache-2.0
"""Real-ESRGAN x4plus: convert ncnn's weights, which are in the Python registry, to an ONNX file.

The network is the RRDBNet of https://arxiv.org/abs/1809.00219 as trained for Real-ESRGAN
(https://arxiv.org/abs/2107.10833): 23 blocks, 64 features, 32 more by each convolution in a block,
16.7 million parameters. Names of layers and weights are those of the published training code.
"""

from __future__ import annotations

import struct
from math import prod

import numpy as np

from scrfd_ros.errors import ModelError
from scrfd_ros.inference.onnx_parts import INITIALIZER, INPUT, NODE, OUTPUT, node, tensor, value
from scrfd_ros.inference.protobuf import field

_BLOCKS, _FEATURES, _GROWTH = 23, 64, 32
_HALF_PRECISION = struct.pack("<I", 0x01306B47)  # ncnn's mark before such weights
_IR_VERSION, _OPSET = 7, 13  # supported by TensorRT 8.5 and newer
_OTHER_WEIGHTS = "these are not ncnn's weights of Real-ESRGAN x4plus, or they are damaged"


def onnx_from_ncnn(weights: bytes) -> bytes:
    """The content of an ONNX file, from the content of ncnn's realesrgan-x4plus.bin.

    The network's input is `input`, float32 [N, 3, H, W] of any sizes, RGB in 0..1; its output is
    `output`, float32 [N, 3, 4 H, 4 W], the upscaled images. Weights are stored in single precision,
    which represents ncnn's half precision exactly. The same weights give the same bytes on every
    machine.

    Raises:
        ModelError: these are not the weights of this network.
    """
    net = _Network(weights)
    first = net.convolution("conv_first", ["input"], 3, _FEATURES)
    x = first
    for block in range(_BLOCKS):
        block_input = x
        for part in range(1, 4):
            name = f"body.{block}.rdb{part}"
            dense = [x]
            channels = _FEATURES
            for number in range(1, 5):
                y = net.convolution(f"{name}.conv{number}", dense, channels, _GROWTH)
                dense.append(net.leaky_relu(y))
                channels += _GROWTH
            x = net.residual(name, x, net.convolution(f"{name}.conv5", dense, channels, _FEATURES))
        x = net.residual(f"body.{block}", block_input, x)
    x = net.convolution("conv_body", [x], _FEATURES, _FEATURES)
    x = net.node("Add", "body", [first, x])
    for number in (1, 2):
        x = net.twice_the_size(f"up{number}", x)
        x = net.leaky_relu(net.convolution(f"conv_up{number}", [x], _FEATURES, _FEATURES))
    x = net.leaky_relu(net.convolution("conv_hr", [x], _FEATURES, _FEATURES))
    net.convolution("conv_last", [x], _FEATURES, 3, output="output")
    return net.model()


class _Network:
    """An ONNX graph under construction. Weights are read in the order of the layers, as in ncnn."""

    def __init__(self, weights: bytes) -> None:
        self._weights = weights
        self._taken = 0
        self._nodes: list[bytes] = []
        self._tensors = [
            tensor("fifth", np.array(0.2)),
            tensor("twice", np.array([1, 1, 2, 2])),
        ]

    def convolution(
        self, name: str, inputs: list[str], channels: int, features: int, output: str = ""
    ) -> str:
        """A 3x3 convolution with bias, which keeps the size, over the concatenated inputs."""
        if self._take(4) != _HALF_PRECISION:
            raise ModelError(_OTHER_WEIGHTS)
        shape = [features, channels, 3, 3]
        weight = np.frombuffer(self._take(2 * prod(shape)), "<f2")
        bias = np.frombuffer(self._take(4 * features), "<f4")
        self._tensors.append(tensor(f"{name}.weight", weight.reshape(shape)))
        self._tensors.append(tensor(f"{name}.bias", bias))
        x = inputs[0] if len(inputs) == 1 else self.node("Concat", f"{name}.in", inputs, axis=1)
        parameters = [x, f"{name}.weight", f"{name}.bias"]
        return self.node("Conv", output or name, parameters, pads=[1, 1, 1, 1])

    def leaky_relu(self, x: str) -> str:
        return self.node("LeakyRelu", f"{x}.relu", [x], alpha=0.2)

    def residual(self, name: str, x: str, change: str) -> str:
        fifth = self.node("Mul", f"{name}.fifth", [change, "fifth"])
        return self.node("Add", name, [x, fifth])

    def twice_the_size(self, name: str, x: str) -> str:
        return self.node(
            "Resize",
            name,
            [x, "", "twice"],
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )

    def node(
        self, kind: str, output: str, inputs: list[str], **attributes: float | str | list[int]
    ) -> str:
        """Add a node; returns the name of its output."""
        self._nodes.append(node(kind, output, inputs, **attributes))
        return output

    def model(self) -> bytes:
        """The finished ModelProto."""
        if self._taken != len(self._weights):
            raise ModelError(_OTHER_WEIGHTS)
        graph = b"".join(field(NODE, each) for each in self._nodes) + field(2, "realesrgan_x4plus")
        graph += b"".join(field(INITIALIZER, each) for each in self._tensors)
        graph += field(INPUT, value("input", ["batch", 3, "height", "width"]))
        graph += field(OUTPUT, value("output", ["batch", 3, "4*height", "4*width"]))
        opset = field(1, "") + field(2, _OPSET)
        return field(1, _IR_VERSION) + field(2, "scrfd_ros") + field(7, graph) + field(8, opset)

    def _take(self, size: int) -> bytes:
        start, self._taken = self._taken, self._taken + size
        if self._taken > len(self._weights):
            raise ModelError(_OTHER_WEIGHTS)
        return self._weights[start : self._taken]
