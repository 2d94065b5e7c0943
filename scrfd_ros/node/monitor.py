# SPDX-License-Identifier: Apache-2.0
"""Looks for problems once a second, and publishes the diagnostics."""

from __future__ import annotations

import time
from collections.abc import Sequence

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher
from std_msgs.msg import Header

from scrfd_ros.node.camera import Camera
from scrfd_ros.node.camera_watch import CameraWatch
from scrfd_ros.node.clock import STEADY, ClockWatch, stamp_now
from scrfd_ros.node.diagnostics import Problem, camera_status, gallery_status, idle_status
from scrfd_ros.node.parameters import LiveConfig
from scrfd_ros.node.reminders import Reminders
from scrfd_ros.pipeline import FacePipeline

_PERIOD = 1.0  # seconds


class Monitor:
    """Watches a node's clock, cameras and gallery, whatever the states of node and ROS time are.

    To be used by the executor's thread.

    Args:
        node: in whose log the problems are reported.
        idle: why the node is not active.
    """

    def __init__(self, node: LifecycleNode, idle: Problem) -> None:
        self._node = node
        self._idle = idle
        self._pipeline: FacePipeline | None = None
        self._config: LiveConfig | None = None
        self._watches: list[CameraWatch] = []
        self._clock_watch = ClockWatch()
        self._reminders = Reminders()
        # Not a lifecycle publisher, which is silent while the node is not active.
        self._publisher: Publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.publish()
        node.create_timer(_PERIOD, self._look, clock=STEADY)

    def start(self, cameras: Sequence[Camera], pipeline: FacePipeline, config: LiveConfig) -> None:
        """Report on cameras from now on: the node is active."""
        self._watches = [CameraWatch(self._node, camera) for camera in cameras]
        self._pipeline = pipeline
        self._config = config

    def stop(self) -> None:
        """No longer report on cameras: the node is not active."""
        self._watches = []
        self._pipeline = None
        self._config = None

    def report_idle(self, idle: Problem) -> None:
        """Say why the node is not active, now and as long as it is not."""
        self._idle = idle
        self.publish()

    def publish(self) -> None:
        """Publish the diagnostics."""
        name = self._node.get_fully_qualified_name().removeprefix("/")
        if self._pipeline is not None and self._config is not None:
            limits = self._config.current().diagnostics
            states = [
                camera_status(watch.camera, self._pipeline, name, limits) for watch in self._watches
            ]
            if self._pipeline.identifier is not None:
                states.append(gallery_status(self._pipeline.identifier.gallery, name))
        else:
            cameras = self._node.get_parameter("cameras").value
            states = [idle_status(camera, name, self._idle) for camera in cameras]
        header = Header(stamp=stamp_now(self._node))
        self._publisher.publish(DiagnosticArray(header=header, status=states))

    def _look(self) -> None:
        now = time.monotonic()
        clock = self._node.get_clock()
        ros_time = clock.now().nanoseconds if clock.ros_time_is_active else None
        problem = self._clock_watch.look(now, ros_time, self._node.count_publishers("/clock"))
        if problem and self._reminders.is_due("clock", problem, now):
            self._node.get_logger().warning(problem)
        if self._pipeline is not None and self._pipeline.identifier is not None:
            away = self._pipeline.identifier.gallery.state
            if away and self._reminders.is_due("gallery", away, now):
                self._node.get_logger().warning(f"gallery: {away}")
        if self._config is not None:
            stale_after = self._config.current().diagnostics.stale_after
            for watch in self._watches:
                watch.camera.counts.warn("clock", problem)
                watch.look(now, stale_after, self._clock_watch.is_paused)
        self.publish()
