# SPDX-License-Identifier: Apache-2.0
"""A node in a process of its own, fed with a clip over DDS, and observed by `probe.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import rclpy
from clips import PERIOD, people_passing
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from peers.pictures import photograph
from peers.timing import Summary, summary
from scrfd_ros.node.images import image_message

SIZE = (1280, 720)

_CLIP_RATE = 15  # images a second of the clip; people move at the same speed at all rates
_TIMEOUT = 120.0
_SETTLE = 0.5  # seconds at the beginning of each stretch that are not counted
_MIN_ANSWERS = 6  # in each stretch
_LAST_ANSWER = 0.5  # seconds to wait for one
_COLUMNS = ("age", "pipeline", "in_node")
_MAX_SAFE_DOMAIN = 101
_NUMBERS = count()


def use_own_domain() -> None:
    """Give programs started from here a DDS domain of their own and the shipped profile."""
    profile = str(Path(__file__).resolve().parents[2] / "config" / "fastdds.xml")
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        os.environ[name] = profile
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % _MAX_SAFE_DOMAIN)


class Stretch(NamedTuple):
    """A time in which one node got images at one rate: nanoseconds of the machine's clock."""

    rate: int
    start: int
    end: int


class Feeder:
    """Sends a clip, in a DDS domain of its own and with the shipped transport profile."""

    def __init__(self, seconds: float = PERIOD) -> None:
        use_own_domain()
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self.node = Node("feeder", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        clip = people_passing(photograph, seconds, _CLIP_RATE, SIZE)
        self._images = [image_message(frame.image, Header()) for frame in clip]

    def spin(self, seconds: float) -> None:
        """Receive one answer, or wait for it at most this long."""
        self._executor.spin_once(timeout_sec=seconds)

    def image(self, seconds: float) -> Image:
        """The image of the looping clip at a time, stamped now."""
        image = self._images[int(seconds * _CLIP_RATE) % len(self._images)]
        image.header = Header(stamp=self.node.get_clock().now().to_msg(), frame_id="camera")
        return image

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


class Side:
    """A node in a process of its own, and its cameras.

    Args:
        program: face_node or plain_node.
        cameras: their namespaces; one empty one for a single camera without a namespace.
        checkout: another checkout, set up by its run.sh, whose node is run; None for this one.
    """

    def __init__(
        self,
        feeder: Feeder,
        program: str,
        parameters: Mapping[str, object],
        cameras: Sequence[str] = ("",),
        checkout: Path | None = None,
    ) -> None:
        self._feeder = feeder
        self._program = program
        self._answers = 0
        self.stretches: list[Stretch] = []
        self._folder = tempfile.TemporaryDirectory(prefix="peers_")
        folder = Path(self._folder.name)
        self._record, self._log = folder / "record.json", folder / "log"
        namespace = f"/peers_{next(_NUMBERS)}"  # a folder may be called a__b, which ROS refuses
        probe, python = Path(__file__).with_name("probe.py"), Path(sys.executable)
        environment = dict(os.environ)
        if checkout is not None:
            probe, python = checkout / "bench/peers/probe.py", checkout / ".venv/bin/python"
            environment["AMENT_PREFIX_PATH"] = str(checkout / ".venv")
            for name in ("LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE"):  # of this .venv
                environment.pop(name, None)
        command = [str(python), str(probe), program]
        command += [str(self._record), "--ros-args", "-r", f"__ns:={namespace}"]
        for key, value in parameters.items():
            command += ["-p", f"{key}:={json.dumps(value)}"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        qos = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        topics = [f"{namespace}/{camera}".rstrip("/") for camera in cameras]
        node = feeder.node
        self._publishers = [node.create_publisher(Image, f"{topic}/image", qos) for topic in topics]
        self._listeners = [
            node.create_subscription(Detection2DArray, f"{topic}/detections", self._count, 100)
            for topic in topics
        ]

    def _count(self, _: Detection2DArray) -> None:
        self._answers += 1

    def _publish(self, seconds: float) -> None:
        for publisher in self._publishers:
            publisher.publish(self._feeder.image(seconds))

    def wait_until_ready(self) -> None:
        """Send images until there are answers."""
        start = time.monotonic()
        while self._answers < 2 * len(self._publishers):
            self._check(start)
            self._publish(0)
            self._feeder.spin(0.3)

    def feed(self, rate: int, seconds: float) -> None:
        """Send images of each camera at a rate, Hz; longer if a slow machine answers few."""
        start, start_ns = time.monotonic(), time.time_ns()
        number, before = 0, self._answers
        while number < (_SETTLE + seconds) * rate or self._answers < before + _MIN_ANSWERS:
            self._check(start)
            self._publish(number / rate)
            number += 1
            while (left := start + number / rate - time.monotonic()) > 0:
                self._feeder.spin(left)
            self._feeder.spin(0)
        self.stretches.append(Stretch(rate, start_ns + round(1e9 * _SETTLE), time.time_ns()))
        before = -1
        while before < self._answers:  # wait for the remaining answers
            before = self._answers
            self._feeder.spin(_LAST_ANSWER)

    def _check(self, start: float) -> None:
        if self._process.poll() is not None or time.monotonic() > start + _TIMEOUT:
            raise RuntimeError(f"{self._program} does not answer: {self._log.read_text()}")

    def stop(self) -> Record:
        """End the node."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=_TIMEOUT)
        if not self._record.exists():
            raise RuntimeError(f"{self._program} left no record: {self._log.read_text()}")
        found = json.loads(self._record.read_text())
        return Record(found["images"], found["peak_memory"], self.stretches)

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # unless it has been stopped
        self._process.wait()
        for publisher in self._publishers:
            self._feeder.node.destroy_publisher(publisher)
        for listener in self._listeners:
            self._feeder.node.destroy_subscription(listener)
        self._folder.cleanup()


class Record(NamedTuple):
    """The probe's record of a node: see `probe.py`."""

    images: list[dict[str, float]]
    peak_memory: float
    stretches: list[Stretch]

    def at(self, rate: int) -> dict[str, Summary]:
        """Milliseconds, for images of each camera at this rate.

        age: from the image's stamp until its detections have been published. pipeline: the part of
        that for finding the faces. in_node: from the image's arrival in the middleware. overhead:
        in_node without the pipeline. interval: between detections, the mean of each stretch.
        throughput: detections per second, of each stretch.
        """
        images: list[dict[str, float]] = []
        intervals: list[float] = []
        for stretch in (one for one in self.stretches if one.rate == rate):
            found = [one for one in self.images if stretch.start <= one["published"] <= stretch.end]
            images += found
            times = [one["published"] / 1e6 for one in found]
            intervals.append((times[-1] - times[0]) / (len(times) - 1))
        columns = {name: [image[name] for image in images] for name in _COLUMNS}
        columns["overhead"] = [image["in_node"] - image["pipeline"] for image in images]
        columns["interval"] = intervals
        columns["throughput"] = [1e3 / interval for interval in intervals]
        return {name: summary(values) for name, values in columns.items()}

    def summary(self) -> dict[str, Any]:
        """`at` each rate, and the peak memory, MiB."""
        rates = {one.rate for one in self.stretches}
        return {f"{rate}_hz": self.at(rate) for rate in rates} | {"peak_memory": self.peak_memory}
