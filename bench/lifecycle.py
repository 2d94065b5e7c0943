# SPDX-License-Identifier: Apache-2.0
"""Memory, threads and file descriptors of face_node over rounds of its whole lifecycle.

    ./run.sh setup && . .venv/bin/activate && AMENT_PREFIX_PATH=$PWD/.venv \\
        RMW_IMPLEMENTATION=rmw_fastrtps_cpp python bench/lifecycle.py --rounds 100

Each round configures, activates, deactivates and cleans up. The first ten, which fill caches and
pools, are not counted.
"""

from __future__ import annotations

import argparse
import gc
import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import rclpy
from process_usage import usage
from rclpy.lifecycle import TransitionCallbackReturn
from tqdm import tqdm

from scrfd_ros.node.face_node import FaceNode

WARM_UP = 10


def usage_without_garbage() -> dict[str, int]:
    gc.collect()
    return usage("self")


class Usage(NamedTuple):
    """What the node's process uses before and after a number of rounds."""

    before: dict[str, int]
    after: dict[str, int]
    rounds: int


def usage_over_rounds(
    rounds: int,
    parameters: Mapping[str, object],
    measured: Callable[[], dict[str, int]] = usage_without_garbage,
    seconds: float = math.inf,
) -> Usage:
    """Take a node through rounds, the first of which are not counted.

    Args:
        rounds: maximum number.
        parameters: of the node.
        measured: what its process uses.
        seconds: after which no round is begun.
    """
    arguments = ["--ros-args", "--log-level", "error", "-p", "autostart:=false"]
    for name, value in parameters.items():
        arguments += ["-p", f"{name}:={value}"]
    rclpy.init(args=arguments)
    node = FaceNode()
    before, end = measured(), time.monotonic() + seconds
    done = 0
    for done in tqdm(range(1, WARM_UP + rounds + 1), desc="rounds", leave=False, disable=None):
        for transition in ("configure", "activate", "deactivate", "cleanup"):
            assert getattr(node, f"trigger_{transition}")() == TransitionCallbackReturn.SUCCESS
            rclpy.spin_once(node, timeout_sec=0)
        if done == WARM_UP:
            before = measured()
        if time.monotonic() > end:
            break
    after = measured()
    node.destroy_node()
    rclpy.shutdown()
    return Usage(before, after, max(done - WARM_UP, 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    before, after, rounds = usage_over_rounds(parser.parse_args().rounds, {})
    for name, value in after.items():
        print(f"{name}: {before[name]} before, {value} after {rounds} rounds")


if __name__ == "__main__":
    main()
