# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 node: images in, faces out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleState
from rclpy.lifecycle import TransitionCallbackReturn as Transition
from rclpy.timer import Timer
from std_msgs.msg import Header

from scrfd_ros.errors import ScrfdError
from scrfd_ros.images.decoded import DecodedImage
from scrfd_ros.images.drawing import draw_faces
from scrfd_ros.images.serialized import parse_image
from scrfd_ros.messages.faces import ModelNames, detection_array, face_array
from scrfd_ros.node.camera import Camera, ImageMessage
from scrfd_ros.node.clock import STEADY, stamp_now
from scrfd_ros.node.config import NodeConfig
from scrfd_ros.node.counts import Counts
from scrfd_ros.node.diagnostics import Problem
from scrfd_ros.node.error_reports import reason_of
from scrfd_ros.node.guarded_executor import guard_services
from scrfd_ros.node.images import decode_message, image_message
from scrfd_ros.node.lifecycle import GuardedLifecycleNode, explained
from scrfd_ros.node.log_bridge import LogBridge
from scrfd_ros.node.messages import check_definitions, label_info, vision_info
from scrfd_ros.node.monitor import Monitor
from scrfd_ros.node.parameters import LiveConfig, declare_parameters
from scrfd_ros.node.reminders import Reminders
from scrfd_ros.node.unused_arguments import warn_of_unused_qos
from scrfd_ros.node.worker import Worker
from scrfd_ros.pipeline import FacePipeline, Frame, Result, load_pipeline
from scrfd_ros.tracking.frame_clock import FrameTime

if TYPE_CHECKING:  # needs hri_msgs
    from scrfd_ros.node.hri import HumanFaces

_SKIPPED_PERIOD = 5.0  # seconds between errors about images of one camera
_LAZY_PERIOD = 0.25  # seconds between looks for subscribers
_PATIENCE = 1.0  # seconds that work in hand may take when the node is to end


class FaceNode(GuardedLifecycleNode):
    """Publishes the faces in the images of one or several cameras.

    The executor's thread only takes images in and answers services; loading the networks and
    running them is a `Worker`'s business. While that is busy, a newer image replaces the one
    of the same camera that waits. A transition ends when its work is done: services wait for a
    configure, and a deactivate for the image in hand.

    Raises:
        ScrfdError: a parameter has a value that can never work.
    """

    def __init__(self) -> None:
        super().__init__("face_node")
        self._log_bridge = LogBridge(self.get_logger())
        guard_services(self)
        declare_parameters(self)
        self._worker: Worker[Camera, tuple[ImageMessage, int]] = Worker(self._find_faces)
        self.is_idle = True  # of a node that has been destroyed: whether its work was done
        self._config: LiveConfig | None = None
        self._pipeline: FacePipeline | None = None
        self._cameras: list[Camera] = []
        self._humans: HumanFaces | None = None
        self._is_active = False
        self._lazy_timer: Timer | None = None
        self._reminders_of_skipped = Reminders(_SKIPPED_PERIOD)
        self._reminders_of_damage = Reminders()
        self._monitor = Monitor(self, Problem(DiagnosticStatus.WARN, self._not_configured))

    def start(self) -> None:
        """Configure and activate, if the parameters say so."""
        if not self.get_parameter("autostart").value:
            return
        if (
            self.trigger_configure() != Transition.SUCCESS
            or self.trigger_activate() != Transition.SUCCESS
        ):
            name = self.get_fully_qualified_name()
            self.get_logger().error(
                f"not configured, waiting. When the cause is removed, start the node again, or: "
                f"ros2 lifecycle set {name} configure; ros2 lifecycle set {name} activate"
            )

    @explained("configure", Transition.FAILURE)
    def on_configure(self, state: LifecycleState) -> Transition:
        self.report_idle(DiagnosticStatus.WARN, "configuring: loading the networks")
        check_definitions()
        self._config = LiveConfig(self)
        config = self._config.current()
        self._humans = _human_faces(self, config)
        self._pipeline = self._worker.call(
            lambda: load_pipeline(config, max_images=len(config.cameras))
        )
        self._worker.max_batch = self._pipeline.detector.batch
        compressed = config.image_transport == "compressed"
        for name, rotation in config.rotations.items():
            tracker = self._pipeline.new_tracker()
            self._cameras.append(Camera(self, name, compressed, tracker, rotation))
        warn_of_unused_qos(
            self, (name for camera in self._cameras for name in camera.subscription_parameters)
        )
        if self._pipeline.warning:
            self.get_logger().warning(self._pipeline.warning)
        detector, recognizer = self._pipeline.detector.network, self._pipeline.recognizer
        self.get_logger().info(
            f"detector {detector.path.name} on {detector.backend}, "
            + (
                f"recognizer {recognizer.network.path.name} on {recognizer.network.backend}"
                if recognizer
                else "no recognizer"
            )
        )
        self.report_idle(DiagnosticStatus.WARN, self._inactive)
        return super().on_configure(state)

    @explained("activate")
    def on_activate(self, state: LifecycleState) -> Transition:
        result = super().on_activate(state)
        assert self._pipeline is not None and self._config is not None
        self._pipeline.config = self._config.current()
        header = Header(stamp=stamp_now(self))
        for camera in self._cameras:
            camera.counts = Counts()
            camera.publish_info(
                vision_info(self._pipeline, header), label_info(self._pipeline, header)
            )
        self._monitor.start(self._cameras, self._pipeline, self._config)
        self._is_active = True
        if self.get_parameter("lazy").value:
            self._lazy_timer = self.create_timer(
                _LAZY_PERIOD, self._subscribe_if_wanted, clock=STEADY
            )
            self.get_logger().info("lazy: images are taken in while somebody subscribes to results")
        else:
            for camera in self._cameras:
                self._subscribe(camera)
        return result

    @explained("deactivate")
    def on_deactivate(self, state: LifecycleState) -> Transition:
        self._stop_images()
        self.report_idle(DiagnosticStatus.WARN, self._inactive)
        return super().on_deactivate(state)

    @explained("clean up")
    def on_cleanup(self, state: LifecycleState) -> Transition:
        self.release()
        self.report_idle(DiagnosticStatus.WARN, self._not_configured)
        return super().on_cleanup(state)

    @explained("shut down")
    def on_shutdown(self, state: LifecycleState) -> Transition:
        self.release()
        self.report_idle(DiagnosticStatus.WARN, "shut down: to use it, start the node again")
        return super().on_shutdown(state)

    @explained("recover from the error")
    def on_error(self, state: LifecycleState) -> Transition:
        self.release()  # why is told already
        return super().on_error(state)

    def release(self) -> None:
        """Stop and forget what configuring and activating have made."""
        self._stop_images()
        for camera in self._cameras:
            camera.destroy()
        self._cameras = []
        if self._humans is not None:
            self._humans.destroy()
            self._humans = None
        self._pipeline = None

    def end(self) -> None:
        """Have a transition that is being waited for, or asked for from now on, raise `Stopped`."""
        self._worker.stop(0)

    def destroy_node(self) -> None:
        self.is_idle = self._worker.stop(_PATIENCE)
        if self._is_active:
            self._drop_waiting()
            self._log_counts()
        self._log_bridge.close()
        super().destroy_node()

    def _subscribe(self, camera: Camera) -> None:
        camera.subscribe(self._take)
        self.get_logger().info(f"waiting for images on {camera.topic}")

    def _subscribe_if_wanted(self) -> None:
        all_are_wanted = self._humans is not None and self._humans.is_wanted
        for camera in self._cameras:
            is_wanted = all_are_wanted or camera.is_wanted
            if is_wanted and not camera.is_subscribed:
                self._subscribe(camera)
            elif not is_wanted and camera.is_subscribed:
                camera.unsubscribe()
                self.get_logger().info(f"nobody wants results of {camera.topic}")

    def _take(self, camera: Camera, image: ImageMessage, arrival: int) -> None:
        if self._worker.offer(camera, (image, arrival)):
            camera.counts.drop()

    def _drop_waiting(self) -> None:
        for camera in self._worker.discard():
            camera.counts.drop()

    def _stop_images(self) -> None:
        if not self._is_active:
            return
        if self._lazy_timer is not None:
            self.destroy_timer(self._lazy_timer)
            self._lazy_timer = None
        for camera in self._cameras:
            camera.unsubscribe()
        self._drop_waiting()
        self._worker.finish()
        self._is_active = False
        self._monitor.stop()
        self._log_counts()

    def _log_counts(self) -> None:
        for camera in self._cameras:
            name = camera.name or "images"
            self.get_logger().info(f"{name}: {camera.counts.snapshot()}")

    @property
    def _not_configured(self) -> str:
        return f"not configured: ros2 lifecycle set {self.get_fully_qualified_name()} configure"

    @property
    def _inactive(self) -> str:
        return f"not active: ros2 lifecycle set {self.get_fully_qualified_name()} activate"

    def report_idle(self, level: bytes, sentence: str) -> None:
        self._monitor.report_idle(Problem(level, sentence))

    def _find_faces(self, images: list[tuple[Camera, tuple[ImageMessage, int]]]) -> None:
        """Handle images of different cameras, on the worker's thread, while the node is active."""
        assert self._pipeline is not None and self._config is not None
        config = self._config.current()
        if config is not self._pipeline.config:
            self._pipeline.config = config
        taken: list[_Taken] = []
        for camera, (image, arrival) in images:
            # One image must not stop a robot's node, whatever a network or library makes of it.
            try:
                taken.append(self._read(camera, image, arrival))
            except Exception as error:
                self._skip(camera, error)
        if taken:
            self._answer(taken)

    def _answer(self, taken: list[_Taken]) -> None:
        assert self._pipeline is not None
        try:
            results = self._pipeline.run([one.frame for one in taken])
        except Exception as error:
            if len(taken) == 1:
                self._skip(taken[0].camera, error)
            else:  # one by one, so that no camera fails for another
                for one in taken:
                    self._answer([one])
            return
        for one, result in zip(taken, results, strict=True):
            try:
                self._publish(one, result)
            except Exception as error:
                self._skip(one.camera, error)

    def _publish(self, taken: _Taken, result: Result) -> None:
        assert self._pipeline is not None
        camera, header = taken.camera, taken.header
        faces = taken.decoded.restore(result.faces)
        camera.detections.publish(detection_array(faces, header))
        models = ModelNames.of(self._pipeline)
        camera.faces.publish(face_array(faces, header, models))
        if camera.overlay.get_subscription_count() > 0:
            overlay = draw_faces(taken.decoded.image, taken.decoded.turn_back(result.faces))
            camera.overlay.publish(image_message(overlay, header))
        camera.publish_annotations(faces, header)
        if self._humans is not None:
            self._humans.publish(camera.name, faces, taken.decoded.image, header, taken.time)
        camera.counts.finish(time.monotonic(), result.milliseconds)
        if taken.decoded.damage:
            if self._reminders_of_damage.is_due(camera.topic, "", time.monotonic()):
                self.get_logger().warning(f"{camera.topic}: used, but {taken.decoded.damage}")
            camera.counts.damage(time.monotonic(), taken.decoded.damage)

    def _skip(self, camera: Camera, error: Exception) -> None:
        if self._worker.is_stopped:  # and the publishers may be gone: not an error
            return
        reason = f"image skipped: {reason_of(error)}"
        if self._reminders_of_skipped.is_due(camera.topic, "", time.monotonic()):
            self.get_logger().error(f"{camera.topic}: {reason}")
        camera.counts.fail(time.monotonic(), reason)

    def _read(self, camera: Camera, image: ImageMessage, arrival: int) -> _Taken:
        assert self._pipeline is not None
        if isinstance(image, bytes):
            message = parse_image(image)
            stamp = Time(sec=message.seconds, nanosec=message.nanoseconds)
            header = Header(stamp=stamp, frame_id=message.frame_id)
        else:
            message, header = image, image.header
        time = _frame_time(camera, header, arrival)
        # ROS4HRI's aligned faces are cut out of the image too.
        fit = self._pipeline.fit if self._humans is None else None
        return _Taken(camera, header, time, decode_message(message, camera.rotation, fit))


class _Taken(NamedTuple):
    """A decoded image of a camera, with its header and time."""

    camera: Camera
    header: Header
    time: FrameTime
    decoded: DecodedImage

    @property
    def frame(self) -> Frame:
        return Frame(self.decoded.upright, self.camera.tracker, *self.time)


def _frame_time(camera: Camera, header: Header, arrival: int) -> FrameTime:
    """When an image was taken; once for each image, as this moves the camera's clock on."""
    if camera.tracker is None:
        return FrameTime(0, 0)
    time = camera.clock.time_of(header.stamp.sec, header.stamp.nanosec, arrival)
    camera.counts.warn("stamps", camera.clock.problem)
    return time


def _human_faces(node: FaceNode, config: NodeConfig) -> HumanFaces | None:
    """What publishes faces for ROS4HRI, if it is switched on.

    Raises:
        ScrfdError: hri_msgs is missing.
    """
    if not config.hri:
        return None
    try:
        from scrfd_ros.node.hri import HumanFaces
    except ImportError as error:
        raise ScrfdError(
            f"hri is true, but the ROS 2 package hri_msgs, 2.0 or newer, is missing ({error}): "
            f"install or build it and source its workspace, or set hri to false"
        ) from error
    return HumanFaces(node, config.tracking.max_age)
