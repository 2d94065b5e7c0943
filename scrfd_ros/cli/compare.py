# SPDX-License-Identifier: Apache-2.0
"""Show what changes with another model, precision, input size or backend.

Finds the faces of INPUT with A and with B, matches them, and compares the differences with limits:
those within which `scrfd convert` accepts an engine. A is the reference: B misses what only A
finds. A and B may also be two recognizers; then both embed the faces that --detector finds.

A and B are each a name that `scrfd models` lists, or an .onnx or .engine file. What is different on
one side follows after commas: input-size=WxH, backend=NAME, and precision=fp16 or int8, which runs
the file that `scrfd convert` would build an engine from. For example:
500m 500m,input-size=320x320 or 2.5g 2.5g,precision=fp16

Exit status: 0 if all figures are within the limits; 1 if not; 2 for bad input.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from scrfd_ros.cli.arguments import (
    NO_RECOGNIZER,
    add_pipeline_arguments,
    input_size,
    model_path,
    pipeline_of,
)
from scrfd_ros.cli.output import say, tell_new_folder
from scrfd_ros.config import DetectorConfig, InputSize
from scrfd_ros.engines.agreement import LIMITS
from scrfd_ros.engines.convert import Settings, kind_of, load_model, typed_model
from scrfd_ros.engines.open import open_network
from scrfd_ros.errors import ModelError, ScrfdError
from scrfd_ros.evaluation.comparison import (
    Figure,
    Report,
    compare_pipelines,
    compare_recognizers,
    open_images,
)
from scrfd_ros.files import ensure_writable, refuse_existing, write_bytes, write_text
from scrfd_ros.inference.engine_file import PRECISIONS
from scrfd_ros.inference.load import BACKENDS, load_network
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER
from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.recognition.arcface import ArcFace

_LABELS = {
    "faces": "faces in A",
    "missed_faces": "found by A only",
    "extra_faces": "found by B only",
    "min_iou": "IoU of boxes",
    "max_score_difference": "scores differ by",
    "max_landmark_distance": "landmarks, of face size",
    "min_cosine": "cosine of embeddings",
    "max_norm_difference": "norms differ by",
    "non_finite_values": "not finite in B",
}
_OPTIONS = ("backend", "input-size", "precision")


class Setup(NamedTuple):
    """One side of a comparison: a model, and the options that differ from the command line's."""

    text: str
    model: str
    backend: str | None = None
    input_size: InputSize | None = None
    precision: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name, what in (("a", "the reference"), ("b", "what is compared with it")):
        parser.add_argument(
            name, type=_setup, metavar=name.upper(), help=f"{what}: MODEL[,KEY=VALUE...]"
        )
    parser.add_argument(
        "input", type=Path, metavar="INPUT", help="an image, a folder of images, or a bag"
    )
    parser.add_argument(
        "--limits",
        choices=tuple(LIMITS),
        default="fp32",
        help="how far B may differ: as far as an engine of this precision (default: %(default)s; "
        "those of fp16 are the same)",
    )
    parser.add_argument(
        "--limit",
        type=_limit,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another limit, such as min_iou=0.9; the names are those of --json",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="images with faces, for precision=int8",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="a new folder: write every image that differs, with the faces of both sides",
    )
    # A model that takes every size and an engine of one size see the same pixels.
    add_pipeline_arguments(parser, input_size=DetectorConfig().largest_input)


def run(args: argparse.Namespace) -> int:
    if args.output:
        refuse_existing(args.output)
    if args.json:
        tell_new_folder(args.json)
        ensure_writable(args.json)
    limits = {**LIMITS[args.limits], **dict(args.limit)}
    images = open_images(args.input)
    with TemporaryDirectory() as name:
        paths = [_path(setup, args.calibration, Path(name)) for setup in (args.a, args.b)]
        kinds = [kind_of(load_network(path)) for path in paths]
        if kinds[0] != kinds[1] or kinds[0] is None:
            known = {DETECTOR: "a detector", RECOGNIZER: "a recognizer", None: "neither"}
            raise ModelError(
                f"expected two detectors or two recognizers; {args.a.model} is {known[kinds[0]]}, "
                f"{args.b.model} is {known[kinds[1]]}"
            )
        sides = [
            _options(setup, path, args) for setup, path in zip((args.a, args.b), paths, strict=True)
        ]
        if kinds[0] == DETECTOR:
            first, second = (pipeline_of(side) for side in sides)
            titles = [_title(first), _title(second)]
            networks = [first.detector.network, second.detector.network]
            report = compare_pipelines(first, second, images, limits, args.output)
        else:
            if args.output or args.a.input_size or args.b.input_size:
                raise ScrfdError(
                    "--output and input-size= are for detectors; A and B are recognizers"
                )
            args.recognizer = NO_RECOGNIZER
            finder = pipeline_of(args)
            reference, candidate = (
                ArcFace(open_network(Path(side.detector), side.backend, threads=side.threads))
                for side in sides
            )
            networks = [reference.network, candidate.network]
            titles = [f"{network.name}, {network.backend}" for network in networks]
            report = compare_recognizers(reference, candidate, finder, images, limits)
    _print(titles, report)
    if args.output and report.different:
        print(f"drawn into {args.output}")
    if args.json:
        content = {
            **{
                letter: {"setup": setup.text, "title": title, "sha256": network.sha256}
                for letter, setup, title, network in zip(
                    "ab", (args.a, args.b), titles, networks, strict=True
                )
            },
            "input": str(args.input),
            "limits": limits,
            **report.as_json(),
        }
        write_text(args.json, f"{json.dumps(content, indent=1)}\n")
        print(f"all figures in {args.json}")
    return int(bool(report.failures))


def _path(setup: Setup, calibration: Path | None, folder: Path) -> Path:
    """The model file of one side; one of another precision is written into the folder."""
    path = model_path(setup.model)
    if setup.precision is None:
        return path
    if setup.backend == "tensorrt":
        raise ModelError(
            f"{setup.text}: precision is for ONNX Runtime. Build an engine with `scrfd convert "
            f"--precision {setup.precision}`, and compare that"
        )
    size = setup.input_size if isinstance(setup.input_size, tuple) else None
    settings = Settings(input_size=size, calibration=calibration)
    typed = folder / f"{path.stem}_{setup.precision}.onnx"
    write_bytes(typed, typed_model(load_model(path), settings, setup.precision, fp16_inside=True))
    return typed


def _options(setup: Setup, path: Path, args: argparse.Namespace) -> argparse.Namespace:
    """The arguments for one side."""
    side = argparse.Namespace(**vars(args))
    side.detector = str(path)
    side.backend = setup.backend or ("onnxruntime" if setup.precision else args.backend)
    side.input_size = setup.input_size or args.input_size
    return side


def _title(pipeline: FacePipeline) -> str:
    detector = pipeline.detector
    recognizer = f", {pipeline.recognizer.network.name}" if pipeline.recognizer else ""
    size = pipeline.config.detector.input_text
    if pipeline.config.detector.fits_images:
        # Square images need the largest input.
        size += " (at most {}x{})".format(*detector.plan(1, 1).size)
    return f"{detector.network.name}, {size}, {detector.network.backend}{recognizer}"


def _print(titles: list[str], report: Report) -> None:
    for letter, title in zip("AB", titles, strict=True):
        say(f"{letter}  {title}", indent="   ")
    print(f"\n{'':24}{'worst':>9}{'median':>9}{'limit':>10}           worst in")
    for name, figure in report.figures.items():
        print(f"{_LABELS[name]:24}{_row(figure)}".rstrip())
    count = len(report.images)
    images = "1 image" if count == 1 else f"{count} images"
    if report.failures:
        verb = "differs" if len(report.different) == 1 else "differ"
        print(f"\noutside the limits; {len(report.different)} of {images} {verb}")
    else:
        print(f"\nwithin the limits, {images}")


def _row(figure: Figure) -> str:
    value = str(figure.value) if figure.median is None else f"{figure.value:.4f}"
    median = "" if figure.median is None else f"{figure.median:.4f}"
    limit = (
        "" if figure.limit is None else f"{'>=' if figure.is_minimum else '<='} {figure.limit:g}"
    )
    image = figure.image or ""
    if len(image) > 17:
        image = f"...{image[-14:]}"
    verdict = "within" if figure.within else "outside"
    return f"{value:>9}{median:>9}{limit:>10}  {verdict:9}{image}"


def _setup(text: str) -> Setup:
    # A path can have commas too: only those before KEY= separate.
    model, *options = re.split(r",(?=[^,=]*=)", text)
    if not model.endswith((".onnx", ".engine")) and not re.fullmatch(r"[\w.-]+", model):
        raise argparse.ArgumentTypeError(
            f"expected MODEL or MODEL,KEY=VALUE such as 500m,input-size=320x320, found {text!r}"
        )
    values = {}
    for option in options:
        key, _, value = option.partition("=")
        if key not in _OPTIONS or key in values:
            what = "twice" if key in values else "unknown"
            raise argparse.ArgumentTypeError(
                f"{key!r} in {text!r} is {what}; expected {', '.join(_OPTIONS)}"
            )
        choices = {"backend": BACKENDS, "precision": PRECISIONS}.get(key, (value,))
        if value not in choices:
            raise argparse.ArgumentTypeError(
                f"{key} in {text!r}: expected {' or '.join(choices)}, found {value!r}"
            )
        values[key] = value
    size = values.get("input-size")
    return Setup(
        text,
        model,
        values.get("backend"),
        input_size(size) if size is not None else None,
        values.get("precision"),
    )


def _limit(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if name not in _LABELS or not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(
            f"expected NAME=VALUE, NAME one of {', '.join(_LABELS)}, VALUE at least 0, found "
            f"{text!r}"
        )
    return name, number
