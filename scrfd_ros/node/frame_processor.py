# SPDX-License-Identifier: Apache-2.0
"""From received images to published faces, on the worker's thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from builtin_interfaces.msg import Time
from rclpy.node import Node
from std_msgs.msg import Header

from scrfd_ros.images.decoded import DecodedImage
from scrfd_ros.images.serialized import parse_image
from scrfd_ros.node.camera import Camera, ReceivedImage
from scrfd_ros.node.error_reports import reason_of
from scrfd_ros.node.images import decode_message
from scrfd_ros.node.parameters import LiveConfig
from scrfd_ros.node.reminders import Reminders
from scrfd_ros.node.results import ImageResult
from scrfd_ros.pipeline import FacePipeline, Frame, Result
from scrfd_ros.tracking.frame_clock import FrameTime

_SKIPPED_PERIOD = 5.0  # seconds between errors about images of one camera


class _CameraFrame(NamedTuple):
    """A decoded image of a camera."""

    camera: Camera
    header: Header
    time: FrameTime
    image: DecodedImage

    @property
    def frame(self) -> Frame:
        return Frame(self.image, self.camera.tracker, *self.time)


class FrameProcessor:
    """Finds the faces in images of cameras, publishes them, and counts what becomes of each image.

    An image that cannot be handled is skipped, whatever a network or library raises.

    Args:
        node: in whose log skipped and damaged images are reported.
        config: the pipeline's, with the live parameters of each moment.
        is_ending: whether errors no longer matter, as the publishers may be gone.
    """

    def __init__(
        self,
        node: Node,
        config: LiveConfig,
        pipeline: FacePipeline,
        is_ending: Callable[[], bool],
    ) -> None:
        self._node = node
        self._config = config
        self._pipeline = pipeline
        self._is_ending = is_ending
        self._reminders_of_skipped = Reminders(_SKIPPED_PERIOD)
        self._reminders_of_damage = Reminders()

    def process(self, images: Sequence[tuple[Camera, ReceivedImage]]) -> None:
        """Handle images of different cameras together."""
        config = self._config.current()
        if config is not self._pipeline.config:
            self._pipeline.config = config
        frames: list[_CameraFrame] = []
        for camera, received in images:
            try:
                frames.append(self._read(camera, received))
            except Exception as error:
                self._skip(camera, error)
        if frames:
            self._run(frames)

    def _read(self, camera: Camera, received: ReceivedImage) -> _CameraFrame:
        message = received.message
        if isinstance(message, bytes):
            image = parse_image(message)
            stamp = Time(sec=image.seconds, nanosec=image.nanoseconds)
            header = Header(stamp=stamp, frame_id=image.frame_id)
        else:
            image, header = message, message.header
        time = camera.time_of(header.stamp, received.arrival)
        # ROS4HRI's aligned faces are cut out of every image.
        fit = None if self._config.current().hri else self._pipeline.fit(camera.tracker)
        return _CameraFrame(camera, header, time, decode_message(image, camera.rotation, fit))

    def _run(self, frames: Sequence[_CameraFrame]) -> None:
        try:
            results = self._pipeline.run([each.frame for each in frames])
        except Exception as error:
            if len(frames) == 1:
                self._skip(frames[0].camera, error)
            else:  # one by one, so that no camera fails for another
                for each in frames:
                    self._run([each])
            return
        for each, result in zip(frames, results, strict=True):
            try:
                self._finish(each, result)
            except Exception as error:
                self._skip(each.camera, error)

    def _finish(self, frame: _CameraFrame, result: Result) -> None:
        camera, damage = frame.camera, frame.image.damage
        camera.results.publish(
            ImageResult(frame.header, frame.time, frame.image, result.faces, self._pipeline)
        )
        now = time.monotonic()
        camera.counts.finish(now, result.milliseconds)
        if damage:
            if self._reminders_of_damage.is_due(camera.topic, "", now):
                self._node.get_logger().warning(f"{camera.topic}: used, but {damage}")
            camera.counts.damage(now, damage)

    def _skip(self, camera: Camera, error: Exception) -> None:
        if self._is_ending():
            return
        now = time.monotonic()
        reason = f"image skipped: {reason_of(error)}"
        if self._reminders_of_skipped.is_due(camera.topic, "", now):
            self._node.get_logger().error(f"{camera.topic}: {reason}")
        camera.counts.fail(now, reason)
