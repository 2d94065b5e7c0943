# SPDX-License-Identifier: Apache-2.0
"""Average precision on the validation set of WIDER FACE.

Finds the faces in its 3226 images, writes them in the benchmark's submission format, and compares
them with the ground truth: average precision (AP) of the subsets easy, medium and hard, of each
event, and of faces by their height. An interrupted run continues where it stopped.

The protocol vga is that of the published table of SCRFD: images letterboxed to 640x640, with the
thresholds that --score and --nms have by default. The protocol original gives images to the
detector in their own size, padded to multiples of 32; it needs a detector that takes any size.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from scrfd_ros.cli.arguments import NO_RECOGNIZER, add_pipeline_arguments, pipeline_of
from scrfd_ros.cli.output import say
from scrfd_ros.errors import ScrfdError
from scrfd_ros.evaluation.wider_face import (
    PUBLISHED,
    at_original_size,
    detect,
    find_ground_truth,
    find_images,
    prepare_folder,
    published_settings,
    read_detections,
    read_ground_truth,
    settings_of,
)
from scrfd_ros.evaluation.wider_face_ap import (
    Curve,
    Evaluation,
    above,
    evaluate,
    lowest_events,
    plot,
    published_figures,
)
from scrfd_ros.files import write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directory",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="the folder of WIDER_val, and of the ground truth, which is fetched if it is missing; "
        "not needed with --detections",
    )
    parser.add_argument(
        "--protocol",
        choices=("vga", "original"),
        default="vga",
        dest="mode",
        help="vga: letterboxed to --input-size; original: in their own size (default: %(default)s)",
    )
    parser.add_argument(
        "--detections",
        type=Path,
        metavar="FOLDER",
        help="run no network; read the detections from EVENT/NAME.txt in this folder",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="OUT",
        help="folder for detections and results, made if missing (default: one in "
        "output/wider_face)",
    )
    add_pipeline_arguments(
        parser,
        recognizer=NO_RECOGNIZER,
        score=PUBLISHED.score_threshold,
        nms=PUBLISHED.nms_threshold,
        input_size=PUBLISHED.input_size,
    )


def run(args: argparse.Namespace) -> int:
    if args.directory is None and args.detections is None:
        raise ScrfdError("give the folder of WIDER_val, or --detections")
    ground_truth = read_ground_truth(find_ground_truth(args.directory))
    settings: dict[str, object] | None = None
    published: Mapping[str, float] = {}
    if args.detections is not None:
        folder = args.detections
        output = args.output or _default_output(folder.resolve().name)
        title = str(folder)
    else:
        paths = find_images(args.directory, ground_truth)
        pipeline = pipeline_of(args)
        network = pipeline.detector.network
        settings = settings_of(args.mode, pipeline)
        find = (
            at_original_size(pipeline)
            if args.mode == "original"
            else lambda image: pipeline(image).faces
        )
        output = args.output or _default_output(f"{network.name}_{args.mode}")
        published = published_figures(network.name)
        title = f"{network.name} on {network.backend}, {_words(settings)}"
        folder = prepare_folder(output, settings)
        count = detect(find, ground_truth, paths, folder)
        print(f"{count} images run now, {len(paths) - count} before")
    evaluation = evaluate(ground_truth, read_detections(folder, ground_truth))

    _print(title, evaluation, published)
    usual = published_settings()
    if published and settings and not usual.items() <= settings.items():
        say(f"note: the published figures are of {_words(usual)}")
    report = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "detections_in": str(folder),
        "settings": settings,
        "published": published,
        "published_settings": usual,
        "difference": above(evaluation, published),
        **evaluation.as_json(),
    }
    write_text(output / "result.json", f"{json.dumps(report, indent=1)}\n")
    plot(output / "precision_recall.png", textwrap.fill(title, 80), evaluation)
    say(f"result.json and precision_recall.png in {output}")
    return 0


def _default_output(name: str) -> Path:
    return Path("output") / "wider_face" / name


def _words(settings: Mapping[str, object]) -> str:
    size, tiles = settings["input_size"], settings["tiles"]
    words = ["x".join(map(str, size)) if isinstance(size, list) else str(size or "original size")]
    if isinstance(tiles, list) and tiles != [1, 1]:
        words.append(f"{'x'.join(map(str, tiles))} tiles")
    if settings["large_faces"]:
        words.append("second look for large faces")
    return ", ".join((*words, f"score {settings['score']}", f"NMS {settings['nms']}"))


def _print(title: str, evaluation: Evaluation, published: Mapping[str, float]) -> None:
    say(title)
    print(
        f"{evaluation.images} images, {evaluation.faces} faces, {evaluation.detections} "
        f"detections\n\nsubset          faces   recall       AP  published  difference"
    )
    difference = above(evaluation, published)
    for name, curve in evaluation.subsets.items():
        there = f"{published[name]:11.2%}" if name in published else f"{'-':>11}"
        by = f"{difference[name]:+12.2%}" if name in difference else f"{'-':>12}"
        print(_row(name, curve) + there + by)
    print("\nheight, px      faces   recall       AP   (faces of the subset hard)")
    for name, curve in evaluation.heights.items():
        print(_row(name, curve))
    worst = lowest_events(evaluation, 5)
    print(f"\nthe lowest of {len(evaluation.events)} events, by the subset hard")
    for event, curve in worst.items():
        print(f"{_row('', curve)}  {event}")
    print()


def _row(name: str, curve: Curve) -> str:
    return f"{name:11}{curve.faces:10d}{_percent(curve.recall)}{_percent(curve.average_precision)}"


def _percent(value: float | None) -> str:
    return f"{'-':>9}" if value is None else f"{value:9.2%}"
