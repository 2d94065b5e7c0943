# SPDX-License-Identifier: Apache-2.0
"""The expected time of each network on a Jetson Orin Nano: computed, not measured.

    ./run.sh test --co -q     # once: sets up .venv with the packages this needs
    .venv/bin/python bench/orin_nano.py [--measured FILE]

The model is a roofline for each layer (Williams et al., Roofline, CACM 52(4), 2009): the longer of
its operations at the processor's peak and its bytes at the memory's bandwidth, in FP16. Operations
that can be fused into a convolution are free. `bound` is the sum, a lower limit. `expected` uses
shares of both peaks and a time for each launch, fitted to the published times of InsightFace-REST
on an RTX 2080 SUPER (FP16, batch 1); the line `fit` has both.

FILE is what `./run.sh bench --json FILE` wrote: with it the last column is measured.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from scipy.optimize import least_squares

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))

from layer_plans import write_arcface, write_scrfd

_FUSED = {
    "BatchNormalization", "Relu", "PRelu", "Sigmoid", "Add", "Mul", "Clip", "Reshape", "Flatten",
    "Transpose", "Identity", "Squeeze", "Unsqueeze", "Constant", "Shape", "Gather", "Concat",
    "Slice", "Cast",
}  # fmt: skip
_BYTES = 2  # of an FP16 value


class Gpu(NamedTuple):
    """Peaks from the manufacturer's data sheets: operations and bytes a second."""

    tensor_cores: float
    cuda_cores: float
    memory: float


ORIN_NANO = Gpu(10e12, 2.56e12, 68e9)
"""8 GB module at 15 W: 1024 cores at 625 MHz; 40 TOPS of sparse INT8 are 10 of dense FP16."""

RTX_2080_SUPER = Gpu(89e12, 22e12, 496e9)

PUBLISHED = {"500m": 0.8, "2.5g": 1.1, "10g": 2.0, "w600k_r50": 1.9}
"""Milliseconds on an RTX 2080 SUPER, https://github.com/SthPhoenix/InsightFace-REST."""

FIRST_GUESS = {"500m": 3, "2.5g": 5, "10g": 12, "glintr100": 6}
"""Milliseconds on an Orin Nano, TensorRT FP16, that the project began with, of unknown origin."""


class Layer(NamedTuple):
    operations: float
    bytes: float
    on_tensor_cores: bool


def layers(model: onnx.ModelProto) -> Iterator[Layer]:
    """The layers that need a kernel of their own."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    weights = {weight.name: list(weight.dims) for weight in graph.initializer}
    for node in graph.node:
        if node.op_type in _FUSED:
            continue
        moved = sum(
            math.prod(shapes.get(n, weights.get(n, [0]))) for n in (*node.input, *node.output)
        )
        operations, group = 0, 1
        if node.op_type in ("Conv", "Gemm"):
            group = next((a.i for a in node.attribute if a.name == "group"), 1)
            kernel = weights[node.input[1]]
            output = math.prod(shapes[node.output[0]])
            inner = math.prod(kernel[1:]) if node.op_type == "Conv" else math.prod(kernel) / output
            operations = 2 * output * inner
        yield Layer(operations, _BYTES * moved, group == 1)


class Shares(NamedTuple):
    """The reached shares of a GPU's peaks, and seconds for each launch."""

    compute: float
    memory: float
    launch: float


_PEAKS = Shares(1, 1, 0)


def milliseconds(gpu: Gpu, plan: list[Layer], shares: Shares) -> float:
    seconds = shares.launch * len(plan)
    for layer in plan:
        peak = gpu.tensor_cores if layer.on_tensor_cores else gpu.cuda_cores
        seconds += max(
            layer.operations / (shares.compute * peak), layer.bytes / (shares.memory * gpu.memory)
        )
    return 1e3 * seconds


def plans() -> dict[str, list[Layer]]:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        for name in ("500m", "1g", "2.5g", "10g", "34g"):
            write_scrfd(path, name, batch=1, height=640, width=640)
            found[name] = list(layers(onnx.load(path)))
        for name, variant in {"w600k_mbf": "mbf", "w600k_r50": "r50", "glintr100": "r100"}.items():
            write_arcface(path, variant, batch=1)
            found[name] = list(layers(onnx.load(path)))
    return found


def fitted_shares(found: dict[str, list[Layer]]) -> Shares:
    """The shares that fit the published times best."""

    def errors(logarithms: np.ndarray) -> list[float]:
        shares = Shares(*np.exp(logarithms))
        return [
            math.log(milliseconds(RTX_2080_SUPER, found[name], shares) / published)
            for name, published in PUBLISHED.items()
        ]

    limits = np.log([Shares(0.1, 0.1, 1e-6), Shares(1, 1, 2e-5)])
    best = least_squares(errors, np.log(Shares(0.4, 0.6, 4e-6)), bounds=limits)
    return Shares(*np.exp(best.x))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measured", type=Path, metavar="FILE", help="of ./run.sh bench --json")
    args = parser.parse_args()
    measured = {}
    if args.measured:
        rows = json.loads(args.measured.read_text())["networks"]
        measured = {row["model"]: row["tensorrt"] for row in rows if row["tensorrt"]}
    found = plans()
    shares = fitted_shares(found)
    print(
        f"fit: {shares.compute:.0%} of the operations, {shares.memory:.0%} of the bandwidth, "
        f"{1e6 * shares.launch:.1f} us for each launch. RTX 2080 SUPER, published and fitted, ms: "
        + ", ".join(
            f"{name} {published} {milliseconds(RTX_2080_SUPER, found[name], shares):.1f}"
            for name, published in PUBLISHED.items()
        )
    )
    print("\n| model | GFLOP | MB | launches | bound | expected | first guess | measured |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, plan in found.items():
        operations = sum(layer.operations for layer in plan) / 1e9
        megabytes = sum(layer.bytes for layer in plan) / 1e6
        bound = milliseconds(ORIN_NANO, plan, _PEAKS)
        expected = milliseconds(ORIN_NANO, plan, shares)
        print(
            f"| {name} | {operations:.2f} | {megabytes:.0f} | {len(plan)} | {bound:.1f} "
            f"| {expected:.1f} | {FIRST_GUESS.get(name, '')} | {measured.get(name, '')} |"
        )


if __name__ == "__main__":
    main()
