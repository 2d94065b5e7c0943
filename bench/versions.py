# SPDX-License-Identifier: Apache-2.0
"""Compare the node of this checkout with that of another one, in turns.

    git worktree add ../before <commit> && ../before/run.sh setup
    ./run.sh setup && . .venv/bin/activate && AMENT_PREFIX_PATH=$PWD/.venv \\
        RMW_IMPLEMENTATION=rmw_fastrtps_cpp python bench/versions.py ../before

Prints medians, milliseconds (peak memory: MiB), and their ratios: below 1, this one is better.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

bench = Path(__file__).resolve().parent
sys.path[:0] = [str(bench), str(bench.parent / "test")]

from peers.nodes import FAST, SLOW, face_node_parameters, in_turns  # noqa: E402
from peers.observed_node import Feeder, Side  # noqa: E402

SECONDS = 2.0  # for which a node gets images at one rate, before the other node does
FIGURES = ("age", "pipeline", "overhead", "interval")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("other", type=Path, help="the root of another checkout, set up")
    parser.add_argument("--turns", type=int, default=12)
    args = parser.parse_args()
    feeder = Feeder()
    print("| recognition | Hz | figure | this | other | ratio |\n|---|---:|---|---:|---:|---:|")
    for recognize in (True, False):
        parameters = face_node_parameters(recognize)
        with (
            Side(feeder, "face_node", parameters) as this,
            Side(feeder, "face_node", parameters, checkout=args.other.resolve()) as other,
        ):
            found = in_turns({"this": this, "other": other}, SECONDS, args.turns)
        word = "yes" if recognize else "no"
        for rate in (SLOW, FAST):
            for figure in FIGURES:
                ours, theirs = (found[side][f"{rate}_hz"][figure]["median"] for side in found)
                ratio = ours / theirs
                print(f"| {word} | {rate} | {figure} | {ours:.2f} | {theirs:.2f} | {ratio:.2f} |")
        ours, theirs = (found[side]["peak_memory"] for side in found)
        print(f"| {word} | | peak memory | {ours:.0f} | {theirs:.0f} | {ours / theirs:.2f} |")
    feeder.close()


if __name__ == "__main__":
    main()
