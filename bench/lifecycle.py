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
from collections.abc import Callable, Mapping

import rclpy
from process_usage import usage
from rclpy.lifecycle import TransitionCallbackReturn
from tqdm import tqdm

from scrfd_ros.node.face_node import FaceNode

WARM_UP = 10


def usage_without_garbage() -> dict[str, int]:
    gc.collect()
    return usage("self")


def usage_over_rounds(
    rounds: int,
    parameters: Mapping[str, object],
    measured: Callable[[], dict[str, int]] = usage_without_garbage,
) -> tuple[dict[str, int], dict[str, int]]:
    """What the node's process uses after the first rounds, and after `rounds` more.

    Args:
        parameters: of the node.
        measured: what it uses.
    """
    arguments = ["--ros-args", "--log-level", "error", "-p", "autostart:=false"]
    for name, value in parameters.items():
        arguments += ["-p", f"{name}:={value}"]
    rclpy.init(args=arguments)
    node = FaceNode()
    before = measured()
    for number in tqdm(range(WARM_UP + rounds), desc="rounds", leave=False, disable=None):
        for transition in ("configure", "activate", "deactivate", "cleanup"):
            assert getattr(node, f"trigger_{transition}")() == TransitionCallbackReturn.SUCCESS
            rclpy.spin_once(node, timeout_sec=0)
        if number == WARM_UP - 1:
            before = measured()
    after = measured()
    node.destroy_node()
    rclpy.shutdown()
    return before, after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    before, after = usage_over_rounds(rounds, {})
    for name, value in after.items():
        print(f"{name}: {before[name]} before, {value} after {rounds} rounds")


if __name__ == "__main__":
    main()
