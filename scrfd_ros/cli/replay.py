# SPDX-License-Identifier: Apache-2.0
"""Find the faces in a bag, without ROS, and compare them with faces found before.

Reads every image of the bag, sqlite3 or MCAP, raw or compressed, and writes a bag with what the
node would have published. The results for /camera/image_raw and /camera/image_raw/compressed go to
/camera/detections and /camera/faces. If several of the chosen topics are in one namespace, the
results go to /camera/image_raw/detections and so on. With --gallery, faces say who they belong to.

Without --topic, topics whose images cannot have faces are skipped, and listed: depth, disparity and
video, the node's own overlay, and one of two topics with the same images, raw and compressed. In a
damaged bag, every image that is intact is read.

Exit status: 0 if every image could be read; 1 if an image was broken, or if part of the bag is
damaged or missing; 2 if no image could be read, or for other bad input: then nothing is written.
With --compare also 1 if the faces differ from those in GOLDEN by more than --tolerance. Frames that
only the new bag has do not count: a node that was recorded live may have dropped them. Record such
a node with tracking switched off, and replay with --no-tracking: with tracking, an embedding can
come from an image that only one of the two has seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from scrfd_ros.bags.times import seconds
from scrfd_ros.bags.tolerances import TOLERANCES
from scrfd_ros.cli.arguments import (
    add_gallery_argument,
    add_pipeline_arguments,
    add_rotation_argument,
    pipeline_of,
)
from scrfd_ros.cli.output import say
from scrfd_ros.errors import ScrfdError
from scrfd_ros.files import refuse_existing

if TYPE_CHECKING:
    from scrfd_ros.bags.recordings import Comparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "bag",
        type=Path,
        metavar="BAG",
        help="a folder that `ros2 bag record` wrote, or one .db3 or .mcap file",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="OUT", help="the bag to write: a new folder"
    )
    parser.add_argument(
        "--topic", nargs="+", default=[], help="topics of images (default: all with faces)"
    )
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="GOLDEN",
        help="a bag with faces that were replayed or recorded before",
    )
    parser.add_argument(
        "--tolerance",
        choices=tuple(TOLERANCES),
        help="what may differ between both sides (default: another-backend); another-machine: one "
        "was made on x86_64, the other on aarch64",
    )
    add_gallery_argument(parser, required=False)
    add_rotation_argument(parser)
    add_pipeline_arguments(parser, of_gallery=True)
    parser.add_argument(
        "--no-tracking",
        action="store_true",
        help="give faces no ids, and compute all embeddings",
    )


def run(args: argparse.Namespace) -> int:
    # Not above: the other commands do not need rosbags.
    from scrfd_ros.bags.recordings import compare, read_recordings
    from scrfd_ros.bags.replay import replay

    if args.tolerance and args.compare is None:
        raise ScrfdError("--tolerance is for --compare: give the golden bag to compare with")
    refuse_existing(args.output)
    golden = None if args.compare is None else read_recordings(args.compare)
    with closing(pipeline_of(args)) as pipeline:
        result = replay(
            args.bag, args.output, pipeline, args.topic, not args.no_tracking, args.rotation
        )
    for topic, outcome in result.outcomes.items():
        lost = {0: "", None: "lost: unknown, "}.get(outcome.lost, f"{outcome.lost} lost, ")
        damaged = f"{outcome.damaged} damaged, " if outcome.damaged else ""
        print(
            f"{topic}: {outcome.images} images, {outcome.broken} broken, {lost}{damaged}"
            f"{outcome.found} faces"
        )
        print(f"  {outcome.detections}\n  {outcome.faces}")
    for topic, reason in result.left_alone.items():
        say(f"left alone: {topic}: {reason}")
    if result.damage:
        print("the bag is damaged, see above; what could be read of it was used")
    print(f"written to {args.output}")
    status = int(bool(result.damage) or any(outcome.broken for outcome in result.outcomes.values()))
    if golden is None:
        return status

    found = read_recordings(args.output)
    comparisons = compare(found, golden, TOLERANCES[args.tolerance or "another-backend"])
    print(f"\ncompared with {args.compare}")
    ours, theirs = (
        " and ".join(sorted({recording.models for recording in side.values()}))
        for side in (found, golden)
    )
    if ours != theirs:
        say(f"note: made by different models: {ours} against {theirs}", indent="")
    _print(comparisons)
    return int(status or any(comparison.failures for comparison in comparisons.values()))


def _print(comparisons: Mapping[str, Comparison]) -> None:
    print(
        "       frames              faces            worst of those in both"
        "\n  both  missing  new   both missed extra     IoU   score  points  embedding"
    )
    for topic, comparison in comparisons.items():
        row = comparison.figures
        print(
            f"{topic}: {'different' if comparison.failures else 'equal'}\n"
            f"{row['frames']:6d} {row['missing_frames']:8d} {row['new_frames']:4d} "
            f"{row['faces']:6d} {row['missed_faces']:6d} {row['extra_faces']:5d} "
            f"{row['min_iou']:8.4f} {row['max_score_difference']:7.4f} "
            f"{row['max_landmark_distance']:7.4f} {row['max_embedding_distance']:8.4f}"
        )
        for failure in comparison.failures:
            print(f"    {failure}")
        if comparison.first_difference is not None:
            stamp, _ = comparison.first_difference
            print(f"    first in the image of stamp {seconds(stamp)}")
