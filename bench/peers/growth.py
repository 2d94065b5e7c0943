# SPDX-License-Identifier: Apache-2.0
"""Growth of the cost with faces, resolution and cameras."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import cv2
import numpy as np
from std_msgs.msg import Header
from tqdm import tqdm

from peers.libraries import Image, insightface_library, ours, own_pipeline
from peers.library import photograph
from peers.nodes import FAST, face_node_parameters
from peers.observed_node import Feeder, Side
from peers.timing import NetworkClock, Summary, in_turns, summary
from scrfd_ros.config import PipelineConfig
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.faces import Faces
from scrfd_ros.messages.faces import detection_array
from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.tracking.tracker import Tracker

FACES = (0, 1, 6, 29)
CROWDS = (125, 250, 500)
"""Faces that are only detected and tracked, as embedding them all takes seconds."""

RESOLUTIONS = {"VGA": (640, 480), "720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}
CAMERAS = (1, 2, 4)

_CROWD_STAGES = ("decode", "track", "message", "all")
_CANVAS = 1280  # pixels
_HEAD = 160  # maximum side, pixels; smaller in large crowds


def measure(clock: NetworkClock, repeat: int) -> dict[str, Any]:
    """Milliseconds by growing quantity, its value, and library."""
    pipeline = own_pipeline()
    sides = {"scrfd_ros": ours(pipeline), "insightface": insightface_library()}
    six = photograph("t1.jpg")
    people = cut_out(six, pipeline.detector.detect(six))
    sizes = {name: cv2.resize(six, size) for name, size in RESOLUTIONS.items()}
    return {
        "faces": _by_level(
            clock,
            {
                f"{count}/{name}": partial(side.analyze, crowd(people, count))
                for count in FACES
                for name, side in sides.items()
            },
            repeat,
            "faces",
        ),
        "crowds": _crowd_times(pipeline.detector, people, repeat),
        "resolution": _by_level(
            clock,
            {
                f"{size}/{name}": partial(side.detect, image)
                for size, image in sizes.items()
                for name, side in sides.items()
            },
            repeat,
            "resolution",
        ),
    }


def _by_level(
    clock: NetworkClock, functions: dict[str, Callable[[], Any]], repeat: int, what: str
) -> dict[str, dict[str, dict[str, Summary]]]:
    """Times measured in turns, by the parts of the names before and after the /."""
    found: dict[str, dict[str, dict[str, Summary]]] = {}
    for name, times in in_turns(clock, functions, repeat, what).items():
        level, side = name.split("/")
        found.setdefault(level, {})[side] = times
    return found


def _crowd_times(
    detector: Scrfd, people: Sequence[Image], repeat: int
) -> dict[str, dict[str, Summary]]:
    """Times of finding, tracking and publishing these numbers of faces outside the network."""
    pipeline = FacePipeline(PipelineConfig(detector=detector.config), detector)
    images = {count: crowd(people, count) for count in CROWDS}
    trackers = {count: Tracker() for count in CROWDS}
    times: dict[int, dict[str, list[float]]] = {
        count: {stage: [] for stage in _CROWD_STAGES} for count in CROWDS
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


def cut_out(image: Image, faces: Faces) -> list[Image]:
    """The heads in an image, each as a square of `_HEAD` pixels."""
    heads = []
    for middle, (_, height) in zip(faces.centers, faces.sizes, strict=True):
        scale = _HEAD / (1.6 * height)
        shift = _HEAD / 2 - scale * middle
        transform = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        heads.append(cv2.warpAffine(image, transform, (_HEAD, _HEAD)))
    return heads


def crowd(heads: Sequence[Image], count: int) -> Image:
    """An image of this number of people, in rows."""
    canvas = np.full((_CANVAS, _CANVAS, 3), 110, np.uint8)
    columns = max(math.ceil(math.sqrt(count)), 1)
    side = min(_CANVAS // columns, _HEAD)
    for number in range(count):
        y, x = (side * part for part in divmod(number, columns))
        head = cv2.resize(heads[number % len(heads)], (side, side), interpolation=cv2.INTER_AREA)
        canvas[y : y + side, x : x + side] = head
    return canvas


def measure_cameras(feeder: Feeder, seconds: float) -> dict[str, Any]:
    """Figures of one node with several cameras, which together send `FAST` images a second."""
    found: dict[str, Any] = {}
    for count in tqdm(CAMERAS, desc="cameras", leave=False, disable=None):
        names = [f"camera_{number}" for number in range(count)]
        parameters = {**face_node_parameters(True), "cameras": names}
        with Side(feeder, "face_node", parameters, names) as side:
            side.wait_until_ready()
            rate = FAST // count
            side.feed(rate, seconds)
            record = side.stop()
        times = record.at(rate)
        found[str(count)] = {
            "results_per_second": 1e3 / times["interval"]["median"],
            "age": times["age"],
            "peak_memory": record.peak_memory,
        }
    return found
