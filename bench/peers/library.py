# SPDX-License-Identifier: Apache-2.0
"""Detection, recognition and both of images and of a clip, beside insightface and uniface."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from clips import people_passing
from tqdm import tqdm

from peers.libraries import Image, Library, libraries, own_pipeline
from peers.timing import NetworkClock, Sample, in_turns, sample, summaries
from scrfd_ros.images.files import read_image
from scrfd_ros.models.download import ensure_picture
from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.tracking.tracker import Tracker

CLIP_RATE = 30
CLIP_SIZE = (1280, 720)
_BLOCK = 10  # frames for one side before the other gets them


def photograph(name: str) -> Image:
    return read_image(ensure_picture(name))


def measure(clock: NetworkClock, repeat: int, clip_seconds: float) -> dict[str, Any]:
    """Medians of all comparisons, milliseconds, by comparison and library."""
    pipeline = own_pipeline()
    sides = libraries(pipeline)
    image = photograph("t1.jpg")  # 1280x886, six people
    landmarks = pipeline(image).faces.landmarks
    assert landmarks is not None
    for name, side in sides.items():
        found = len(side.analyze(image))
        assert found == len(landmarks), f"{name} finds {found} faces"

    def each(function: Callable[[Library], Any]) -> dict[str, Callable[[], Any]]:
        return {name: lambda side=side: function(side) for name, side in sides.items()}

    detect = each(lambda side: side.detect(image))
    recognize = each(lambda side: side.recognize(image, landmarks))
    analyze = each(lambda side: side.analyze(image))
    return {
        "detection": in_turns(clock, detect, repeat, "detection"),
        "recognition": in_turns(clock, recognize, repeat, "recognition"),
        "end_to_end": in_turns(clock, analyze, repeat, "end to end"),
        "tracked_clip": clip_times(clock, pipeline, sides["insightface"], clip_seconds),
    }


def clip_times(
    clock: NetworkClock, pipeline: FacePipeline, peer: Library, seconds: float
) -> dict[str, Any]:
    """Times for each frame of a clip of eight people, with our tracker against insightface.

    insightface has no tracker and embeds every face of every frame. `mean` is the time for the
    whole clip over its frames: with a tracker, frames with new faces take longer than others.
    """
    tracker = Tracker()
    sides: dict[str, Callable[[Any], Any]] = {
        "scrfd_ros": lambda frame: pipeline(frame.image, tracker, frame.time),
        "insightface": lambda frame: peer.analyze(frame.image),
    }
    samples: dict[str, list[Sample]] = {name: [] for name in sides}
    frames = people_passing(photograph, seconds, CLIP_RATE, CLIP_SIZE)
    progress = tqdm(total=round(seconds * CLIP_RATE), desc="clip", leave=False, disable=None)
    with progress:
        while block := list(islice(frames, _BLOCK)):
            for name, side in sides.items():
                samples[name] += (sample(clock, lambda f=f, s=side: s(f)) for f in block)
            progress.update(len(block))
    return {
        name: {
            **summaries(found),
            "mean": sum(one.total for one in found) / len(found),
        }
        for name, found in samples.items()
    }
