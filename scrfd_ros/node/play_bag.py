# SPDX-License-Identifier: Apache-2.0
"""Plays a bag to face_node, from its first image on: ros2 run scrfd_ros play_bag BAG

`ros2 bag play` starts at once, whether or not anybody listens. But networks take seconds to load,
and player and node take up to some seconds to discover each other. So this program starts the
player paused when the node is active, and resumes it when the node receives its clock. It plays
only the node's images and a clock: not the bag's own clock, detections, transforms or diagnostics,
which would then come from two sources.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock

from scrfd_ros.bags.metadata import read_metadata
from scrfd_ros.errors import ScrfdError
from scrfd_ros.node.no_images import NO_NAMES, TRANSPORTS
from scrfd_ros.node.parent import end_with_parent
from scrfd_ros.node.signals import call_at_signal

PLAYER = "rosbag2_player"
RESUME = f"/{PLAYER}/resume"
IMAGES = tuple(TRANSPORTS)
RESULTS = "vision_msgs/msg/Detection2DArray"

_POLL_PERIOD = 0.5  # seconds between requests for the node's state
_RESPONSE_TIMEOUT = 5.0  # seconds after which a request is sent again
_PATIENCE = 10.0  # seconds for node and player to discover each other


class _Ended(Exception):
    """A signal has come."""


def check_bag(bag: Path) -> None:
    """Refuse a bag that does not exist.

    Raises:
        ScrfdError: there is no such file or folder.
    """
    if not bag.exists():
        raise ScrfdError(f"there is no bag {bag}: expected a folder or a file of rosbag2")


def check_player() -> None:
    """Refuse to go on without `ros2 bag play`.

    Raises:
        ScrfdError: the player or the messages of its services are not installed.
    """
    try:
        import rosbag2_interfaces.srv  # noqa: F401
    except ImportError as error:
        missing = f"{error}"
    else:
        if shutil.which("ros2"):
            return
        missing = "no program ros2"
    raise ScrfdError(
        f"`ros2 bag play` is not there ({missing}): sudo apt install ros-$ROS_DISTRO-rosbag2"
    )


def image_topics(bag: Path) -> dict[str, str] | None:
    """Image topics of a bag and their types; None for a bag without a usable metadata.yaml."""
    metadata, problem = read_metadata(bag / "metadata.yaml")
    if problem:
        return None  # the player says what is wrong with it
    return {
        topic: kind
        for topic, kind in metadata.kinds.items()
        if kind in IMAGES and metadata.counts.get(topic, 0) > 0
    }


class _Session:
    """The connection of this program to face_node and the player."""

    def __init__(self, target: str) -> None:
        self.node = Node("play_bag", use_global_arguments=False)
        namespace, _, name = target.rpartition("/")
        self._place = (name, namespace or "/")
        self._target = target
        self._ended = threading.Event()
        self._time: Time | None = None  # of the player
        self._stamp: Time | None = None  # of the node
        self._state = self.node.create_client(GetState, f"{target}/get_state")
        self._parameters = self.node.create_client(GetParameters, f"{target}/get_parameters")
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._listen, 10)
        self.node.create_subscription(Clock, "/clock", self._take_time, 1)

    def end(self) -> None:
        """Have `wait` raise `_Ended`."""
        self._ended.set()

    def wait(self, condition: Callable[[], bool], seconds: float = float("inf")) -> bool:
        """Wait until a condition holds; False if it does not within the time."""
        end = time.monotonic() + seconds
        while not condition():
            if self._ended.is_set():
                raise _Ended
            if time.monotonic() > end:
                return False
            rclpy.spin_once(self.node, timeout_sec=0.05)
        return True

    def call(self, client: Any, request: Any) -> Any:
        """The response to a request, which is repeated until there is one."""
        self.wait(client.service_is_ready)
        while True:
            future = client.call_async(request)
            # A new service may not have discovered this client, and its response would be lost.
            if self.wait(future.done, _RESPONSE_TIMEOUT):
                return future.result()

    def wait_until_active(self) -> None:
        """Wait for the node to be active.

        Raises:
            ScrfdError: the node has `autostart` and did not become active, or is shut down.
        """
        name, logger = self._target, self.node.get_logger()
        if not self.wait(self._state.service_is_ready, _PATIENCE):
            logger.warning(f"{name} is not there yet: waiting for it")
        passive = 0
        while True:
            state = self.call(self._state, GetState.Request()).current_state
            if state.id == State.PRIMARY_STATE_ACTIVE:
                return
            if state.id == State.PRIMARY_STATE_FINALIZED:
                raise ScrfdError(f"{name} has been shut down: start it again")
            if state.id in (State.PRIMARY_STATE_UNCONFIGURED, State.PRIMARY_STATE_INACTIVE):
                passive += 1  # the first answer may be from before its autostart
                if passive == 2:
                    if self.parameter("autostart").bool_value:
                        raise ScrfdError(f"{name} is {state.label}: its log above says why")
                    logger.info(
                        f"{name} is {state.label}, and autostart is false: waiting until it is "
                        f"active: ros2 lifecycle set {name} configure; ros2 lifecycle set {name} "
                        f"activate"
                    )
            else:
                passive = 0
            self.wait(lambda: False, _POLL_PERIOD)

    def parameter(self, name: str) -> Any:
        """The ParameterValue of one of the node's parameters."""
        return self.call(self._parameters, GetParameters.Request(names=[name])).values[0]

    def topics(self, types: Sequence[str], publishers: bool) -> dict[str, str]:
        """Topics of some types that the node publishes or subscribes to, and their types."""
        look = (
            self.node.get_publisher_names_and_types_by_node
            if publishers
            else self.node.get_subscriber_names_and_types_by_node
        )
        try:
            found = look(*self._place)
        except Exception:  # its type depends on the version of ROS: the node is unknown yet
            return {}
        return {topic: kind for topic, (kind, *_) in found if kind in types}

    def wait_for_subscriptions(self) -> dict[str, str]:
        """Wait for all subscriptions to images; returns their topics and types."""
        cameras = len(self.parameter("cameras").string_array_value)
        if self.parameter("lazy").bool_value:
            # A lazy node takes images in only for subscribers of its results.
            self.wait(lambda: len(self.topics([RESULTS], True)) >= cameras)
            from vision_msgs.msg import Detection2DArray

            for topic in self.topics([RESULTS], True):
                self.node.create_subscription(
                    Detection2DArray, topic, lambda message: None, 1, raw=True
                )
        self.wait(lambda: len(self.topics(IMAGES, False)) >= cameras)
        return self.topics(IMAGES, False)

    def publishers(self, topic: str) -> list[str]:
        """Names of the nodes that publish a topic."""
        return [info.node_name for info in self.node.get_publishers_info_by_topic(topic)]

    def check_clocks(self) -> bool:
        """Refuse a second clock beside the player's. Returns False, for use in conditions.

        Raises:
            ScrfdError: another node publishes /clock.
        """
        # A publisher can be discovered before the name of its node; such a name is checked later.
        others = [name for name in self.publishers("/clock") if name not in (PLAYER, *NO_NAMES)]
        if others:
            raise ScrfdError(
                f"{others[0]} publishes /clock too, but there can be one clock only: end it first"
            )
        return False

    def wait_until_heard(self) -> bool:
        """Wait until the node has the time of the paused player; False if that takes too long.

        Then the node also receives the player's images: the player announces its clock before its
        images, and the node subscribed to both before the player started.
        """
        return self.wait(lambda: self._time is not None and self._time == self._stamp, _PATIENCE)

    def _listen(self, message: DiagnosticArray) -> None:
        name = self._target.removeprefix("/")
        if any(status.name.startswith(f"{name}:") for status in message.status):
            self._stamp = message.header.stamp  # the node's time

    def _take_time(self, message: Clock) -> None:
        self._time = message.clock


def _play(session: _Session, bag: Path) -> int:
    logger = session.node.get_logger()
    session.wait_until_active()
    topics = session.wait_for_subscriptions()
    _check_topics(bag, topics, image_topics(bag))
    session.check_clocks()
    services = dict(session.node.get_service_names_and_types())
    if RESUME in services:
        raise ScrfdError("another `ros2 bag play` is running: end it first")
    command = ["ros2", "bag", "play", f"{bag}", "--clock", "--start-paused"]
    command += ["--disable-keyboard-controls", "--topics", *topics]
    # In a session of its own it does not get the terminal's SIGINT; this program ends it.
    with subprocess.Popen(command, start_new_session=True) as player:
        try:
            if _resume(session, player, bag, topics):
                logger.info(f"playing {', '.join(topics)}; nothing else of the bag")
            session.wait(lambda: session.check_clocks() or player.poll() is not None)
        finally:
            if player.poll() is None:
                player.terminate()
    if player.returncode:
        raise ScrfdError(f"`ros2 bag play` ended with status {player.returncode}: see above")
    return 0


def _resume(
    session: _Session, player: subprocess.Popen[bytes], bag: Path, topics: dict[str, str]
) -> bool:
    """Resume the player as soon as the node receives its clock; False if the player has ended."""
    from rosbag2_interfaces.srv import Resume

    logger = session.node.get_logger()
    client = session.node.create_client(Resume, RESUME)
    session.wait(lambda: client.service_is_ready() or player.poll() is not None)
    if player.poll() is not None:
        return False

    def missing() -> list[str]:
        return [topic for topic in topics if PLAYER not in session.publishers(topic)]

    if not session.wait(lambda: not missing(), _PATIENCE):
        if len(missing()) == len(topics):
            raise ScrfdError(f"the bag {bag} has no {', '.join(topics)}: see `ros2 bag info {bag}`")
        logger.warning(f"the bag has no {', '.join(missing())}")
    if not session.wait_until_heard():
        logger.warning(
            "the node does not hear the player's clock: playing, but first images may be missed"
        )
    session.call(client, Resume.Request())
    return True


def _check_topics(bag: Path, wanted: dict[str, str], found: dict[str, str] | None) -> None:
    if found is None or wanted.items() & found.items():
        return
    there = ", ".join(f"{topic} ({kind})" for topic, kind in found.items()) or "none"
    raise ScrfdError(
        f"the bag {bag} has no images for the node, which expects "
        + ", ".join(f"{topic} ({kind})" for topic, kind in wanted.items())
        + f"; images of the bag: {there}. Set image:= (and image_transport:=) to one of them"
    )


def main() -> int:
    """Play a bag; returns the exit status."""
    session: _Session | None = None
    is_ended = threading.Event()

    def end() -> None:
        is_ended.set()
        if session is not None:
            session.end()

    call_at_signal(end)
    if not end_with_parent():
        return 0
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    parser = argparse.ArgumentParser(prog="play_bag", description="Play a bag to face_node.")
    parser.add_argument("bag", type=Path, metavar="BAG", help="a folder or a file of rosbag2")
    parser.add_argument(
        "--node", default="/face_node", help="full name of the node (default: %(default)s)"
    )
    arguments = parser.parse_args(remove_ros_args(sys.argv)[1:])
    try:
        check_bag(arguments.bag)
        check_player()
        session = _Session(arguments.node)
        if is_ended.is_set():
            return 0
        return _play(session, arguments.bag)
    except _Ended:
        return 0
    except ScrfdError as error:
        print(f"play_bag: error: {error}", file=sys.stderr)
        return 1 if session else 2
    finally:
        if session is not None:
            session.node.destroy_node()
        rclpy.try_shutdown()
