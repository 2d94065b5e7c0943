# SPDX-License-Identifier: Apache-2.0
"""How long face_node takes to end after a signal, in every phase of its life.

    ./run.sh setup && . .venv/bin/activate && AMENT_PREFIX_PATH=$PWD/.venv \\
        RMW_IMPLEMENTATION=rmw_fastrtps_cpp python bench/signals.py --times 10

Each measurement starts a new node, which has to end with status 0 and without a traceback.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import rclpy
from tqdm import tqdm

tests = Path(__file__).resolve().parents[1] / "test"
sys.path[:0] = [str(tests), str(tests / "node")]

from endings import MOMENTS, node_at, seconds_to_end  # noqa: E402

SIGNALS = {
    "SIGINT": [signal.SIGINT],
    "SIGTERM": [signal.SIGTERM],
    "SIGINT twice": [signal.SIGINT] * 2,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=5, help="of each signal at each moment")
    times = parser.parse_args().times
    rclpy.init(args=[])
    cases = [(moment, name) for moment in MOMENTS for name in SIGNALS]
    print("| moment | signal | times | median, s | longest, s |\n| --- | --- | --- | --- | --- |")
    for moment, name in tqdm(cases, desc="cases", leave=False, disable=None):
        seconds = []
        for _ in range(times):
            with (
                tempfile.TemporaryDirectory(prefix="signals_") as folder,
                node_at(moment, Path(folder)) as process,
            ):
                seconds.append(seconds_to_end(process, SIGNALS[name]))
        figures = f"{np.median(seconds):.2f} | {max(seconds):.2f}"
        tqdm.write(f"| {moment} | {name} | {times} | {figures} |")
    rclpy.shutdown()


if __name__ == "__main__":
    main()
