# SPDX-License-Identifier: Apache-2.0
"""A clip of eight people who pass each other, with our tracker, beside insightface."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from clips import Frame, people_passing
from tqdm import tqdm

from peers.libraries import INSIGHTFACE, OURS, Library
from peers.pictures import HD, photograph
from peers.timing import NetworkClock, Sample, sample, summaries
from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.tracking.tracker import Tracker

_RATE = 30  # frames per second
_BLOCK = 10  # frames for one side before the other gets them


def measure(
    clock: NetworkClock, pipeline: FacePipeline, peer: Library, seconds: float
) -> dict[str, Any]:
    """Milliseconds for each frame, by side.

    insightface has no tracker and embeds every face of every frame. `mean` is the time for the
    whole clip over its frames: with a tracker, frames with new faces take longer than others.
    """
    sides = {OURS: tracked(pipeline), INSIGHTFACE: lambda frame: peer.analyze(frame.image)}
    samples: dict[str, list[Sample]] = {name: [] for name in sides}
    width, height = map(int, HD.split("x"))
    frames = people_passing(photograph, seconds, _RATE, (width, height))
    progress = tqdm(total=round(seconds * _RATE), desc="video", leave=False, disable=None)
    with progress:
        while block := list(islice(frames, _BLOCK)):
            for name, side in sides.items():
                samples[name] += (sample(clock, lambda f=f, s=side: s(f)) for f in block)
            progress.update(len(block))
    times = {
        name: {**summaries(found), "mean": sum(one.total for one in found) / len(found)}
        for name, found in samples.items()
    }
    return {"video": times}


def tracked(pipeline: FacePipeline) -> Callable[[Frame], object]:
    """The pipeline with a tracker of its own, which gets one frame after the other."""
    tracker = Tracker(pipeline.config.tracking)
    return lambda frame: pipeline(frame.image, tracker, frame.time)
