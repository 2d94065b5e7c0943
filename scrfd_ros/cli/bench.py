# SPDX-License-Identifier: Apache-2.0
"""Measure how fast each model is on this machine, and where the time goes."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

from scrfd_ros.cli.arguments import (
    NO_RECOGNIZER,
    add_model_arguments,
    add_option,
    model_path,
    option_values,
)
from scrfd_ros.cli.output import say, tell_new_folder
from scrfd_ros.config import PipelineConfig, from_values
from scrfd_ros.errors import ScrfdError
from scrfd_ros.evaluation.benchmark import (
    Measurement,
    chosen_backends,
    detection_times,
    load_configurations,
    machine_info,
    measure,
    network_times,
)
from scrfd_ros.files import ensure_writable, write_text
from scrfd_ros.images.files import read_image
from scrfd_ros.inference.load import BACKENDS
from scrfd_ros.models.catalogue import (
    DETECTOR,
    RECOGNIZER,
    default_model_directory,
    file_state,
    load_catalogue,
)
from scrfd_ros.models.download import ensure_picture

_BACKENDS = [name for name in BACKENDS if name != "auto"]
_STAGES = {
    "prepare": "prepare",
    "detect": "detect",
    "copy_in": "  copy in",
    "draw": "  draw",
    "network": "  network",
    "candidates": "  candidates",
    "copy_out": "  copy out",
    "decode": "decode",
    "align": "align",
    "embed": "embed",
    "total": "end to end",
}
_BESIDE = 3  # configurations that fit next to each other into 80 columns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, several="all that are here")
    add_option(parser, "backend", help="what runs the networks (default: auto, all that work here)")
    add_option(parser, "threads")
    parser.add_argument(
        "--image", type=Path, metavar="IMAGE", help="an image (default: one of six people)"
    )
    add_option(parser, "input_size")
    parser.add_argument(
        "--repeat",
        type=_at_least(1),
        default=50,
        metavar="N",
        help="measured runs of each configuration (default: %(default)s)",
    )
    parser.add_argument(
        "--warmup",
        type=_at_least(0),
        default=5,
        metavar="N",
        help="runs of each configuration before those (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results as JSON")
    parser.add_argument(
        "--peers",
        action="store_true",
        help="compare with insightface, uniface and a plain node instead; needs ./run.sh of a "
        "checkout, and takes only --repeat and --json",
    )
    parser.add_argument(
        "--gpu",
        nargs=argparse.REMAINDER,
        metavar="...",
        help="build, check and measure all that needs a GPU instead; needs ./run.sh of a checkout, "
        "and takes all that follows: --gpu --help",
    )


def run(args: argparse.Namespace) -> int:
    if args.gpu is not None:
        return subprocess.run([sys.executable, str(_program("gpu", "onnx")), *args.gpu]).returncode
    if args.peers:
        return _compare_with_peers(args)
    if args.json:
        tell_new_folder(args.json)
        ensure_writable(args.json)
    path = args.image or ensure_picture("t1.jpg")
    image = read_image(path)
    configurations, missing = load_configurations(
        _models(args.detector, DETECTOR),
        [None] if args.recognizer == [NO_RECOGNIZER] else _models(args.recognizer, RECOGNIZER),
        _BACKENDS if args.backend == "auto" else [args.backend],
        from_values(PipelineConfig, option_values(args)),
    )
    measurements = measure(configurations, image, repeat=args.repeat, warmup=args.warmup)
    missing += _gaps(measurements, args.backend)
    machine = machine_info()
    date = datetime.now().astimezone().isoformat(timespec="seconds")
    height, width = image.shape[:2]
    networks, detection = network_times(measurements), detection_times(measurements)
    chosen = chosen_backends(configurations) if args.backend == "auto" else {}

    _print_machine(machine)
    print(f"{date}\n")
    say(
        f"{path.name}, {width}x{height}: {args.repeat} runs of each in turns, after "
        f"{args.warmup} to warm up"
    )
    for start in range(0, len(measurements), _BESIDE):
        _print_stages(measurements[start : start + _BESIDE])
    print("\nEach network alone, ms: a detector with the image, a recognizer with one face")
    _print_table(
        ("Model",),
        ("ONNX", "OpenVINO", "TensorRT", "Speedup"),
        [
            (
                row.model,
                _number(row.onnxruntime),
                _number(row.openvino),
                _number(row.tensorrt),
                _number(row.speedup),
            )
            for row in networks
        ],
    )
    for model, backend in chosen.items():
        say(f"auto takes {backend} for {model}")
    print("\nTotal pipeline, from the image in memory to its faces")
    for each in measurements:
        used = each.configuration
        say(
            f"{used.title} on {used.hardware}, {each.faces} face{'s' if each.faces != 1 else ''}: "
            f"{_number(each.median('total'))} ms = {each.images_per_second:.1f} FPS"
        )
    print("\nDetection alone: prepare, detect and decode")
    _print_table(
        ("Hardware", "Model", "Resolution"),
        ("FPS", "Latency, ms"),
        [
            (
                row.hardware,
                row.model,
                row.resolution,
                _number(row.images_per_second),
                _number(row.milliseconds),
            )
            for row in detection
        ],
    )
    print("\nNot measured (-)")
    for reason in missing:
        say(reason)
    if args.json:
        report = {
            "date": date,
            "machine": machine,
            "image": {"path": str(path), "width": width, "height": height},
            "repeat": args.repeat,
            "warmup": args.warmup,
            "configurations": [each.as_json() for each in measurements],
            "networks": [asdict(row) for row in networks],
            "detection": [asdict(row) for row in detection],
            "auto": chosen,
            "not_measured": missing,
        }
        write_text(args.json, json.dumps(report, indent=1) + "\n")
        print(f"\nresults in {args.json}")
    return 0


def _compare_with_peers(args: argparse.Namespace) -> int:
    command = [sys.executable, str(_program("peers", "insightface"))]
    command += ["--repeat", str(args.repeat)]
    if args.json:
        command += ["--json", str(args.json)]
    return subprocess.run(command).returncode


def _program(name: str, module: str) -> Path:
    """A program of the checkout, in bench/, which needs a module that its run.sh installs."""
    program = default_model_directory().parent / "bench" / name
    if not program.exists() or find_spec(module) is None:
        raise ScrfdError(
            f"--{name} needs a checkout of scrfd_ros, and {module}, which its run.sh installs: "
            f"in the checkout, run ./run.sh bench --{name}"
        )
    return program


def _models(names: Sequence[str] | None, kind: str) -> list[Path]:
    """The files of these models; for None, of all that are here, or else of the default ones."""
    catalogue, directory = load_catalogue(), default_model_directory()
    if names is None:
        known = catalogue.names(kind)
        names = [
            name
            for name in known
            if file_state(catalogue.models[name], directory / catalogue.models[name].file)
            not in ("missing", "corrupt")
        ] or [name for name in known if name in catalogue.default]
    return list(dict.fromkeys(model_path(name, kind) for name in names))


def _gaps(measurements: Sequence[Measurement], backend: str) -> list[str]:
    """Why figures are missing although nothing failed."""
    gaps = [f"{name}: not asked for" for name in _BACKENDS if backend not in ("auto", name)]
    for each in measurements:
        used = each.configuration
        if used.backend == "onnxruntime":
            other = "CUDA" if used.hardware == "CPU" else "CPU"
            gaps.append(f"{other}: ONNX Runtime ran on {used.hardware} here")
        if "network" not in each.milliseconds:
            gaps.append(f"times on the device: {used.backend} gives only their sum, detect")
        elif "draw" not in each.milliseconds:
            gaps.append("draw, candidates: on the processor, or with cuda_graph in network")
        if used.pipeline.recognizer is None:
            gaps.append(f"align, embed: {used.pipeline.warning or 'no recognizer'}")
    return list(dict.fromkeys(gaps))


def _print_machine(machine: Mapping[str, object]) -> None:
    gpu = (
        f"{machine['gpu']}, compute capability {machine['compute_capability']}, "
        f"CUDA {machine['cuda']}"
        if machine["gpu"]
        else "no CUDA device"
    )
    say(f"{machine['processor']}, {machine['processors']} processors; {gpu}")
    say(
        f"{machine['system']}, Python {machine['python']}, numpy {machine['numpy']}, OpenCV "
        f"{machine['opencv']}, onnxruntime {machine['onnxruntime']}, "
        f"openvino {machine['openvino'] or '(none)'}, {machine['tensorrt'] or 'no TensorRT'}"
    )


def _print_stages(measurements: Sequence[Measurement]) -> None:
    """The times of at most `_BESIDE` configurations, side by side."""

    def line(label: str, cells: Iterable[str]) -> None:
        print(f"{label:14}{''.join(f'{cell:>22}' for cell in cells)}".rstrip())

    used = [each.configuration for each in measurements]
    print()
    line("milliseconds", (_end(each.detector, 21) for each in used))
    line("", (_end(f"+ {each.recognizer}", 21) if each.recognizer else "" for each in used))
    line("", (_end(each.pipeline.detector.network.backend, 21) for each in used))
    line("", (f"{'median':>13}{'p95':>9}" for _ in used))
    for stage, label in _STAGES.items():
        line(
            label,
            (
                f"{_number(each.median(stage)):>13}{_number(each.p95(stage)):>9}"
                for each in measurements
            ),
        )
    line("images/s", (f"{each.images_per_second:13.2f}{'':9}" for each in measurements))
    line("faces", (f"{each.faces:13d}{'':9}" for each in measurements))


def _print_table(
    words: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    """A table that is valid Markdown too: columns of words, then columns of numbers."""
    table = [(*words, *numbers), *([_end(cell, 26) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    table.insert(1, ["-" * width for width in widths])
    adjust = [str.ljust for _ in words] + [str.rjust for _ in numbers]
    for row in table:
        cells = (fit(cell, width) for fit, cell, width in zip(adjust, row, widths, strict=True))
        print(f"| {' | '.join(cells)} |")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _end(text: str, size: int) -> str:
    """The text, or its end if it is longer: paths differ at their ends."""
    return text if len(text) <= size else f"..{text[2 - size :]}"


def _at_least(smallest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = smallest - 1
        if value < smallest:
            raise argparse.ArgumentTypeError(
                f"expected a whole number of at least {smallest}, found {text!r}"
            )
        return value

    return parse
