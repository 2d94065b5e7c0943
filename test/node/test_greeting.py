# SPDX-License-Identifier: Apache-2.0
"""The node that says hello in docs/identity.md, word for word, beside the real one."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import TIMEOUT, Harness, running_face_node
from numpy.typing import NDArray
from std_msgs.msg import Header

from scrfd_ros.msg import Face
from scrfd_ros.node.images import image_message
from scrfd_ros.srv import Enroll

Images = Callable[[str], NDArray[np.uint8]]

PAGE = Path(__file__).parents[2] / "docs" / "identity.md"


def program() -> str:
    """The only Python program in the page."""
    (found,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(found.splitlines()) <= 30
    return str(found)


def show(harness: Harness, image: NDArray[np.uint8], condition: Callable[[Face], bool]) -> Face:
    """Publish an image as a camera does until its face is as expected; that face."""
    while True:
        (face,) = harness.ask(image)[1].faces
        if condition(face):
            return face


def test_hello_is_said_once_to_each_person_and_to_a_stranger(
    tmp_path: Path,
    image: Images,
    detector_path: Callable[[str], Path],
    recognizer_path: Callable[[str], Path],
) -> None:
    detector_path("500m")
    recognizer_path("w600k_mbf")
    (tmp_path / "hello.py").write_text(program())
    parameters = {"detector.model": "500m", "gallery.store": tmp_path / "people.db"}
    # Other photographs than the one by which the person is enrolled.
    first, second, stranger = (image(f"{name}.jpg") for name in ("obama2", "obama3", "biden"))
    with running_face_node(tmp_path, parameters) as harness:
        harness.wait_until_active()
        client = harness.node.create_client(Enroll, "face_node/enroll")
        request = Enroll.Request(name="Zoë", images=[image_message(image("obama.jpg"), Header())])
        enrolled = harness.call_client(client, request, "enroll")
        assert enrolled.success, enrolled.message
        namespace = harness.node.get_namespace()
        greeter = subprocess.Popen(
            [sys.executable, tmp_path / "hello.py", "--ros-args", "-r", f"__ns:={namespace}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        try:
            harness.wait_for(
                lambda: "greeter" in harness.node.get_node_names(), "the node that says hello"
            )
            harness.wait_for(
                lambda: len(harness.node.get_subscriptions_info_by_topic("faces")) > 1, "it"
            )
            known = show(harness, first, lambda face: face.identity_state == Face.IDENTITY_KNOWN)
            assert (known.person_id, known.name) == (enrolled.person_id, "Zoë")
            other = show(harness, stranger, lambda face: face.person_id.startswith("stranger-"))
            assert other.name == ""
            for frame, face in ((second, known), (stranger, other)):
                show(harness, frame, lambda now, face=face: now.person_id == face.person_id)
        finally:
            greeter.send_signal(signal.SIGINT)
            said, errors = greeter.communicate(timeout=TIMEOUT)
    assert said.splitlines() == ["Hello, Zoë!", "Hello, stranger!"], errors
