# SPDX-License-Identifier: Apache-2.0
"""Growth of the cost with the number of faces."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

from std_msgs.msg import Header
from tqdm import tqdm

from peers.libraries import INSIGHTFACE, OURS, Library
from peers.pictures import Image, crowd, cut_out, photograph
from peers.timing import NetworkClock, Summary, in_turns, summary
from scrfd_ros.messages.faces import detection_array
from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.tracking.tracker import Tracker

FACES = (0, 1, 6, 29)
CROWDS = (125, 250, 500)
"""Faces that are only detected and tracked, as embedding them all takes seconds."""

_STAGES = ("decode", "track", "message", "all")


def measure(
    clock: NetworkClock,
    sides: Mapping[str, Library],
    detecting: FacePipeline,
    repeat: int,
) -> dict[str, Any]:
    """Milliseconds by number of faces: of libraries, and of the stages of ours in crowds.

    Args:
        detecting: our pipeline without recognition.
    """
    six = photograph("t1.jpg")
    people = cut_out(six, detecting(six).faces)
    faces: dict[str, Any] = {}
    for count in FACES:
        image = crowd(people, count)
        analyze = {name: partial(sides[name].analyze, image) for name in (OURS, INSIGHTFACE)}
        faces[str(count)] = in_turns(clock, analyze, repeat, f"{count} faces")
    return {"faces": faces, "crowds": crowd_times(detecting, people, repeat)}


def crowd_times(
    pipeline: FacePipeline, people: Sequence[Image], repeat: int
) -> dict[str, dict[str, Summary]]:
    """Milliseconds of finding, tracking and publishing `CROWDS`, outside the network, by stage."""
    images = {count: crowd(people, count) for count in CROWDS}
    trackers = {count: Tracker() for count in CROWDS}
    times: dict[int, dict[str, list[float]]] = {
        count: {stage: [] for stage in _STAGES} for count in CROWDS
    }
    turns = list(product(range(repeat + 1), CROWDS))
    for number, count in tqdm(turns, desc="crowds", leave=False, disable=None):
        faces, milliseconds = pipeline(images[count], trackers[count], number / 30)
        assert len(faces) == count
        start = time.perf_counter()
        detection_array(faces, Header())
        milliseconds["message"] = 1e3 * (time.perf_counter() - start)
        milliseconds["all"] = sum(milliseconds[name] for name in ("decode", "track", "message"))
        if number > 0:  # the first turn makes the tracks
            for stage, values in times[count].items():
                values.append(milliseconds[stage])
    return {
        str(count): {stage: summary(values) for stage, values in stages.items()}
        for count, stages in times.items()
    }
