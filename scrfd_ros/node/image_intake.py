# SPDX-License-Identifier: Apache-2.0
"""From the cameras' topics to the worker: when images are taken in, and which are dropped."""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.node import Node
from rclpy.timer import Timer

from scrfd_ros.node.camera import Camera, ReceivedImage
from scrfd_ros.node.clock import STEADY
from scrfd_ros.node.counts import Counts
from scrfd_ros.node.worker import Worker

_LAZY_PERIOD = 0.25  # seconds between looks for subscribers


class ImageIntake:
    """Takes in the images of cameras and hands them to the worker.

    Args:
        node: whose subscriptions these are.
        is_lazy: take a camera's images in only while somebody subscribes to a result of it.
    """

    def __init__(
        self,
        node: Node,
        cameras: Sequence[Camera],
        worker: Worker[Camera, ReceivedImage],
        is_lazy: bool,
    ) -> None:
        self._node = node
        self._cameras = cameras
        self._worker = worker
        self._is_lazy = is_lazy
        self._timer: Timer | None = None
        for camera in cameras:
            camera.counts = Counts()

    def start(self) -> None:
        """Subscribe to images, now or as soon as they are wanted."""
        if self._is_lazy:
            self._timer = self._node.create_timer(
                _LAZY_PERIOD, self._subscribe_if_wanted, clock=STEADY
            )
            self._node.get_logger().info(
                "lazy: images are taken in while somebody subscribes to results"
            )
        else:
            for camera in self._cameras:
                self._subscribe(camera)

    def stop(self) -> None:
        """Take no more images in, wait for the image in hand, and log the counts.

        Raises:
            Stopped: see `Worker.finish`.
        """
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None
        for camera in self._cameras:
            camera.unsubscribe()
        self._drop_waiting()
        self._worker.finish()
        self._log_counts()

    def abandon(self) -> None:
        """Log the counts, when the worker has been stopped and the node is about to end."""
        self._drop_waiting()
        self._log_counts()

    def _subscribe(self, camera: Camera) -> None:
        camera.subscribe(self._take)
        self._node.get_logger().info(f"waiting for images on {camera.topic}")

    def _subscribe_if_wanted(self) -> None:
        for camera in self._cameras:
            are_wanted = camera.results.are_wanted
            if are_wanted and not camera.is_subscribed:
                self._subscribe(camera)
            elif not are_wanted and camera.is_subscribed:
                camera.unsubscribe()
                self._node.get_logger().info(
                    f"no subscriber to results of {camera.topic}: its images are not taken in"
                )

    def _take(self, camera: Camera, image: ReceivedImage) -> None:
        if self._worker.offer(camera, image):
            camera.counts.drop()

    def _drop_waiting(self) -> None:
        for camera in self._worker.discard():
            camera.counts.drop()

    def _log_counts(self) -> None:
        for camera in self._cameras:
            name = camera.name or "images"
            self._node.get_logger().info(f"{name}: {camera.counts.snapshot()}")
