# SPDX-License-Identifier: Apache-2.0
"""Moments in the life of face_node at which a signal can arrive, and how the node ends then."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rclpy
from harness import TIMEOUT, Harness, face_node_command, running_face_node
from std_msgs.msg import Header

from scrfd_ros.node.images import image_message

LIGHT = {"detector.model": "500m", "detector.input_size": [320, 320], "recognizer.enabled": False}
SLOW = LIGHT | {"detector.input_size": [4096, 4096]}
"""A network that works on one image for a good part of a second."""


def seconds_to_end(process: subprocess.Popen[bytes], numbers: Sequence[signal.Signals]) -> float:
    """Send signals and wait; the process must have ended by itself, with status 0."""
    start = time.monotonic()
    for number in numbers:
        process.send_signal(number)
        if len(numbers) > 1:
            time.sleep(0.05)  # two at once are one
    try:
        status = process.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert status == 0, f"face_node ended with status {status}"
    return time.monotonic() - start


def opened_for_writing(fifo: Path) -> int:
    """A descriptor, as soon as a process reads the FIFO; that waits until it is closed."""
    end = time.monotonic() + TIMEOUT
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads
            assert time.monotonic() < end, f"nobody reads {fifo}"
            time.sleep(0.01)


@contextmanager
def importing(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A node whose Python has begun to import."""
    log = folder / "face_node.log"
    with (
        log.open("wb") as sink,
        subprocess.Popen(
            face_node_command("/importing", LIGHT), stdout=sink, stderr=subprocess.STDOUT
        ) as process,
    ):
        end = time.monotonic() + TIMEOUT
        while "/numpy/" not in Path(f"/proc/{process.pid}/maps").read_text():
            assert time.monotonic() < end and process.poll() is None
        yield process
    assert log.read_text() == ""


def _unconfigured(node: Harness) -> None:
    assert node.state() == "unconfigured"


def _inactive(node: Harness) -> None:
    assert node.change_state("configure")


def _cleaning_up(node: Harness) -> None:
    _inactive(node)
    node.begin("cleanup")


def _active(node: Harness) -> None:
    node.wait_until_active()


def _image_in_hand(node: Harness) -> None:
    node.wait_until_active()
    image = np.zeros((48, 64, 3), np.uint8)
    node.ask(image)
    node.publish(image_message(image, Header()))
    node.state()  # the image came before this


def _deactivating(node: Harness) -> None:
    _image_in_hand(node)
    node.begin("deactivate")
    rclpy.spin_once(node.node, timeout_sec=0.1)  # answered only when the image is done


_BY_REQUEST = LIGHT | {"autostart": False}
_MOMENTS: dict[str, tuple[dict[str, object], Callable[[Harness], None]]] = {
    "unconfigured": (_BY_REQUEST, _unconfigured),
    "configuring at start": (LIGHT, lambda node: None),
    "configuring on request": (_BY_REQUEST, lambda node: node.begin("configure")),
    "inactive": (_BY_REQUEST, _inactive),
    "active": (LIGHT, _active),
    "an image in hand": (SLOW, _image_in_hand),
    "deactivating": (SLOW, _deactivating),
    "cleaning up": (_BY_REQUEST, _cleaning_up),
}
MOMENTS = ("importing", *_MOMENTS)
"""Configuring, the node reads a model that does not come: an engine takes minutes to build."""


@contextmanager
def node_at(moment: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process of a node at one of `MOMENTS`; what it logs goes into the folder."""
    if moment == "importing":
        with importing(folder) as process:
            yield process
        return
    parameters, bring = _MOMENTS[moment]
    if not moment.startswith("configuring"):
        with running_face_node(folder, parameters) as harness:
            bring(harness)
            yield harness.process
        return
    model = folder / "model.onnx"
    os.mkfifo(model)
    with running_face_node(folder, parameters | {"detector.engine_path": model}) as harness:
        bring(harness)
        held = opened_for_writing(model)
        try:
            yield harness.process
        finally:
            os.close(held)
