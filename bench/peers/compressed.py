# SPDX-License-Identifier: Apache-2.0
"""From a message with a JPEG to faces, beside `cv2.imdecode` and insightface."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage

from peers.libraries import INSIGHTFACE, OURS, Library
from peers.pictures import FULL_HD, HD, Image, six_people
from peers.timing import NetworkClock, in_turns
from scrfd_ros.faces import Faces
from scrfd_ros.images.message import decode_message
from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.tracking.tracker import Tracker


def measure(
    clock: NetworkClock,
    pipeline: FacePipeline,
    detecting: FacePipeline,
    peer: Library,
    repeat: int,
) -> dict[str, Any]:
    """Milliseconds by task, size and side, for six people.

    Args:
        pipeline, detecting: ours, with and without recognition.
        peer: insightface.
    """
    tasks = {"detection": (detecting, peer.detect), "end_to_end": (pipeline, peer.analyze)}
    found: dict[str, Any] = {task: {} for task in tasks}
    for size in (HD, FULL_HD):
        message = jpeg_message(six_people(size))
        for task, (own, theirs) in tasks.items():
            sides = {
                OURS: partial(our_faces, own, message),
                INSIGHTFACE: partial(their_faces, theirs, message),
            }
            found[task][size] = in_turns(clock, sides, repeat, f"JPEG {task} {size}")
    return {"compressed": found}


def jpeg_message(image: Image) -> CompressedImage:
    """The image as cameras send it, with OpenCV's default quality of 95."""
    return CompressedImage(format="jpeg", data=cv2.imencode(".jpg", image)[1].tobytes())


def our_faces(
    pipeline: FacePipeline,
    message: CompressedImage,
    tracker: Tracker | None = None,
    time: float = 0.0,
) -> Faces:
    """As the node does it."""
    decoded = decode_message(message, fit=pipeline.fit(tracker))
    return decoded.restore(pipeline(decoded, tracker, time).faces)


def their_faces(find: Callable[[Image], Any], message: CompressedImage) -> Any:
    return find(np.asarray(cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)))
