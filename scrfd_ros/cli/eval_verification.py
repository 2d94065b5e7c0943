# SPDX-License-Identifier: Apache-2.0
"""Face verification on a list of pairs, such as that of LFW.

Finds and embeds the person in each image once, compares the pairs by cosine, and measures how well
a threshold separates pairs of one person from pairs of different people: ROC, TAR at low FAR,
accuracy with the threshold of the other folds, and a recommended threshold. A pair in which an
image has no face counts as not accepted.

A list is LFW's pairs.txt, with the images in DIR/NAME/NAME_0001.jpg, or a file named .csv of
picture_a, picture_b, same (0 or 1).
"""

from __future__ import annotations

import argparse
import json
import math
from datetime import datetime
from pathlib import Path

from scrfd_ros.cli.arguments import add_pipeline_arguments, pipeline_of
from scrfd_ros.cli.output import say
from scrfd_ros.evaluation.settings import recorded_models
from scrfd_ros.evaluation.verification import (
    FARS,
    FOLDS,
    OperatingPoint,
    Verification,
    embed_images,
    evaluate,
    find_images,
    pairs_needed,
    plot_histogram,
    plot_roc,
    read_pairs,
    recognizer_of,
    score_pairs,
)
from scrfd_ros.files import ensure_writable, write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pairs", type=Path, metavar="PAIRS", help="pairs.txt of LFW, or a .csv")
    parser.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="the folder of the images"
    )
    parser.add_argument(
        "--aligned",
        action="store_true",
        help="the images are aligned faces of 112x112: detect nothing",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="OUT",
        help="folder for the results, made if missing (default: one in output/verification)",
    )
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    pairs = read_pairs(args.pairs)
    paths = find_images(args.images, pairs)
    pipeline = pipeline_of(args)
    network = recognizer_of(pipeline).network
    output = args.output or Path("output", "verification", f"{args.pairs.stem}_{network.name}")
    ensure_writable(output / "result.json")
    embeddings, found = embed_images(pipeline, paths, args.aligned)
    scores = score_pairs(pairs, embeddings, found)
    result = evaluate(scores, pairs.same, pairs.folds)

    without = [name for name, there in zip(pairs.images, found, strict=True) if not there]
    affected = int((~found[pairs.rows]).any(axis=1).sum())
    title = f"{args.pairs.name}: {network.name} on {network.backend}"
    _print(title, result)
    print(
        f"\n{len(pairs.images)} images, {len(without)} without a face; pairs with those, not "
        f"accepted: {affected}"
    )
    report = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "pairs": str(args.pairs),
        "images": str(args.images),
        "aligned": args.aligned,
        **recorded_models(pipeline, args.aligned),
        "pictures": len(pairs.images),
        "pictures_without_face": without,
        "pairs_without_face": affected,
        **result.as_json(),
    }
    write_text(output / "result.json", f"{json.dumps(report, indent=1)}\n")
    plot_roc(output / "roc.png", title, scores, pairs.same)
    threshold = result.recommended.threshold if result.recommended else None
    plot_histogram(output / "histogram.png", title, scores, pairs.same, threshold)
    say(f"result.json, roc.png and histogram.png in {output}")
    return 0


def _print(title: str, result: Verification) -> None:
    say(title)
    print(
        f"{result.same_pairs} pairs of one person, {result.different_pairs} of different people\n\n"
        f"area under the ROC   {result.area_under_curve:9.5f}\n"
        f"equal error rate     {result.equal_error_rate:9.2%}"
    )
    if result.accuracy is None:
        print(f"accuracy                     -  (needs {FOLDS} pairs of each kind)")
    else:
        accuracy = result.accuracy
        print(
            f"accuracy             {accuracy.mean:9.2%}  (standard error "
            f"{accuracy.standard_error:.2%}, {len(accuracy.thresholds)} folds)"
        )
    print("\nFAR at most   threshold        TAR      false accepts, FAR with 95 % confidence")
    points = {point.wanted_far: point for point in result.points}
    for far in FARS:
        if far in points:
            print(_row(points[far]))
        else:
            print(f"{far:11.2%}  too few pairs of different people: it takes {pairs_needed(far)}")
    if result.recommended is None:
        print("\nno threshold to recommend")
    else:
        print(f"\nrecommended, rounded up\n{_row(result.recommended)}")


def _row(point: OperatingPoint) -> str:
    threshold = f"{point.threshold:.4f}" if math.isfinite(point.threshold) else "none"
    low, high = point.far_interval
    return (
        f"{point.wanted_far:11.2%}{threshold:>12}{point.tar:11.2%}{point.false_accepts:11}, "
        f"{low:.3%} to {high:.3%}"
    )
