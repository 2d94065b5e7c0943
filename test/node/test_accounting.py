# SPDX-License-Identifier: Apache-2.0
"""At any time, each received image is in one count, or waits, or is in hand.

The node and its network are real; a gate before the network holds images as long as the test wants,
and the images are handed to the subscription's callback, not sent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from std_msgs.msg import Header

from scrfd_ros.node.counts import Counts
from scrfd_ros.node.face_node import FaceNode
from scrfd_ros.node.images import image_message

LIGHT = {
    "detector.model": "500m",
    "detector.input_size": [64, 64],
    "recognizer.enabled": False,
    "cameras": ["front", "rear"],
}
GOOD = serialize_message(image_message(np.zeros((48, 64, 3), np.uint8), Header()))
BAD = GOOD[:100]
SUCCESS = TransitionCallbackReturn.SUCCESS


class Gated:
    """A node whose network waits before each image until it is let."""

    def __init__(self) -> None:
        self.node = FaceNode()
        self.node.set_parameters([Parameter(name, value=value) for name, value in LIGHT.items()])
        assert self.node.trigger_configure() == SUCCESS
        pipeline, self.gate = self.node._pipeline, threading.Semaphore(0)
        assert pipeline is not None
        run = pipeline.run

        def gated(frames: Any) -> Any:
            self.gate.acquire()
            return run(frames)

        pipeline.run = gated  # type: ignore[method-assign]
        finish = self.node._worker.finish

        def open_and_finish() -> None:  # what waits has been discarded by now
            self.gate.release(1000)
            finish()

        self.node._worker.finish = open_and_finish  # type: ignore[method-assign]

    def activate(self) -> None:
        self.gate = threading.Semaphore(0)
        assert self.node.trigger_activate() == SUCCESS

    def send(self, camera: int, message: bytes) -> None:
        images = self.node._cameras[camera]._images
        assert images is not None
        images.callback(message, {"publication_sequence_number": None})

    @property
    def counts(self) -> list[Counts]:
        return [camera.counts for camera in self.node._cameras]


@pytest.fixture(scope="module")
def gated(detector_path: Callable[[str], Path]) -> Iterator[Gated]:
    detector_path("500m")
    if not rclpy.ok():
        rclpy.init()
    gated = Gated()
    yield gated
    gated.node.destroy_node()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


EVENTS = st.sampled_from([(0, GOOD), (1, GOOD), (0, BAD), (1, BAD), None])


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=20))
def test_nothing_is_in_no_count(gated: Gated, events: list[tuple[int, bytes] | None]) -> None:
    gated.activate()
    sent = [0, 0]
    for event in events:
        if event is None:
            gated.gate.release()
            continue
        gated.send(*event)
        sent[event[0]] += 1
        for counts, number in zip(gated.counts, sent, strict=True):
            assert counts.received == number
            assert counts.in_hand in (0, 1, 2)  # waits, and is in hand
    assert gated.node.trigger_deactivate() == SUCCESS
    for counts, number in zip(gated.counts, sent, strict=True):
        assert counts.received == number == counts.handled + counts.dropped + counts.failed


def test_an_image_that_waits_at_a_deactivate_is_dropped(gated: Gated) -> None:
    gated.activate()
    counts = gated.counts[0]
    gated.send(0, GOOD)
    wait_for(lambda: not gated.node._worker._waiting)  # it is in hand
    gated.send(0, GOOD)
    assert counts.in_hand == 2
    assert gated.node.trigger_deactivate() == SUCCESS
    assert (counts.received, counts.handled, counts.dropped, counts.failed) == (2, 1, 1, 0)


def test_an_image_in_hand_when_the_node_ends_is_told(
    detector_path: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    detector_path("500m")
    gated = Gated()
    gated.activate()
    gated.send(0, GOOD)
    wait_for(lambda: not gated.node._worker._waiting)
    gated.send(0, GOOD)
    gated.node.destroy_node()
    gated.gate.release(10)
    said = capfd.readouterr().err
    assert "front: 0 handled, 1 dropped for newer ones, 0 skipped, an unknown number lost" in said
    assert "lost on the way, 1 not finished" in said


def test_errors_about_one_camera_hide_none_of_another(
    detector_path: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    detector_path("500m")
    gated = Gated()
    gated.activate()
    for _ in range(3):
        for camera in (0, 1):
            gated.send(camera, BAD)
            wait_for(lambda: not any(counts.in_hand for counts in gated.counts))
    gated.node.destroy_node()
    said = capfd.readouterr().err
    for name in ("/front/image", "/rear/image"):
        assert said.count(f"{name}: image skipped: ") == 1
