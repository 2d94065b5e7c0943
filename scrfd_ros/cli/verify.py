# SPDX-License-Identifier: Apache-2.0
"""Check a model, an .onnx file or a TensorRT engine: that it is whole, loads, and finds faces.

Prints its inputs, outputs and metadata, and runs it on drawn faces: impossible results are an
error, doubtful ones are reported. With --onnx, an engine is also compared with its model; for an
engine that trtexec built, this writes the file of metadata.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from scrfd_ros.cli.arguments import model_path
from scrfd_ros.engines.convert import DETECTOR_SIZE, kind_of, verify
from scrfd_ros.engines.model_check import check_network
from scrfd_ros.errors import ModelError
from scrfd_ros.inference.engine_file import EngineMetadata, metadata_path, read_metadata
from scrfd_ros.inference.load import ENGINE_SUFFIX, load_network
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER

_PASSED: dict[str | None, str] = {
    DETECTOR: "A detector: it finds the drawn faces.",
    RECOGNIZER: "A recognizer: it tells the drawn faces apart.",
}
_NOT_CHECKED = "Neither a detector nor a recognizer by its inputs and outputs: it was not run."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="FILE", help="an .onnx or .engine file")
    parser.add_argument(
        "--onnx", metavar="MODEL", help="the .onnx file that an engine was built from, or its name"
    )


def run(args: argparse.Namespace) -> int:
    is_engine = args.model.suffix == ENGINE_SUFFIX
    if args.onnx:
        if not is_engine:
            raise ModelError(f"{args.model}: --onnx is for engines, expected a name with .engine")
        verify(args.model, model_path(args.onnx))
    network = load_network(args.model)
    kind = kind_of(network)
    doubt = check_network(network, kind, DETECTOR_SIZE)
    print(f"[OK] {args.model} loads, on {network.backend}")
    tensors = [("INPUT ", tensor) for tensor in network.inputs]
    tensors += [("OUTPUT", tensor) for tensor in network.outputs]
    print(f"Bindings: {len(tensors)}")
    for number, (direction, tensor) in enumerate(tensors):
        sizes = [-1 if size is None else size for size in tensor.shape]
        print(f"  [{number}] {direction} {tensor.name} dims={sizes} type=float32")
    print(textwrap.fill(doubt or _PASSED.get(kind, _NOT_CHECKED), 80, break_long_words=False))
    if not is_engine:
        print(f"SHA-256 {network.sha256}")
        return 0
    metadata = read_metadata(args.model)
    if metadata is None:
        print("It has no file of metadata: --onnx MODEL compares it with its model and writes one")
    else:
        _print_metadata(metadata)
        print(f"(from {metadata_path(args.model).name})")
    return 0


def _print_metadata(metadata: EngineMetadata) -> None:
    shapes = metadata.shapes
    low, usual, high = list(shapes.min), list(shapes.opt), list(shapes.max)
    platform = metadata.platform
    rows = {
        "model": metadata.model,
        "model SHA-256": metadata.model_sha256,
        "precision": metadata.precision,
        "input": f"{low}" if shapes.is_fixed else f"{low} to {high}, best {usual}",
        "built": metadata.built,
        "GPU": f"{platform.gpu}, compute capability {platform.compute_capability}",
        "TensorRT": platform.tensorrt,
        "CUDA": platform.cuda,
        "system": platform.system,
        **{name.replace("_", " "): value for name, value in metadata.options.items() if value},
    }
    for name, value in rows.items():
        print(f"{name:22}{value}")
    print("agreement with the model:")
    for name, figure in metadata.agreement.items():
        print(f"  {name.replace('_', ' '):28}{figure:.6g}")
