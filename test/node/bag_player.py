# SPDX-License-Identifier: Apache-2.0
"""Stands in for `ros2 bag play`, which no registry package has, under the name ros2.

Like the real one it has its publishers at once, that of the clock first, is paused until its
service `resume` is called, and publishes the time while it is paused too. It takes the options
that play_bag gives, no others.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import rclpy
from rclpy.signals import SignalHandlerOptions
from rosbags.rosbag2 import Reader
from rosgraph_msgs.msg import Clock

if TYPE_CHECKING:
    import pytest

CLOCK_PERIOD = 0.025  # seconds
SENDING = 0.5  # seconds for the last message


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs=2)
    parser.add_argument("bag", type=Path)
    for option in ("--clock", "--start-paused", "--disable-keyboard-controls"):
        parser.add_argument(option, action="store_true", required=True)
    parser.add_argument("--topics", nargs="+", required=True)
    arguments = parser.parse_args()
    assert arguments.words == ["bag", "play"]
    with Reader(arguments.bag) as reader:
        play(reader, arguments.topics)


def play(reader: Reader, topics: list[str]) -> None:
    from rosbag2_interfaces.srv import Resume  # not for those who only install this

    rclpy.init(signal_handler_options=SignalHandlerOptions.ALL)
    node = rclpy.create_node("rosbag2_player")
    clock = node.create_publisher(Clock, "/clock", 1)
    publishers = {}
    connections = [c for c in reader.connections if c.topic in topics]
    for connection in connections:
        package, _, name = connection.msgtype.split("/")
        kind = getattr(importlib.import_module(f"{package}.msg"), name)
        publishers[connection.topic] = node.create_publisher(kind, connection.topic, 10)
    is_paused = True

    def resume(request: Resume.Request, response: Resume.Response) -> Resume.Response:
        nonlocal is_paused
        is_paused = False
        return response

    now = reader.start_time

    def tell_time() -> None:
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(now, 10**9)
        clock.publish(message)

    node.create_service(Resume, "~/resume", resume)
    node.create_timer(CLOCK_PERIOD, tell_time)
    while is_paused and rclpy.ok():
        rclpy.spin_once(node)
    began = time.monotonic_ns() - reader.start_time
    for connection, stamp, data in reader.messages(connections):
        while (left := stamp - (time.monotonic_ns() - began)) > 0:
            now = time.monotonic_ns() - began
            rclpy.spin_once(node, timeout_sec=left / 1e9)
        publishers[connection.topic].publish(bytes(data))
    # Fast DDS sends in a thread of its own, and forgets what is not sent when the process ends.
    end = time.monotonic() + SENDING
    while (left_seconds := end - time.monotonic()) > 0:
        rclpy.spin_once(node, timeout_sec=left_seconds)
    rclpy.shutdown()


def install_if_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put this into PATH as the program ros2, if there is no `ros2 bag`."""
    if shutil.which("ros2"):
        found = subprocess.run(["ros2", "bag", "--help"], capture_output=True, check=False)
        if found.returncode == 0:
            return
    install(folder)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def install(folder: Path) -> None:
    """Make this the program ros2, in a new folder."""
    folder.mkdir(parents=True)
    program = folder / "ros2"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
    program.chmod(0o755)


if __name__ == "__main__":
    main()
