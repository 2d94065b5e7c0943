# SPDX-License-Identifier: Apache-2.0
"""Foxglove's annotations show the faces; without foxglove_msgs there is no such topic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from harness import running_face_node
from message_packages import is_installed
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from scrfd_ros.faces import Faces, Identity, IdentityState

HEADER = Header(stamp=Time(sec=7, nanosec=11), frame_id="camera")
LIGHT = {"detector.model": "500m", "recognizer.enabled": False}


def test_boxes_landmarks_and_texts(optional_messages: object) -> None:
    from foxglove_msgs.msg import ImageAnnotations, PointsAnnotation

    from scrfd_ros.node.annotations import image_annotations

    faces = Faces(
        boxes=np.array([[10, 20, 50, 80], [-5, 0, 995, 900]], np.float32),
        scores=np.array([0.9, 0.75], np.float32),
        landmarks=np.arange(20, dtype=np.float32).reshape(2, 5, 2),
        ids=np.array([3, 12]),
    )
    message = image_annotations(faces, HEADER)
    message = deserialize_message(serialize_message(message), ImageAnnotations)
    boxes, landmarks = message.points[::2], message.points[1::2]
    assert {box.type for box in boxes} == {PointsAnnotation.LINE_LOOP}
    assert {points.type for points in landmarks} == {PointsAnnotation.POINTS}
    assert [(p.x, p.y) for p in boxes[0].points] == [(10, 20), (50, 20), (50, 80), (10, 80)]
    assert [(p.x, p.y) for p in landmarks[1].points] == [(n, n + 1) for n in range(10, 20, 2)]
    assert [text.text for text in message.texts] == ["#3 0.90", "#12 0.75"]
    assert (message.texts[1].position.x, message.texts[1].position.y) == (-5, 0)
    assert boxes[1].thickness > boxes[0].thickness >= 1
    assert message.texts[1].font_size > message.texts[0].font_size
    # Foxglove shows those that have the stamp of the image, and nothing whose color has no alpha.
    assert all(item.timestamp == HEADER.stamp for item in (*message.points, *message.texts))
    assert all(points.outline_color.a == 1 for points in message.points)


def test_faces_without_landmarks_and_ids(optional_messages: object) -> None:
    from scrfd_ros.node.annotations import image_annotations

    faces = Faces(np.array([[1, 2, 3, 4]], np.float32), np.array([0.5], np.float32))
    message = image_annotations(faces, HEADER)
    assert len(message.points) == 1
    assert message.texts[0].text == "0.50"
    known = replace(faces, identities=(Identity(IdentityState.KNOWN, "id", "李小龙"),))
    assert image_annotations(known, HEADER).texts[0].text == "李小龙"
    none = Faces(np.empty((0, 4), np.float32), np.empty(0, np.float32))
    assert not image_annotations(none, HEADER).points


@pytest.mark.usefixtures("node_finds_optional_messages")
def test_node_publishes_them(
    tmp_path: Path,
    detector_path: Callable[[str], Path],
    image: Callable[[str], NDArray[np.uint8]],
) -> None:
    from foxglove_msgs.msg import ImageAnnotations

    detector_path("500m")
    with running_face_node(tmp_path, LIGHT) as harness:
        harness.wait_until_active()
        got: list[ImageAnnotations] = []
        harness.node.create_subscription(ImageAnnotations, "annotations", got.append, 10)
        harness.wait_for(lambda: harness.node.count_publishers("annotations") == 1, "annotations")
        harness.ask(image("t1.jpg"))
        harness.wait_for(lambda: bool(got), "annotations of an image")
    assert len(got[0].texts) == 6
    assert any(got[0].texts[0].timestamp == message.header.stamp for message in harness.detections)


@pytest.mark.skipif(is_installed("foxglove_msgs"), reason="foxglove_msgs is installed")
def test_node_does_without_them(tmp_path: Path, detector_path: Callable[[str], Path]) -> None:
    detector_path("500m")
    with running_face_node(tmp_path, LIGHT) as harness:
        harness.wait_until_active()
        assert harness.node.count_publishers("annotations") == 0
