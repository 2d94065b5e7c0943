"""Where our own time goes that is not the networks'."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from rclpy.serialization import serialize_message
from std_msgs.msg import Header
from tqdm import tqdm

from peers.libraries import own_pipeline
from peers.library import photograph
from peers.timing import NetworkClock, Summary, summary
from scrfd_ros.image_encodings import bgr_from_image
from scrfd_ros.ros.images import image_message
from scrfd_ros.ros.messages import detection_array, face_array
from scrfd_ros.serialized_image import read_image

Returned = TypeVar("Returned")


def measure(clock: NetworkClock, repeat: int) -> dict[str, Summary]:
    """Milliseconds by stage, for a picture of six people, all of whom are embedded."""
    pipeline = own_pipeline()
    header = Header()
    serialized = serialize_message(image_message(photograph("t1.jpg"), header))
    times: dict[str, list[float]] = {}

    def timed(name: str, function: Callable[[], Returned]) -> Returned:
        start = time.perf_counter()
        result = function()
        times.setdefault(name, []).append(1e3 * (time.perf_counter() - start))
        return result

    for _ in tqdm(range(repeat + 1), desc="stages", leave=False, disable=None):
        image = timed("image: read", lambda: read_image(serialized))
        picture = timed("image: to BGR", lambda: bgr_from_image(image))  # noqa: B023
        clock.clear()
        faces, milliseconds = pipeline(picture)
        detect, *embed = clock.milliseconds
        for name, value in {
            "prepare": milliseconds["prepare"],
            "detect, around the network": milliseconds["detect"] - detect,
            "decode, with NMS": milliseconds["decode"],
            "align": milliseconds["align"],
            "embed, around the network": milliseconds["embed"] - sum(embed),
        }.items():
            times.setdefault(name, []).append(value)
        detections = timed("detections: fill", lambda: detection_array(faces, header))  # noqa: B023
        timed("detections: serialise", lambda: serialize_message(detections))  # noqa: B023
        message = timed("faces: fill", lambda: face_array(detections, faces, pipeline))  # noqa: B023
        timed("faces: serialise", lambda: serialize_message(message))  # noqa: B023
    return {name: summary(values[1:]) for name, values in times.items()}
