"""Find the faces in a picture."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.cli.arguments import add_pipeline_arguments, add_rotation_argument, pipeline_of
from scrfd_ros.drawing import draw_faces
from scrfd_ros.files import PICTURE_SUFFIXES, read_picture, write_picture, write_text
from scrfd_ros.image_encodings import in_whole_picture, upright
from scrfd_ros.models.download import ensure_picture
from scrfd_ros.pipeline import FacePipeline, Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "image",
        nargs="?",
        type=Path,
        metavar="IMAGE",
        help="a picture, JPEG or PNG (default: one of six people)",
    )
    parser.add_argument(
        "--output",
        type=_picture_path,
        metavar="PNG",
        help="write the picture with the faces drawn into it",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results as JSON")
    add_rotation_argument(parser)
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    image = args.image or ensure_picture("t1.jpg")
    picture = read_picture(image)
    pipeline = pipeline_of(args)
    searched = upright(picture, args.rotation)
    pipeline(searched)  # the first run is slower than all others: it sets up memory
    result = pipeline(searched)
    height, width = picture.shape[:2]
    faces = in_whole_picture(result.faces, 1, args.rotation, (width, height))
    result = result._replace(faces=faces)
    _print(image, pipeline, result)
    if args.output:
        write_picture(args.output, draw_faces(picture, result.faces))
        print(f"drawn into {args.output}")
    if args.json:
        write_text(args.json, json.dumps(_report(picture, pipeline, result)) + "\n")
        print(f"results in {args.json}")
    return 0


def _report(
    picture: NDArray[np.uint8], pipeline: FacePipeline, result: Result
) -> dict[str, object]:
    height, width = picture.shape[:2]
    recognizer = pipeline.recognizer
    return {
        "image": {"width": width, "height": height},
        "detector": pipeline.detector.network.name,
        "recognizer": recognizer.network.name if recognizer else None,
        "backend": pipeline.detector.network.backend,
        "milliseconds": result.milliseconds,
        "faces": result.faces.as_json(),
    }


def _picture_path(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text} does not end in {' or '.join(PICTURE_SUFFIXES)}")
    return path


def _print(image: Path, pipeline: FacePipeline, result: Result) -> None:
    faces = result.faces
    recognizer = pipeline.recognizer
    models = pipeline.detector.network.name
    if recognizer is not None:
        models += f" + {recognizer.network.name}"
    print(f"{image.name}: {models}, {pipeline.detector.network.backend}")
    if len(faces):
        print("face   score        x1        y1        x2        y2")
        for row, (score, box) in enumerate(zip(faces.scores, faces.boxes, strict=True)):
            corners = "".join(f"{value:10.1f}" for value in box)
            print(f"{row:4d}   {score:5.3f}{corners}")
    stages = ", ".join(
        f"{stage} {value:.1f}" for stage, value in result.milliseconds.items() if stage != "total"
    )
    count = "1 face" if len(faces) == 1 else f"{len(faces)} faces"
    print(f"{count} in {result.milliseconds['total']:.1f} ms\nof these: {stages}")
