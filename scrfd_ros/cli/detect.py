# SPDX-License-Identifier: Apache-2.0
"""Find the faces in an image."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.cli.arguments import add_pipeline_arguments, add_rotation_argument, pipeline_of
from scrfd_ros.cli.output import fitted, say, tell_new_folder
from scrfd_ros.faces import Faces
from scrfd_ros.files import write_text
from scrfd_ros.images.decoded import DecodedImage
from scrfd_ros.images.drawing import draw_faces
from scrfd_ros.images.files import IMAGE_SUFFIXES, read_image, write_image
from scrfd_ros.models.download import ensure_picture
from scrfd_ros.pipeline import FacePipeline, Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "image",
        nargs="?",
        type=Path,
        metavar="IMAGE",
        help="an image, JPEG or PNG (default: one of six people)",
    )
    add_report_arguments(parser)
    add_pipeline_arguments(parser)


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `report_faces` needs, besides a pipeline."""
    parser.add_argument(
        "--output",
        type=_image_path,
        metavar="PNG",
        help="write the image with the faces drawn into it",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results as JSON")
    add_rotation_argument(parser)


def run(args: argparse.Namespace) -> int:
    path = args.image or ensure_picture("t1.jpg")
    image = read_image(path)
    report_faces(args, path, image, pipeline_of(args))
    return 0


def report_faces(
    args: argparse.Namespace, path: Path, image: NDArray[np.uint8], pipeline: FacePipeline
) -> None:
    """Print the faces of an image, draw them and write them, as the arguments want."""
    decoded = DecodedImage(image, rotation=args.rotation)
    searched = decoded.upright
    pipeline(searched)  # the first run is slower than all others: it sets up memory
    result = pipeline(searched)
    result = result._replace(faces=decoded.restore(result.faces))
    _print(path, pipeline, result)
    if args.output:
        tell_new_folder(args.output)
        write_image(args.output, draw_faces(image, result.faces))
        print(f"drawn into {args.output}")
    if args.json:
        tell_new_folder(args.json)
        write_text(args.json, json.dumps(_report(image, pipeline, result)) + "\n")
        print(f"results in {args.json}")


def _report(image: NDArray[np.uint8], pipeline: FacePipeline, result: Result) -> dict[str, object]:
    height, width = image.shape[:2]
    recognizer = pipeline.recognizer
    return {
        "image": {"width": width, "height": height},
        "detector": pipeline.detector.network.name,
        "recognizer": recognizer.network.name if recognizer else None,
        "backend": _backends(pipeline),
        "milliseconds": result.milliseconds,
        "faces": result.faces.as_json(),
    }


def _backends(pipeline: FacePipeline) -> str:
    """What runs the networks; of each, if they differ."""
    return " + ".join(dict.fromkeys(each.backend for each in pipeline.networks.values()))


def _image_path(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text} does not end in {' or '.join(IMAGE_SUFFIXES)}")
    return path


def _print(path: Path, pipeline: FacePipeline, result: Result) -> None:
    faces = result.faces
    models = " + ".join(network.name for network in pipeline.networks.values())
    print(f"{path.name}: {models}, {_backends(pipeline)}")
    if faces.identities is not None:
        _print_identities(faces)
    elif len(faces):
        print("face   score        x1        y1        x2        y2")
        for row, (score, box) in enumerate(zip(faces.scores, faces.boxes, strict=True)):
            corners = "".join(f"{value:10.1f}" for value in box)
            print(f"{row:4d}   {score:5.3f}{corners}")
    stages = ", ".join(
        f"{stage} {value:.1f}" for stage, value in result.milliseconds.items() if stage != "total"
    )
    count = "1 face" if len(faces) == 1 else f"{len(faces)} faces"
    print(f"{count} in {result.milliseconds['total']:.1f} ms")
    say(f"of these: {stages}")


def _print_identities(faces: Faces) -> None:
    if len(faces):
        print("face  score    x1    y1    x2    y2  state     similar  margin  name")
    for row, identity in enumerate(faces.identities or ()):
        corners = "".join(f"{value:6.0f}" for value in faces.boxes[row])
        line = (
            f"{row:4d}  {faces.scores[row]:5.3f}{corners}  {identity.state.name.lower():9}"
            f"{identity.similarity:8.3f}{identity.margin:8.3f}  {fitted(identity.name, 18)}"
        )
        print(line.rstrip())
