# SPDX-License-Identifier: Apache-2.0
"""A replay writes the messages that the node sends for the same images."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_files import IMAGE, Entry, write_bag
from harness import Harness, running_face_node
from numpy.typing import NDArray
from pipelines import loaded
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.rosbag2 import Reader
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from scrfd_ros.bags.replay import replay
from scrfd_ros.msg import FaceArray
from scrfd_ros.node.images import image_message
from scrfd_ros.pipeline import FacePipeline

REPEAT = 3.0  # seconds without an answer after which an image is sent again


@pytest.fixture(scope="module")
def pipeline(
    detector_path: Callable[[str], Path], recognizer_path: Callable[[str], Path]
) -> FacePipeline:
    return loaded(detector_path("500m"), recognizer_path("w600k_mbf"), backend="onnxruntime")


def key(header: Any) -> tuple[int, int]:
    return header.stamp.sec, header.stamp.nanosec


def by_stamp(received: list[Any]) -> dict[tuple[int, int], Any]:
    return {key(message.header): message for message in received}


def send(harness: Harness, message: Any, sent: dict[tuple[int, int], bytes]) -> None:
    """Send an image until it is answered, and note each message that was sent."""
    mine: set[tuple[int, int]] = set()
    again = 0.0

    def answered() -> bool:
        nonlocal again
        if time.monotonic() > again:
            stamp = key(harness.publish(message))
            sent[stamp] = serialize_message(message)
            mine.add(stamp)
            again = time.monotonic() + REPEAT
        return bool(mine & by_stamp(harness.detections).keys() & by_stamp(harness.faces).keys())

    harness.wait_for(answered, "an answer")


def test_node_and_replay_give_the_same(
    pipeline: FacePipeline,
    detector_path: Callable[[str], Path],
    recognizer_path: Callable[[str], Path],
    image: Callable[[str], NDArray[np.uint8]],
    tmp_path: Path,
) -> None:
    """With ids, so that the trackers are compared too."""
    people = image("t1.jpg")
    images = [people[:, :850], people[4:, 8:858], np.zeros((48, 64, 3), np.uint8), people]
    parameters = {
        "backend": "onnxruntime",
        "detector.engine_path": detector_path("500m"),
        "recognizer.engine_path": recognizer_path("w600k_mbf"),
    }
    sent: dict[tuple[int, int], bytes] = {}
    with running_face_node(tmp_path, parameters) as harness:
        harness.wait_until_active()
        for each in images:
            send(harness, image_message(each, Header()), sent)
        detections, faces = by_stamp(harness.detections), by_stamp(harness.faces)

    # An image sent again may have been answered twice, or not at all.
    assert detections.keys() == faces.keys() and len(detections) >= len(images)
    entries = [
        Entry("/image", IMAGE, sec * 10**9 + nanosec, sent[sec, nanosec])
        for sec, nanosec in detections
    ]
    bag = write_bag(tmp_path / "bag", entries)
    replay(bag, tmp_path / "out", pipeline)
    with Reader(tmp_path / "out") as reader:
        replayed = [bytes(data) for _, _, data in reader.messages()]
    expected = [
        message
        for pair in zip(detections.values(), faces.values(), strict=True)
        for message in pair
    ]
    for data, message in zip(replayed, expected, strict=True):
        assert deserialize_message(data, type(message)) == message
    first = deserialize_message(replayed[0], Detection2DArray)
    last = deserialize_message(replayed[-1], FaceArray)
    assert len(first.detections) == 4 and len(last.faces) == 6
    assert all(detection.id for detection in first.detections)
