# SPDX-License-Identifier: Apache-2.0
"""The real node with a camera whose driver does not set the stamp, over real DDS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from harness import FRAME_ID, running_face_node
from numpy.typing import NDArray
from std_msgs.msg import Header

from scrfd_ros.node.images import image_message

IMAGES = 8
LIGHT = {"detector.model": "500m", "detector.input_size": [320, 320], "recognizer.enabled": False}
LONG = 1000.0  # seconds; faces are not to be missed for being found slowly
SENTENCE = "header.stamp is 0: faces are tracked by the arrival times of such images"


@pytest.mark.parametrize(
    "stamp", [Time(), Time(sec=2**31 - 1, nanosec=2**32 - 1)], ids=["zero", "impossible"]
)
def test_ids_stay_and_the_stamp_is_told_once(
    stamp: Time,
    tmp_path: Path,
    detector_path: Callable[[str], Path],
    image: Callable[[str], NDArray[np.uint8]],
) -> None:
    sentence = SENTENCE if stamp == Time() else "nanosec 4294967295): faces are tracked by"
    detector_path("500m")
    image = image_message(image("t1.jpg"), Header())
    states: list[DiagnosticStatus] = []
    with running_face_node(tmp_path, LIGHT | {"tracking.max_age": LONG}) as harness:
        harness.node.create_subscription(
            DiagnosticArray, "/diagnostics", lambda m: states.extend(m.status), 10
        )
        harness.wait_until_active()
        topic = harness.node.resolve_topic_name("image")
        for count in range(IMAGES):
            # Best effort may lose the first images.
            harness.publish_until(
                image, lambda n=count: len(harness.detections) > n, "an answer", stamp
            )

        def told() -> list[DiagnosticStatus]:
            return [state for state in states if state.hardware_id == topic and state.message]

        harness.wait_for(
            lambda: any(sentence in state.message for state in told()), "a word in the diagnostics"
        )
        state = next(state for state in told() if sentence in state.message)
        assert state.level == DiagnosticStatus.WARN
        assert sentence in {value.key: value.value for value in state.values}["stamps"]
        assert harness.log().count(sentence) == 1
        assert f"{topic}: header.stamp " in harness.log()
        for message in harness.detections:
            assert message.header == Header(stamp=stamp, frame_id=FRAME_ID), "the image's own"
            assert sorted(int(detection.id) for detection in message.detections) == [*range(1, 7)]
