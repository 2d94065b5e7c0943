# SPDX-License-Identifier: Apache-2.0
"""A camera in a process of its own, which can be killed, and does what cameras should not.

Run as a program it publishes the images of a .npy file, uint8 [N, H, W, 3] BGR, in turns. Words
on its standard input are what it does next: see `Publisher`.
"""

from __future__ import annotations

import argparse
import os
import select
import subprocess
import sys
import time
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from scrfd_ros.node.images import image_message

BAD: dict[str, dict[str, Any]] = {
    "unknown encoding": {"encoding": "rgb9"},
    "no encoding": {"encoding": ""},
    "absurd encoding": {"encoding": "bgr8\n\x7f" * 1000},
    "short data": {"data": array("B", bytes(100))},
    "no data": {"data": array("B")},
    "zero height": {"height": 0},
    "zero width": {"width": 0},
    "short step": {"step": 7},
    "absurd size": {"height": 100_000, "width": 100_000, "step": 300_000},
    "absurd step": {"step": 2**32 - 1},
}
"""Fields of messages that no image can be made of."""

HUGE = (4320, 7680)
BURST = 50
BAD_IMAGES = 20
HOUR = 3600


def read_sent(path: Path) -> NDArray[np.int64]:
    """What cameras have published: stamp and true time of each image, nanoseconds, int64 [N, 2]."""
    content = path.read_bytes() if path.exists() else b""
    return np.frombuffer(content[: len(content) // 16 * 16], np.int64).reshape(-1, 2)


class CameraProcess:
    """Starts a camera and speaks to it.

    Args:
        namespace: of its node; it publishes on `image`.
        images: the .npy file.
        sent: file to which it appends what it has published, see `read_sent`.
        rate: images a second.
        frame_id: of the images.
    """

    def __init__(
        self, namespace: str, images: Path, sent: Path, rate: float, frame_id: str
    ) -> None:
        command = [__file__, namespace, images, sent, rate, frame_id]
        self._process = subprocess.Popen(
            [sys.executable, *map(str, command)], stdin=subprocess.PIPE, bufsize=0
        )

    def say(self, word: str) -> None:
        """Have it do something: see `Publisher`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        self._process.kill()
        self._process.communicate()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None


class Publisher:
    """Publishes images in turns; between them it does what it is told.

    A key of `BAD` makes the next images such messages; "huge" is one image of 8K; "burst" is the
    number of images to publish at once; "back" sets the clock of its stamps back by an hour,
    "forth" makes it right; "disorder" gives the next image the stamp before the last one's.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        rclpy.init(args=[])
        self._node = Node("camera", namespace=options.namespace)
        qos = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        self._publisher = self._node.create_publisher(Image, "image", qos)
        images = np.load(options.images, mmap_mode="r")
        self._images = [image_message(image, Header()) for image in images]
        self._period = 1 / options.rate
        self._frame_id = options.frame_id
        self._sent = os.open(options.sent, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._behind = 0  # nanoseconds
        self._bad: list[Image] = []

    def run(self) -> None:
        start, number = time.monotonic(), 0
        while True:
            image = self._images[number % len(self._images)]
            self._publish(self._bad.pop() if self._bad else image)
            number += 1
            # Without waiting for what it missed: a camera does not catch up.
            start = max(start, time.monotonic() - (number + 1) * self._period)
            while (left := start + number * self._period - time.monotonic()) > 0:
                if select.select([sys.stdin], [], [], left)[0]:
                    word = sys.stdin.readline().strip()
                    if not word:
                        return
                    self._obey(word)

    def _obey(self, word: str) -> None:
        image = self._images[0]
        if word in BAD:  # several: the first is likely to be replaced before it is looked at
            bad = image_message(np.zeros((48, 64, 3), np.uint8), Header())
            for name, value in BAD[word].items():
                setattr(bad, name, value)
            self._bad = [bad] * BAD_IMAGES
        elif word == "huge":
            self._publish(image_message(np.zeros((*HUGE, 3), np.uint8), Header()))
        elif word == "burst":
            for _ in range(BURST):
                self._publish(image)
        elif word == "disorder":
            self._publish(image, early=round(1.5e9 * self._period))
        else:
            self._behind = {"back": HOUR * 10**9, "forth": 0}[word]

    def _publish(self, message: Image, early: int = 0) -> None:
        now = time.time_ns()
        stamp = now - self._behind - early
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        message.header.frame_id = self._frame_id
        os.write(self._sent, np.array([stamp, now], np.int64).tobytes())  # before a kill can come
        self._publisher.publish(message)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, kind in (
        ("namespace", str),
        ("images", Path),
        ("sent", Path),
        ("rate", float),
        ("frame_id", str),
    ):
        parser.add_argument(name, type=kind)
    Publisher(parser.parse_args()).run()


if __name__ == "__main__":
    main()
