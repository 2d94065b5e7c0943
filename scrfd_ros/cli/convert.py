# SPDX-License-Identifier: Apache-2.0
"""Build a TensorRT engine from an ONNX model, and check that both agree.

An engine works on the kind of GPU and with the TensorRT that built it, so build it on the robot. A
JSON file beside it says what it was built for and how well it agrees with the model. An engine that
does not agree is not written: INT8 falls back to FP16, and FP16 to FP32.
"""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

from scrfd_ros.cli.arguments import image_size, model_path
from scrfd_ros.cli.output import say, tell_new_folder
from scrfd_ros.engines.convert import (
    DETECTOR_SIZE,
    RECOGNIZER_BATCH,
    Settings,
    convert,
    input_shapes,
    load_model,
    preparation,
    prepared_model,
)
from scrfd_ros.engines.trtexec import trtexec_command
from scrfd_ros.errors import ModelError
from scrfd_ros.files import write_bytes
from scrfd_ros.inference.engine_file import PRECISIONS, metadata_path
from scrfd_ros.inference.load import ENGINE_SUFFIX
from scrfd_ros.inference.tensorrt_library import OLDEST, import_tensorrt, is_rtx, version

_SUFFIXES = (ENGINE_SUFFIX, ".onnx")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="an .onnx file, or a name that `scrfd models` lists"
    )
    parser.add_argument(
        "output",
        type=_output,
        metavar="OUT",
        help="the .engine file to write. With .onnx, only the model that TensorRT would get is "
        "written: with fixed sizes, FP16 or INT8 inside; this needs no GPU",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=Settings.precision,
        help="number format of the calculations (default: %(default)s)",
    )
    parser.add_argument(
        "--input-size",
        type=image_size,
        metavar="WxH",
        help="width and height, pixels (default: the model's own; for detectors that take any: "
        f"{'x'.join(map(str, DETECTOR_SIZE))})",
    )
    parser.add_argument(
        "--batch",
        type=_batch,
        metavar="N|MIN:OPT:MAX",
        help="images at once (default: the model's own; for detectors that take any: 1, for "
        f"recognizers that take any: {':'.join(map(str, RECOGNIZER_BATCH))})",
    )
    parser.add_argument(
        "--workspace",
        type=_positive,
        metavar="MiB",
        help="maximum scratch memory of a layer (default: no limit)",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="for INT8: some tens of images with faces, such as the robot will see",
    )
    parser.add_argument(
        "--print-trtexec",
        nargs="?",
        const="installed",
        type=_version,
        metavar="VERSION",
        help="build nothing; print the command line with which NVIDIA's trtexec does the same, for "
        "the TensorRT installed here, or for VERSION, such as 10.3",
    )


def run(args: argparse.Namespace) -> int:
    model = model_path(args.model)
    if args.output.resolve() == model.resolve():
        raise ModelError(f"{args.output}: is the model itself; choose another file to write")
    if args.print_trtexec and args.output.suffix != ENGINE_SUFFIX:
        raise ModelError(f"{args.output}: trtexec writes engines; expected a name with .engine")
    settings = Settings(
        args.precision, args.input_size, args.batch, args.workspace, args.calibration
    )
    if args.print_trtexec:
        _print_trtexec(model, args.output, settings, args.print_trtexec)
        return 0
    tell_new_folder(args.output)
    if args.output.suffix == ENGINE_SUFFIX:
        metadata = convert(model, args.output, settings)
        figures = ", ".join(
            f"{name.replace('_', ' ')} {value:.4g}" for name, value in metadata.agreement.items()
        )
        print(f"{args.output}: {metadata.precision}")
        say(f"built for {metadata.platform}", indent="")
        say(f"agrees with the model: {figures}", indent="")
        print(f"metadata in {metadata_path(args.output)}")
    else:
        write_bytes(args.output, prepared_model(load_model(model, args.input_size), settings))
        print(f"{args.output}: {args.precision}, ready for TensorRT")
    return 0


def _print_trtexec(model: Path, engine: Path, settings: Settings, wanted: str) -> None:
    """Print trtexec's command line, after one that prepares the model if that is needed."""
    if wanted == "installed":
        trt = import_tensorrt()
        if is_rtx(trt):
            raise ModelError(
                "TensorRT-RTX has no trtexec that takes these options; for another TensorRT: "
                "--print-trtexec VERSION"
            )
        tensorrt = version(trt)
    else:
        tensorrt = tuple(map(int, wanted.split(".")))
        if tensorrt < OLDEST:
            raise ModelError(f"TensorRT {wanted} is too old; expected 8.5 or newer")
    network = load_model(model, settings.input_size)
    shapes = input_shapes(network, settings)
    step = preparation(network, settings, tensorrt)
    source = model
    if step is not None:
        prepared = engine.with_suffix(".trtexec.onnx")
        words = ["scrfd", "convert", str(model), str(prepared), "--precision", step]
        *_, height, width = shapes.opt
        words += ["--input-size", f"{width}x{height}", "--batch", shapes.batch]
        if settings.calibration:
            words += ["--calibration", str(settings.calibration)]
        print(_command(words))
        model = prepared
    print(
        _command(
            trtexec_command(
                tensorrt,
                model,
                engine,
                network.inputs[0].name,
                shapes,
                settings.precision,
                settings.workspace_mib,
            )
        )
    )
    print(f"scrfd verify {shlex.quote(str(engine))} --onnx {shlex.quote(str(source))}")


def _command(words: list[str]) -> str:
    """A command line for a shell, an option on each line."""
    first, *rest = (shlex.quote(word) for word in words)
    lines = [first]
    for word in rest:
        if word.startswith("--"):
            lines.append(f" \\\n    {word}")
        else:
            lines.append(f" {word}")
    return "".join(lines)


def _output(text: str) -> Path:
    path = Path(text)
    if path.suffix not in _SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text} does not end in {' or '.join(_SUFFIXES)}")
    return path


def _batch(text: str) -> tuple[int, int, int]:
    numbers = re.fullmatch(r"(\d{1,4})(?::(\d{1,4}):(\d{1,4}))?", text)
    if numbers:
        low, opt, high = (int(number or numbers[1]) for number in numbers.groups())
        if 1 <= low <= opt <= high:
            return low, opt, high
    raise argparse.ArgumentTypeError(
        f"expected a number, or min:opt:max in this order, such as 1:8:32, found {text!r}"
    )


def _positive(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,5}", text):
        raise argparse.ArgumentTypeError(f"expected 1 to 999999, found {text!r}")
    return int(text)


def _version(text: str) -> str:
    if text != "installed" and not re.fullmatch(r"\d+\.\d+(\.\d+)*", text):
        raise argparse.ArgumentTypeError(f"expected a version such as 10.3, found {text!r}")
    return text
