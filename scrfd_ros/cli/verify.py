"""Check a TensorRT engine: that it is whole, built for this machine, and loads.

Prints its inputs and outputs, and what is known of it. With --onnx it is also run, and held
against its model; for an engine that trtexec built this writes the file of facts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scrfd_ros.cli.arguments import model_path
from scrfd_ros.convert import verify
from scrfd_ros.networks.engine_file import EngineFacts, facts_path, read_facts
from scrfd_ros.networks.tensorrt import open_engine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("engine", type=Path, metavar="ENGINE", help="an .engine file")
    parser.add_argument(
        "--onnx", metavar="MODEL", help="the .onnx file that it was built from, or its name"
    )


def run(args: argparse.Namespace) -> int:
    if args.onnx:
        verify(args.engine, model_path(args.onnx))
    network = open_engine(args.engine)
    print(f"[OK] {args.engine} loads, on {network.backend}")
    tensors = [("INPUT ", tensor) for tensor in network.inputs]
    tensors += [("OUTPUT", tensor) for tensor in network.outputs]
    print(f"Bindings: {len(tensors)}")
    for number, (direction, tensor) in enumerate(tensors):
        sizes = [-1 if size is None else size for size in tensor.shape]
        print(f"  [{number}] {direction} {tensor.name} dims={sizes} type=float32")
    facts = read_facts(args.engine)
    if facts is None:
        print("Nothing else is known of it: --onnx MODEL holds it against its model")
    else:
        _print_facts(facts)
        print(f"(from {facts_path(args.engine).name})")
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
