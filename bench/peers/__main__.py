# SPDX-License-Identifier: Apache-2.0
"""Compare scrfd_ros with insightface, uniface and a plain node: `scrfd bench --peers`."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "test")]

from clips import PERIOD  # noqa: E402

from peers import growth, library, nodes, stages  # noqa: E402
from peers.observed_node import Feeder  # noqa: E402
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

    few, turns = max(args.repeat // 4, 1), max(args.repeat // 12, 1)
    clip_seconds = min(0.08 * args.repeat, PERIOD / 2)
    clock = NetworkClock()
    with clock.counting():
        medians = library.measure(clock, args.repeat, clip_seconds)
        medians |= growth.measure(clock, few)
        medians["stages"] = stages.measure(clock, args.repeat)
    feeder = Feeder()
    try:
        medians["node"] = nodes.compare(feeder, True, SECONDS, turns)
        medians["node_detection_only"] = nodes.compare(feeder, False, SECONDS, turns)
        medians["cameras"] = growth.measure_cameras(feeder, 2 * SECONDS)
    finally:
        feeder.close()
    found = results(medians, args.repeat)
    print_report(found)
    if args.json:
        write_text(args.json, json.dumps(found, indent=1) + "\n")
        print(f"\nresults in {args.json}")


if __name__ == "__main__":
    main()
