# SPDX-License-Identifier: Apache-2.0
"""The example of docs/identity.md, word for word, greets each person once, beside the real node."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from harness import running_face_node
from numpy.typing import NDArray
from std_msgs.msg import Header

from scrfd_ros.node.images import image_message
from scrfd_ros.srv import Enroll

PAGE = Path(__file__).parents[2] / "docs" / "identity.md"


def test_the_example_says_hello_once_to_each_person(
    tmp_path: Path,
    image: Callable[[str], NDArray[np.uint8]],
    detector_path: Callable[[str], Path],
    recognizer_path: Callable[[str], Path],
) -> None:
    detector_path("500m")
    recognizer_path("w600k_mbf")
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    program = tmp_path / "hello.py"
    program.write_text(example)
    parameters = {"detector.model": "500m", "gallery.store": str(tmp_path / "people.db")}
    with (
        running_face_node(tmp_path, parameters) as harness,
        (tmp_path / "hello.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, program, "--ros-args", "-r", f"__ns:={harness.node.get_namespace()}"],
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as greeter,
    ):

        def greetings() -> list[str]:
            assert greeter.poll() is None, said()
            return said().splitlines()

        def said() -> str:
            return (tmp_path / "hello.log").read_text()

        try:
            harness.wait_until_active()
            request = Enroll.Request(name="Barack Obama")
            for name in ("obama.jpg", "obama2.jpg"):
                request.images.append(image_message(image(name), Header()))
            client = harness.node.create_client(Enroll, "face_node/enroll")
            enrolled = harness.call_client(client, request, "enroll")
            assert enrolled.success, enrolled.message
            harness.wait_for(lambda: harness.node.count_subscribers("faces") == 2, "the greeter")

            def greets(shown: NDArray[np.uint8], before: list[str]) -> bool:
                harness.ask(shown)
                return greetings() != before

            for name in ("obama3.jpg", "biden.jpg"):
                harness.wait_for(partial(greets, image(name), greetings()), "a greeting")
            for name in ("obama3.jpg", "biden.jpg", "obama2.jpg", "obama3.jpg"):
                harness.ask(image(name))
            assert not re.search("barack|obama|embedding", harness.log(), re.IGNORECASE)
        finally:
            greeter.kill()
    assert said().splitlines() == ["Hello, Barack Obama!", "Hello, stranger!"]
