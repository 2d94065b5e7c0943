# SPDX-License-Identifier: Apache-2.0
"""The real node and a plain one over DDS, with the shipped transport profile."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

from tqdm import tqdm

from peers.libraries import detector_path, link_models, recognizer_path
from peers.observed_node import Feeder, Side

SLOW, FAST = 5, 60
"""Hz: a rate that both nodes can handle, and one that is too fast for them."""


def compare(feeder: Feeder, recognize: bool, seconds: float, turns: int) -> dict[str, Any]:
    """The figures of both nodes, measured in turns, with or without recognition."""
    with ExitStack() as stack:
        models = stack.enter_context(tempfile.TemporaryDirectory())
        link_models(Path(models))
        programs: dict[str, tuple[str, dict[str, object]]] = {
            "scrfd_ros": ("face_node", face_node_parameters(recognize)),
            "plain_node": ("plain_node", {"models": models, "recognize": recognize}),
        }
        sides = {
            name: stack.enter_context(Side(feeder, *program)) for name, program in programs.items()
        }
        return in_turns(sides, seconds, turns)


def in_turns(sides: Mapping[str, Side], seconds: float, turns: int) -> dict[str, Any]:
    """Figures of each side, fed in turns for `seconds` at each rate, and then stopped."""
    for side in sides.values():
        side.wait_until_ready()
    stretches = turns * list(product((SLOW, FAST), sides.values()))
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
