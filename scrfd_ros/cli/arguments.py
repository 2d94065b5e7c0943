# SPDX-License-Identifier: Apache-2.0
"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import math
import re
import textwrap
from pathlib import Path

from scrfd_ros.config import (
    DetectorConfig,
    PipelineConfig,
    RecognizerConfig,
    SuperResolutionConfig,
)
from scrfd_ros.errors import ScrfdError
from scrfd_ros.images.orientation import ROTATIONS
from scrfd_ros.inference.cores import MAX_THREADS
from scrfd_ros.inference.load import BACKENDS
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER, SUPER_RESOLUTION, load_catalogue
from scrfd_ros.models.download import ensure_model
from scrfd_ros.pipeline import FacePipeline, load_pipeline


def add_pipeline_arguments(
    parser: argparse.ArgumentParser,
    *,
    recognizer: str = "w600k_mbf",
    score: float = 0.5,
    nms: float = 0.4,
) -> None:
    """Which networks find the faces, and how; `pipeline_of` makes the pipeline of it.

    Args:
        recognizer, score, nms: what they are if the command line says nothing.
    """
    catalogue = load_catalogue()
    parser.add_argument(
        "--detector",
        default="2.5g",
        metavar="NAME",
        help=f"{', '.join(catalogue.names(DETECTOR))}, or a model file (default: %(default)s)",
    )
    parser.add_argument(
        "--recognizer",
        default=recognizer,
        metavar="NAME",
        help=f"{', '.join(catalogue.names(RECOGNIZER))}, a model file, or none "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="auto",
        help="what runs the networks (default: auto, the best that works here)",
    )
    parser.add_argument(
        "--threads",
        type=thread_count,
        default=0,
        metavar="N",
        help="threads on the processor (default: as many as there are cores to use)",
    )
    parser.add_argument(
        "--input-size",
        type=image_size,
        default="640x640",
        metavar="WxH",
        help="input of the detector, pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--score",
        type=fraction,
        default=score,
        metavar="S",
        help="drop faces that score less (default: %(default)s)",
    )
    parser.add_argument(
        "--nms",
        type=fraction,
        default=nms,
        metavar="IOU",
        help="drop the lower of two boxes that overlap more (default: %(default)s)",
    )
    parser.add_argument(
        "--tiles",
        type=tile_counts,
        default="1x1",
        metavar="CxR",
        help="also look at columns x rows of overlapping tiles, for small faces (default: none)",
    )
    parser.add_argument(
        "--large-faces",
        action="store_true",
        help="also look for faces that fill the image",
    )
    parser.add_argument(
        "--min-quality",
        type=fraction,
        default=0.0,
        metavar="Q",
        help="do not embed faces less useful than this, 0 to 1 (default: embed all)",
    )
    parser.add_argument(
        "--enlarge",
        action="store_true",
        help="enlarge small faces with Real-ESRGAN before they are embedded",
    )


def add_rotation_argument(parser: argparse.ArgumentParser) -> None:
    """By how much images are turned before they are searched."""
    parser.add_argument(
        "--rotation",
        type=int,
        choices=ROTATIONS,
        default=0,
        help="degrees clockwise by which the image has to be turned for faces to be upright; "
        "results stay in its own pixels (default: %(default)s)",
    )


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Have a command tell what it does besides its result."""
    parser.add_argument(
        "--verbose",
        action="store_true",
        default=argparse.SUPPRESS,
        help="tell more: backends and why, threads, sources that were tried",
    )


def pipeline_of(args: argparse.Namespace) -> FacePipeline:
    """The pipeline that `add_pipeline_arguments` were given for; models are fetched if missing.

    Raises:
        ModelError, DownloadError: see `load_pipeline` and `model_path`.
    """
    if args.recognizer == "none" and (args.enlarge or args.min_quality):
        raise ScrfdError(
            "--enlarge and --min-quality are for faces to recognize: there is no recognizer"
        )
    recognizes = args.recognizer != "none"
    config = PipelineConfig(
        backend=args.backend,
        threads=args.threads,
        detector=DetectorConfig(
            engine_path=model_path(args.detector, DETECTOR),
            input_size=args.input_size,
            score_threshold=args.score,
            nms_threshold=args.nms,
            tiles=args.tiles,
            large_faces=args.large_faces,
        ),
        recognizer=RecognizerConfig(
            enabled=recognizes,
            engine_path=model_path(args.recognizer, RECOGNIZER) if recognizes else None,
            min_quality=args.min_quality,
        ),
        super_resolution=SuperResolutionConfig(
            enabled=args.enlarge,
            engine_path=(
                model_path("realesrgan_x4plus", SUPER_RESOLUTION) if args.enlarge else None
            ),
        ),
    )
    pipeline = load_pipeline(config)
    if pipeline.warning:
        print(textwrap.fill(f"note: {pipeline.warning}", 80))
    return pipeline


def model_path(name: str, kind: str | None = None) -> Path:
    """A model file: `name` itself where it is one, else that of the catalogue, fetched if missing.

    Raises:
        ModelError: no model (of that kind, where one is given) has this name.
        DownloadError: it could not be fetched.
    """
    if not name.endswith((".onnx", ".engine")):
        return ensure_model(load_catalogue().find(name, kind))
    path = Path(name)
    if not path.exists():
        for entry in load_catalogue().models.values():
            if path.name in (f"{alias}.onnx" for alias in entry.aliases):
                # Older instructions call the file so: take the one that is meant, and say so.
                return ensure_model(load_catalogue().find(path.stem, kind), path.parent)
    return path


def image_size(text: str) -> tuple[int, int]:
    """Width and height in pixels, from "640x480"."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 640x640, found {text!r}")
    return int(match[1]), int(match[2])


def tile_counts(text: str) -> tuple[int, int]:
    """Columns and rows, from "4x3"."""
    match = re.fullmatch(r"([1-8])x([1-8])", text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"expected COLUMNSxROWS such as 4x3, at most 8x8, found {text!r}"
        )
    return int(match[1]), int(match[2])


def thread_count(text: str) -> int:
    """A number of threads; 0 for as many as there are cores to use."""
    if not re.fullmatch(r"\d{1,3}", text) or int(text) > MAX_THREADS:
        raise argparse.ArgumentTypeError(f"expected 0 to {MAX_THREADS}, found {text!r}")
    return int(text)


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, found {text!r}")
    return value
