# SPDX-License-Identifier: Apache-2.0
"""The real node and a plain one over DDS, with the shipped transport profile."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from tqdm import tqdm

from peers.libraries import OURS, detector_path, link_models, recognizer_path
from peers.observed_node import Feeder, Side

SLOW, FAST = 5, 60
"""Hz: a rate that both nodes can handle, and one that is too fast for them."""

PLAIN = "plain node"
CAMERAS = (1, 2, 4)


def measure(seconds: float, turns: int) -> dict[str, Any]:
    """The figures of both nodes: with and without recognition, and by number of cameras.

    Each gets images for `seconds` at each rate, and that `turns` times. Several cameras together
    send `FAST` images a second.
    """
    feeder = Feeder()
    try:
        return {
            "node": compare(feeder, True, seconds, turns),
            "node_detection_only": compare(feeder, False, seconds, turns),
            "cameras": by_cameras(feeder, seconds, max(turns // 2, 1)),
        }
    finally:
        feeder.close()


def by_cameras(feeder: Feeder, seconds: float, turns: int) -> dict[str, Any]:
    """Figures of both nodes by number of cameras."""
    found: dict[str, Any] = {}
    for count in CAMERAS:
        names = [f"camera_{number}" for number in range(count)]
        rate = FAST // count
        sides = compare(feeder, True, seconds, turns, names, (rate,))
        found[str(count)] = {
            name: {**figures[f"{rate}_hz"], "peak_memory": figures["peak_memory"]}
            for name, figures in sides.items()
        }
    return found


def compare(
    feeder: Feeder,
    recognize: bool,
    seconds: float,
    turns: int,
    cameras: Sequence[str] = ("",),
    rates: Sequence[int] = (SLOW, FAST),
) -> dict[str, Any]:
    """The figures of both nodes at these rates of each camera, measured in turns."""
    several = {"cameras": list(cameras)} if cameras != ("",) else {}
    with tempfile.TemporaryDirectory() as models:
        link_models(Path(models))
        ours = {**face_node_parameters(recognize), **several}
        plain = {"models": models, "recognize": recognize, **several}
        with (
            Side(feeder, "face_node", ours, cameras) as our_side,
            Side(feeder, "plain_node", plain, cameras) as plain_side,
        ):
            return in_turns({OURS: our_side, PLAIN: plain_side}, seconds, turns, rates)


def in_turns(
    sides: Mapping[str, Side], seconds: float, turns: int, rates: Sequence[int] = (SLOW, FAST)
) -> dict[str, Any]:
    """Figures of each side, fed in turns for `seconds` at each rate, and then stopped."""
    for side in sides.values():
        side.wait_until_ready()
    stretches = turns * list(product(rates, sides.values()))
    for rate, side in tqdm(stretches, desc="nodes", leave=False, disable=None):
        side.feed(rate, seconds)
    return {name: side.stop().summary() for name, side in sides.items()}


def face_node_parameters(recognize: bool) -> dict[str, object]:
    """The defaults, except for the networks, which are those of the plain node."""
    return {
        "backend": "onnxruntime",
        "detector.engine_path": str(detector_path()),
        "recognizer.engine_path": str(recognizer_path()),
        "recognizer.enabled": recognize,
    }
