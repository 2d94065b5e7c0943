# SPDX-License-Identifier: Apache-2.0
"""The real node in a process of its own, and a camera beside it, over real DDS."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rclpy
from ament_index_python.packages import get_package_prefix
from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from numpy.typing import NDArray
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from scrfd_ros.msg import FaceArray
from scrfd_ros.node.images import image_message

TIMEOUT = 30.0  # seconds; generous, as nothing here depends on speed
RETRY = 8.0  # seconds without a response after which a request is sent again
FRAME_ID = "test_camera"
SERVICES = {
    ChangeState: "change_state",
    GetState: "get_state",
    GetParameters: "get_parameters",
    SetParameters: "set_parameters",
}
TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
}


def change_request(transition: str) -> ChangeState.Request:
    """A request for a lifecycle transition."""
    request = ChangeState.Request()
    request.transition.id = TRANSITIONS[transition]
    return request


class ImageCounts(NamedTuple):
    """What became of the images of a camera; `lost` is None if the node does not know."""

    handled: int
    dropped: int
    skipped: int
    lost: int | None


def image_counts(log: str, camera: str = "images") -> list[ImageCounts]:
    """The counts for a camera that a node has logged, one for each time it was deactivated."""
    pattern = (
        rf"{camera}: (\d+) handled, (\d+) dropped for newer ones, (\d+) skipped, "
        rf"(\d+|an unknown number) lost"
    )
    return [
        ImageCounts(*map(int, numbers), int(lost) if lost.isdigit() else None)
        for *numbers, lost in re.findall(pattern, log)
    ]


class Harness:
    """A camera, a listener and clients for one running face_node."""

    def __init__(
        self, namespace: str, process: subprocess.Popen[bytes], log: Path, reliable: bool
    ) -> None:
        self.process = process
        self.node = Node("harness", namespace=namespace)
        self.detections: list[Detection2DArray] = []
        self.faces: list[FaceArray] = []
        self._log = log
        self._clients = {
            kind: self.node.create_client(kind, f"face_node/{service}")
            for kind, service in SERVICES.items()
        }
        reliability = (
            QoSReliabilityPolicy.RELIABLE if reliable else QoSReliabilityPolicy.BEST_EFFORT
        )
        self._camera = self.node.create_publisher(
            Image, "image", QoSProfile(depth=1, reliability=reliability)
        )
        self.node.create_subscription(
            Detection2DArray, "detections", self.detections.append, QoSProfile(depth=100)
        )
        self.node.create_subscription(FaceArray, "faces", self.faces.append, QoSProfile(depth=100))

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Spin until the condition holds."""
        end = time.monotonic() + TIMEOUT
        while not condition():
            assert self.process.poll() is None, f"face_node died: {self.log()}"
            assert time.monotonic() < end, f"waited in vain for {what}: {self.log()}"
            rclpy.spin_once(self.node, timeout_sec=0.05)

    def log(self) -> str:
        """What the node has said so far."""
        return self._log.read_text()

    def wait_until_active(self) -> None:
        """Wait until camera, node and listener have found one another."""
        self.wait_for(
            lambda: (
                self._camera.get_subscription_count() == 1
                and self.node.count_publishers("detections") == 1
                and self.node.count_publishers("faces") == 1
            ),
            "an active node",
        )

    def publish(self, message: Image, stamp: Time | None = None) -> Header:
        """Publish an image, stamped now or as asked; returns its header."""
        stamp = stamp or self.node.get_clock().now().to_msg()
        message.header = Header(stamp=stamp, frame_id=FRAME_ID)
        self._camera.publish(message)
        return message.header

    def publish_until(
        self,
        message: Image,
        condition: Callable[[], bool],
        what: str,
        stamp: Time | None = None,
    ) -> None:
        """Publish an image again and again, as a camera does, until the condition holds."""
        next_time = 0.0

        def published_and_done() -> bool:
            nonlocal next_time
            if time.monotonic() > next_time:
                self.publish(message, stamp)
                next_time = time.monotonic() + 1
            return condition()

        self.wait_for(published_and_done, what)

    def ask(self, image: NDArray[np.uint8]) -> tuple[Detection2DArray, FaceArray]:
        """Publish an image until an image published from now on is answered; both answers."""
        self.detections.clear()
        self.faces.clear()
        since = self.node.get_clock().now().to_msg()

        def answers(messages: list[Any]) -> dict[tuple[int, int], Any]:
            stamps = {(m.header.stamp.sec, m.header.stamp.nanosec): m for m in messages}
            return {s: m for s, m in stamps.items() if s > (since.sec, since.nanosec)}

        def common() -> list[tuple[int, int]]:
            return sorted(answers(self.detections).keys() & answers(self.faces).keys())

        self.publish_until(image_message(image, Header()), lambda: bool(common()), "an answer")
        return answers(self.detections)[common()[0]], answers(self.faces)[common()[0]]

    def call(self, kind: type, request: Any) -> Any:
        """Call one of the node's services; returns the response."""
        return self.call_client(self._clients[kind], request, SERVICES[kind])

    def call_client(self, client: Client, request: Any, what: str) -> Any:
        """Call a service, again if there is no response; returns the response."""
        self.wait_for(client.service_is_ready, what)
        futures = [client.call_async(request)]
        again = time.monotonic() + RETRY

        def answered() -> bool:
            # A service can be there before it knows where to send its first response.
            nonlocal again
            if time.monotonic() > again:
                futures.append(client.call_async(request))
                again += RETRY
            return any(future.done() for future in futures)

        self.wait_for(answered, what)
        # The first one: what took long and is asked for again is refused the second time.
        return next(future.result() for future in futures if future.done())

    def change_state(self, transition: str) -> bool:
        """Ask for a lifecycle transition; returns whether it succeeded."""
        self.state()  # before a request that must not be repeated, one that can be
        return self.call(ChangeState, change_request(transition)).success

    def begin(self, transition: str) -> None:
        """Ask for a lifecycle transition, and do not wait for it."""
        self.state()  # the service is there
        self._clients[ChangeState].call_async(change_request(transition))

    def state(self) -> str:
        """The node's lifecycle state."""
        return self.call(GetState, GetState.Request()).current_state.label

    def set_parameter(self, name: str, value: object) -> tuple[bool, str]:
        """Set a parameter of the node; returns success and the reason given."""
        message = Parameter(name, value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[message])
        result = self.call(SetParameters, request).results[0]
        return result.successful, result.reason

    def get_parameter(self, name: str) -> object:
        """A parameter of the node."""
        request = GetParameters.Request(names=[name])
        value = self.call(GetParameters, request).values[0]
        return rclpy.parameter.parameter_value_to_python(value)


def face_node_command(namespace: str, parameters: Mapping[str, object] | None = None) -> list[str]:
    """The command line that starts face_node."""
    command = [
        str(Path(get_package_prefix("scrfd_ros"), "lib", "scrfd_ros", "face_node")),
        *("--ros-args", "-r", f"__ns:={namespace}"),
    ]
    for name, value in (parameters or {}).items():
        command += ["-p", f"{name}:={value}"]
    return command


@contextmanager
def running_face_node(
    folder: Path,
    parameters: Mapping[str, object] | None = None,
    reliable: bool = True,
    arguments: Sequence[str] = (),
) -> Iterator[Harness]:
    """Start face_node with parameters and arguments of ROS, such as remappings; stop it at the end.

    Its log goes to the folder.
    """
    namespace = f"/{re.sub('[-_]+', '_', folder.name)}"  # ROS allows no two underscores in a row
    log = folder / "face_node.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*face_node_command(namespace, parameters), *arguments],
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    harness = Harness(namespace, process, log, reliable)
    try:
        yield harness
    finally:
        harness.node.destroy_node()
        process.send_signal(signal.SIGINT)
        try:
            status = process.wait(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert status == 0, f"face_node ended with status {status}: {log.read_text()}"
    assert "Traceback" not in log.read_text(), log.read_text()
