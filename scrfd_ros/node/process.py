# SPDX-License-Identifier: Apache-2.0
"""The process of face_node: its arguments, signals and exit status."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Sequence

import rclpy
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.signals import SignalHandlerOptions

from scrfd_ros.files import keep_others_from_writing
from scrfd_ros.node.allocator import keep_freed_memory
from scrfd_ros.node.error_reports import EXPECTED_ERRORS, reason_of
from scrfd_ros.node.face_node import FaceNode
from scrfd_ros.node.guarded_executor import GuardedExecutor
from scrfd_ros.node.signals import call_at_signal
from scrfd_ros.node.unused_arguments import bad_params_file, warn_of_unused_arguments
from scrfd_ros.node.worker import Stopped

# Seconds in which a finalized node still answers: Nav2's lifecycle manager asks for the state after
# it has requested the shutdown.
_LAST_ANSWERS = 2.0

_EXPECTED_ARGUMENTS = {
    "parameter override rule": "-p name:=value with a value in YAML, lists of one type",
    "remap rule": "-r from:=to, names of letters, digits, _ and /",
    "log level": "--log-level debug, info, warn, error or fatal",
}


_HELP = """\
usage: face_node [--ros-args -p NAME:=VALUE ... --params-file FILE -r FROM:=TO ...]

Finds faces in the images of cameras and publishes them. A lifecycle node.
Parameters: docs/parameters.md and config/faces.yaml. Topics: docs/topics.md."""


def run(arguments: Sequence[str]) -> int:
    """Run the node until a signal or its lifecycle ends it; returns the exit status.

    Args:
        arguments: of the command line, without the program's name.
    """
    if {"-h", "--help"} & set(arguments):
        print(_HELP)
        return 0
    keep_freed_memory()
    keep_others_from_writing()
    bad_file = bad_params_file(arguments)
    if bad_file:
        return _refuse(bad_file)
    try:
        # rclpy's handlers would shut ROS down in the middle of whatever the node is doing.
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except (rclpy_implementation.RCLError, rclpy_implementation.UnknownROSArgsError) as error:
        return _refuse(_bad_arguments(error))
    executor = GuardedExecutor()
    is_ended = threading.Event()
    node: FaceNode | None = None

    def end() -> None:
        is_ended.set()
        if node is not None:
            node.end()
        executor.create_task(lambda: None)  # spin_once() returns

    call_at_signal(end)
    try:
        try:
            node = FaceNode()
        except EXPECTED_ERRORS as error:
            return _refuse(reason_of(error))
        except rclpy_implementation.RCLError as error:
            return _refuse(_plain(error))
        warn_of_unused_arguments(node, arguments)
        executor.add_node(node)
        if not is_ended.is_set():
            node.start()
        while not is_ended.is_set() and node.final_status is None:
            executor.spin_once()
        last = time.monotonic() + _LAST_ANSWERS
        while not is_ended.is_set() and (seconds := last - time.monotonic()) > 0:
            executor.spin_once(seconds)
    except Stopped:
        pass
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    assert node is not None  # only a node raises Stopped
    if not node.is_idle:
        # A network that is being built, loaded or run cannot be interrupted, and may take minutes.
        # Python's own exit would tear down what it uses.
        os._exit(0)
    return node.final_status or 0


def _refuse(reason: str) -> int:
    print(f"face_node: error: {reason}", file=sys.stderr)
    return 2


def _plain(error: Exception) -> str:
    """The text of an error of the C libraries, on one line and without places in their code."""
    return " ".join(re.sub(r",? at \S+:\d+", "", str(error)).split())


def _bad_arguments(error: Exception) -> str:
    """What rclpy.init() raises, as a sentence."""
    if isinstance(error, rclpy_implementation.UnknownROSArgsError):
        return f"unknown arguments after --ros-args: {error}; arguments of other kinds go before it"
    text = _plain(error).removeprefix("failed to initialize rcl: ")
    expected = [text for kind, text in _EXPECTED_ARGUMENTS.items() if f"parse {kind}" in str(error)]
    return "; expected: ".join([text, *expected])
