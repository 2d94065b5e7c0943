# SPDX-License-Identifier: Apache-2.0
"""Compare scrfd_ros with insightface, uniface and a plain node: `scrfd bench --peers`."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "test")]
sys.path.append(str(Path(sys.prefix, "openvino")))  # apart, so that `backend: auto` is not it

from clips import PERIOD  # noqa: E402

from peers import cold_start, compressed, crowds, images, nodes, stages, video  # noqa: E402
from peers.libraries import INSIGHTFACE, libraries, own_pipeline  # noqa: E402
from peers.report import print_report, results  # noqa: E402
from peers.timing import NetworkClock  # noqa: E402
from scrfd_ros.files import ensure_writable, write_text  # noqa: E402

SECONDS = 2.0  # for which a node gets images at one rate, before the other node does


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=50, metavar="N", help="runs of each library")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results as JSON")
    args = parser.parse_args()
    if args.json:
        ensure_writable(args.json)
    warnings.filterwarnings("ignore", category=FutureWarning, module="insightface")
    medians, missing = measure(args.repeat)
    found = results(medians, args.repeat, missing)
    print_report(found)
    if args.json:
        write_text(args.json, json.dumps(found, indent=1) + "\n")
        print(f"\nresults in {args.json}")


def measure(repeat: int) -> tuple[dict[str, Any], list[str]]:
    """All medians, and what cannot be measured here, and why."""
    half, few, turns = max(repeat // 2, 1), max(repeat // 5, 1), max(repeat // 12, 1)
    clip_seconds = min(0.1 * repeat, PERIOD)
    clock = NetworkClock()
    pipeline, detecting = own_pipeline(), own_pipeline(recognize=False)
    sides, missing = libraries(pipeline)
    peer = sides[INSIGHTFACE]
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "images": partial(images.measure, clock, sides, half),
        "video": partial(video.measure, clock, pipeline, peer, clip_seconds),
        "JPEG": partial(compressed.measure, clock, pipeline, detecting, peer, few),
        "faces": partial(crowds.measure, clock, sides, detecting, few),
        "stages": partial(stages.measure, clock, pipeline, repeat),
        "new processes": partial(cold_start.measure, turns),
        "nodes": partial(nodes.measure, SECONDS, turns),
    }
    medians: dict[str, Any] = {}
    with clock.counting():
        for name, step in (progress := tqdm(steps.items(), disable=None)):
            progress.set_description(name)
            medians |= step()
    return medians, missing


if __name__ == "__main__":
    main()
