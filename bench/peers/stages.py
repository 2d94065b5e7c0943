# SPDX-License-Identifier: Apache-2.0
"""The time of scrfd_ros outside the networks, by stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from rclpy.serialization import serialize_message
from std_msgs.msg import Header
from tqdm import tqdm

from peers.pictures import photograph
from peers.timing import NetworkClock, summary
from scrfd_ros.images.encodings import bgr_from_image
from scrfd_ros.images.serialized import parse_image
from scrfd_ros.messages.faces import ModelNames, detection_array, face_array
from scrfd_ros.node.images import image_message
from scrfd_ros.pipeline import FacePipeline

Returned = TypeVar("Returned")


def measure(clock: NetworkClock, pipeline: FacePipeline, repeat: int) -> dict[str, Any]:
    """Milliseconds by stage, for an image of six people, all of whom are embedded."""
    header, models = Header(), ModelNames.of(pipeline)
    serialized = serialize_message(image_message(photograph("t1.jpg"), header))
    times: dict[str, list[float]] = {}

    def timed(name: str, function: Callable[[], Returned]) -> Returned:
        start = time.perf_counter()
        result = function()
        times.setdefault(name, []).append(1e3 * (time.perf_counter() - start))
        return result

    for _ in tqdm(range(repeat + 1), desc="stages", leave=False, disable=None):
        image = timed("image: read", lambda: parse_image(serialized))
        pixels = timed("image: to BGR", lambda: bgr_from_image(image))  # noqa: B023
        clock.clear()
        faces, milliseconds = pipeline(pixels)
        detect, *embed = clock.milliseconds
        for name, value in {
            "prepare": milliseconds["prepare"],
            "detect, around the network": milliseconds["detect"] - detect,
            "decode, with NMS": milliseconds["decode"],
            "align": milliseconds["align"],
            "embed, around the network": milliseconds["embed"] - sum(embed),
        }.items():
            times.setdefault(name, []).append(value)
        timed("detections: write", lambda: detection_array(faces, header))  # noqa: B023
        timed("faces: write", lambda: face_array(faces, header, models))  # noqa: B023
    return {"stages": {name: summary(values[1:]) for name, values in times.items()}}
