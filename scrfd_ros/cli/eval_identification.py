# SPDX-License-Identifier: Apache-2.0
"""Face identification among enrolled people and strangers.

Takes FOLDER/PERSON/IMAGE, with several images of each person. Some people are enrolled by some of
their images; all other images are searched, those of everybody else as strangers. This is repeated
with other random choices. Prints the detection and identification rate (DIR, rank 1) at false
positive identification rates (FPIR) with confidence intervals, what the number of people changes,
and a threshold and margin for this gallery. Images without a face count as searches that find
nobody.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from scrfd_ros.cli.arguments import add_pipeline_arguments, pipeline_of
from scrfd_ros.cli.output import say
from scrfd_ros.evaluation.identification import (
    FPIRS,
    GallerySize,
    Identification,
    OpenSetPoint,
    PeopleSet,
    Suspect,
    by_gallery_size,
    evaluate,
    plot_dir,
    read_people,
    searched,
    searches_needed,
    split_people,
    suspects,
)
from scrfd_ros.evaluation.settings import recorded_models
from scrfd_ros.evaluation.verification import Interval, embed_images, recognizer_of
from scrfd_ros.files import ensure_writable, write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="one sub-folder per person")
    parser.add_argument(
        "--enrolled",
        type=_share,
        default=0.5,
        metavar="X",
        help="share of the people with several images who are enrolled (default: %(default)s)",
    )
    parser.add_argument(
        "--templates",
        type=_count,
        default=3,
        metavar="N",
        help="images that a person is enrolled by, at most (default: %(default)s)",
    )
    parser.add_argument(
        "--splits",
        type=_count,
        default=10,
        metavar="N",
        help="how often people are chosen anew (default: %(default)s)",
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
        help="folder for the results, made if missing (default: one in output/identification)",
    )
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    images = read_people(args.folder)
    _tell_left_out(images)
    pipeline = pipeline_of(args)
    network = recognizer_of(pipeline).network
    name = f"{args.folder.resolve().name}_{network.name}"
    output = args.output or Path("output", "identification", name)
    ensure_writable(output / "result.json")
    embeddings, found = embed_images(pipeline, images.paths, args.aligned)
    splits = [
        split_people(images.people, found, args.enrolled, args.templates, seed)
        for seed in range(args.splits)
    ]
    searches = searched(embeddings, images.people, splits)
    gallery = pipeline.config.gallery
    results = [
        result
        for looks in sorted({1, gallery.looks})
        if (result := evaluate(searches, looks, gallery)) is not None
    ]
    sizes: list[GallerySize] = []
    wanted = min((point.wanted_fpir for point in results[0].points if point.wanted_fpir), default=0)
    if wanted:
        sizes = by_gallery_size(embeddings, images.people, splits, wanted, gallery)
    alike = suspects(embeddings, images.people, images.paths)

    without = [str(path) for path, there in zip(images.paths, found, strict=True) if not there]
    title = f"{args.folder.resolve().name}: {network.name} on {network.backend}"
    _print(title, results, len(images.paths), len(without))
    _print_sizes(sizes, wanted)
    _print_suspects(alike)
    report = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "folder": str(args.folder),
        "aligned": args.aligned,
        "enrolled": args.enrolled,
        "templates": args.templates,
        "splits": args.splits,
        **recorded_models(pipeline, args.aligned),
        "people": len(images.names),
        "images": len(images.paths),
        "images_without_face": without,
        "images_repeated": list(map(str, images.repeated)),
        "images_under_two_names": list(map(str, images.under_two_names)),
        "by_looks": [asdict(each) for each in results],
        "by_gallery_size": [each._asdict() for each in sizes],
        "most_similar_different_people": [
            {**each._asdict(), "first": str(each.first), "second": str(each.second)}
            for each in alike
        ],
    }
    write_text(output / "result.json", f"{json.dumps(report, indent=1)}\n")
    plot_dir(output / "dir.png", title, searches, [each.looks for each in results])
    say(f"result.json and dir.png in {output}")
    return 0


def _tell_left_out(images: PeopleSet) -> None:
    for paths, what in (
        (images.repeated, "are there twice for one person, and used once"),
        (images.under_two_names, "are there for two people, and used for none"),
    ):
        if paths:
            more = ", ..." if len(paths) > 3 else ""
            say(f"{len(paths)} images {what}: {', '.join(map(str, paths[:3]))}{more}")


def _print(
    title: str,
    results: Sequence[Identification],
    images: int,
    without: int,
) -> None:
    say(title)
    print(f"{images} images, {without} without a face")
    for each in results:
        looks = "one look" if each.looks == 1 else f"{each.looks} looks that agree"
        print(
            f"\n{looks}: {each.mated_searches:.0f} searches of {each.mated_people} enrolled "
            f"people, {each.non_mated_searches:.0f} of {each.strangers} strangers\n"
            f"   FPIR  threshold margin   DIR, 95 % confidence       FPIR, 95 % confidence"
        )
        points = {point.wanted_fpir: point for point in each.points}
        for fpir in FPIRS:
            if fpir in points:
                print(_row(f"{fpir:.1%}", points[fpir]))
            else:
                needed = searches_needed(fpir)
                print(f"{fpir:10.1%}  too few searches of strangers: it takes {needed}")
        if each.suggested is not None:
            print(_row("suggested", each.suggested))
        print(_row("configured", each.configured))


def _print_sizes(sizes: Sequence[GallerySize], fpir: float) -> None:
    if sizes:
        print(f"\nenrolled   FPIR as configured   threshold for an FPIR of {fpir:.1%}     its DIR")
        for size in sizes:
            print(f"{size.people:8}{size.fpir:21.2%}{size.threshold:29.3f}{size.dir:15.1%}")


def _row(name: str, point: OpenSetPoint) -> str:
    found = _rate(point.dir, point.dir_interval, 1)
    false = _rate(point.fpir, point.fpir_interval, 2)
    threshold = f"{point.threshold:.3f}" if point.threshold > -1 else "any"
    return f"{name:>10}{threshold:>8}{point.margin:7.2f}{found:>27}{false:>27}"


def _rate(rate: float, interval: Interval, digits: int) -> str:
    return f"{rate:.{digits}%}, {interval.low:.{digits}%} to {interval.high:.{digits}%}"


def _print_suspects(alike: Sequence[Suspect]) -> None:
    print("\nthe most similar faces of different people; is a name wrong?")
    for similarity, first, second in alike:
        say(f"{similarity:6.2f}  {'/'.join(first.parts[-2:])}  {'/'.join(second.parts[-2:])}")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {text!r}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0, up to 1, found {text!r}")
    return value
