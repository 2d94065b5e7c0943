# SPDX-License-Identifier: Apache-2.0
"""A clip of eight people who pass each other, with our tracker, beside insightface."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from clips import people_passing
from sensor_msgs.msg import CompressedImage
from tqdm import tqdm

from peers.compressed import jpeg_message, our_faces, their_faces
from peers.libraries import IN_PARTS, INSIGHTFACE, OURS, Library
from peers.pictures import FULL_HD, HD, Image, photograph
from peers.timing import NetworkClock, Sample, sample, summaries
from scrfd_ros.config import with_values
from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.tracking.tracker import Tracker

_RATE = 30  # frames per second
_FULL_LOOK_PERIOD = 0.5  # seconds
_BLOCK = 10  # frames for one side before the other gets them

Side = Callable[[Any, float], object]
"""Finds the faces in an image or message, and gets its time, seconds."""


def measure(
    clock: NetworkClock, pipeline: FacePipeline, peer: Library, seconds: float
) -> dict[str, Any]:
    """Milliseconds for each frame, by side: images in memory, and messages with a JPEG.

    Ours are there twice for images in memory: all as a whole, and with `_FULL_LOOK_PERIOD`.

    insightface has no tracker and embeds every face of every frame. `mean` is the time for the
    whole clip over its frames: with a tracker, frames with new faces take longer than others.
    """
    images: dict[str, Side] = {
        OURS: tracked(pipeline),
        IN_PARTS: tracked(pipeline, _FULL_LOOK_PERIOD),
        INSIGHTFACE: lambda image, _: peer.analyze(image),
    }
    messages: dict[str, Side] = {
        OURS: tracked_messages(pipeline),
        INSIGHTFACE: lambda message, _: their_faces(peer.analyze, message),
    }
    compressed = ((jpeg_message(image), time) for image, time in clip(FULL_HD, seconds))
    return {
        "video": in_turns(clock, images, clip(HD, seconds), seconds),
        "compressed_video": in_turns(clock, messages, compressed, seconds),
    }


def tracked(pipeline: FacePipeline, full_look_period: float = 0.0) -> Side:
    """The pipeline with a tracker of its own."""
    tracker = Tracker(pipeline.config.tracking)
    config = with_values(pipeline.config, {"detector.full_look_period": full_look_period})

    def find(image: Image, time: float) -> object:
        pipeline.config = config
        return pipeline(image, tracker, time)

    return find


def tracked_messages(pipeline: FacePipeline) -> Side:
    tracker, config = Tracker(pipeline.config.tracking), pipeline.config

    def find(message: CompressedImage, time: float) -> object:
        pipeline.config = config
        return our_faces(pipeline, message, tracker, time)

    return find


def clip(size: str, seconds: float) -> Iterator[tuple[Image, float]]:
    """Images and their times, seconds."""
    width, height = map(int, size.split("x"))
    for frame in people_passing(photograph, seconds, _RATE, (width, height)):
        yield frame.image, frame.time


def in_turns(
    clock: NetworkClock,
    sides: Mapping[str, Side],
    frames: Iterator[tuple[Image | CompressedImage, float]],
    seconds: float,
) -> dict[str, Any]:
    samples: dict[str, list[Sample]] = {name: [] for name in sides}
    progress = tqdm(total=round(seconds * _RATE), desc="clip", leave=False, disable=None)
    with progress:
        while block := list(islice(frames, _BLOCK)):
            for name, side in sides.items():
                samples[name] += (sample(clock, lambda f=f, s=side: s(*f)) for f in block)
            progress.update(len(block))
    return {
        name: {**summaries(found), "mean": sum(one.total for one in found) / len(found)}
        for name, found in samples.items()
    }
