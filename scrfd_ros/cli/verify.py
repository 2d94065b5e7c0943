"""Check a model, an .onnx file or a TensorRT engine: that it is whole, loads, and finds faces.

Prints its inputs and outputs, and what is known of it. It is run on drawn faces: what cannot be
right is an error, what is doubtful is told. With --onnx an engine is also held against its model;
for an engine that trtexec built this writes the file of facts.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from scrfd_ros.cli.arguments import model_path
from scrfd_ros.convert import DETECTOR_SIZE, kind_of, verify
from scrfd_ros.errors import ModelError
from scrfd_ros.model_check import check_network
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER
from scrfd_ros.networks.engine_file import EngineFacts, facts_path, read_facts
from scrfd_ros.networks.load import ENGINE_SUFFIX, load_network

_PASSED: dict[str | None, str] = {
    DETECTOR: "A detector: finds the faces that are drawn to check models.",
    RECOGNIZER: "A recogniser: tells the faces apart that are drawn to check models.",
}
_NOT_CHECKED = "Neither a detector nor a recogniser by its form: it was not run."


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
    facts = read_facts(args.model)
    if facts is None:
        print("Nothing else is known of it: --onnx MODEL holds it against its model")
    else:
        _print_facts(facts)
        print(f"(from {facts_path(args.model).name})")
    return 0


def _print_facts(facts: EngineFacts) -> None:
    shapes = facts.shapes
    low, usual, high = list(shapes.min), list(shapes.opt), list(shapes.max)
    rows = {
        "model": facts.model,
        "model SHA-256": facts.model_sha256,
        "precision": facts.precision,
        "input": f"{low}" if shapes.is_fixed else f"{low} to {high}, best {usual}",
        "built": facts.built,
        "GPU": f"{facts.platform.gpu}, compute capability {facts.platform.compute_capability}",
        "TensorRT": facts.platform.tensorrt,
        "CUDA": facts.platform.cuda,
        "system": facts.platform.system,
        **{name.replace("_", " "): value for name, value in facts.options.items() if value},
    }
    for name, value in rows.items():
        print(f"{name:22}{value}")
    print("agreement with the model:")
    for name, figure in facts.agreement.items():
        print(f"  {name.replace('_', ' '):28}{figure:.6g}")
