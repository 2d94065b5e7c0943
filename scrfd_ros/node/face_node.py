# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 node: images in, faces out."""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rclpy.exceptions import (
    InvalidParameterValueException,
    NameValidationException,
    ParameterException,
)
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.lifecycle import LifecycleNode, LifecycleState
from rclpy.lifecycle import TransitionCallbackReturn as Transition
from rclpy.publisher import Publisher
from rclpy.signals import SignalHandlerOptions
from rclpy.timer import Timer
from std_msgs.msg import Header

from scrfd_ros.errors import ScrfdError
from scrfd_ros.faces import Faces
from scrfd_ros.files import keep_others_from_writing
from scrfd_ros.images.compressed import bgr_from_compressed
from scrfd_ros.images.drawing import draw_faces
from scrfd_ros.images.orientation import in_original_image, size_before_turn, upright
from scrfd_ros.images.serialized import parse_image
from scrfd_ros.node.allocator import keep_freed_memory
from scrfd_ros.node.camera import Camera, Counts, ImageMessage
from scrfd_ros.node.clock import STEADY, ClockWatch, stamp_now
from scrfd_ros.node.diagnostics import Problem, camera_status, idle_status
from scrfd_ros.node.fence import FencedExecutor, fence_services, tell
from scrfd_ros.node.given import (
    bad_params_file,
    for_other_nodes,
    ignored_arguments,
    is_qos_override,
    unused_parameters,
)
from scrfd_ros.node.images import bgr_from_image, image_message
from scrfd_ros.node.messages import detection_array, face_array, label_info, vision_info
from scrfd_ros.node.parameters import (
    apply_live_parameters,
    configured_cameras,
    configured_human_faces,
    configured_pipeline,
    configured_tracker,
    declare_parameters,
    diagnostic_limits,
)
from scrfd_ros.node.signals import call_at_signal
from scrfd_ros.node.watch import Reminders, Watch
from scrfd_ros.node.worker import Stopped, Worker
from scrfd_ros.pipeline import FacePipeline, Frame, Result
from scrfd_ros.tracking.frame_clock import FrameTime

if TYPE_CHECKING:  # needs hri_msgs
    from scrfd_ros.node.hri import HumanFaces

_SKIPPED_PERIOD = 5.0  # seconds between errors about images of one camera
_DAMAGE_PERIOD = 10.0  # seconds that the diagnostics tell of a damaged image
_DIAGNOSTICS_PERIOD = 1.0  # seconds
_LAZY_PERIOD = 0.25  # seconds between looks for subscribers
_LOG_PERIOD = 5.0  # seconds between repeats of one message
_PATIENCE = 1.0  # seconds that work in hand may take when the node is to end
# Seconds in which a finalized node still answers: who asked for it, as the lifecycle manager of
# Nav2, may look whether it is.
_LAST_ANSWERS = 2.0

_Step = Callable[["FaceNode", LifecycleState], Transition]
_EXPECTED = (ScrfdError, OSError, ParameterException, NameValidationException)


def _saying_why(verb: str, otherwise: Transition = Transition.ERROR) -> Callable[[_Step], _Step]:
    """Have a transition that raises say why, undo what was begun, and fail: rclpy says nothing.

    Args:
        verb: what the node cannot do then.
        otherwise: the outcome; with ERROR, rclpy calls on_error().
    """

    def decorate(function: _Step) -> _Step:
        @functools.wraps(function)
        def step(node: FaceNode, state: LifecycleState) -> Transition:
            try:
                return function(node, state)
            except Exception as error:
                reason = _reason(error)
                node.get_logger().error(f"cannot {verb}: {reason}")
                if not isinstance(error, _EXPECTED):
                    tell(node, verb, error)
            try:
                node.release()
            except Exception as error:
                tell(node, f"after it cannot {verb}", error)
                return Transition.ERROR
            what = "not configured" if verb == "configure" else f"not configured, cannot {verb}"
            node.is_idle_because(DiagnosticStatus.ERROR, f"{what}: {reason}")
            return otherwise

        return step

    return decorate


class FaceNode(LifecycleNode):
    """Publishes the faces in the images of one or several cameras.

    The executor's thread only takes images in and answers services; loading the networks and
    running them is a `Worker`'s business. While that is busy, a newer image replaces the one
    of the same camera that waits. A transition ends when its work is done: services wait for a
    configure, and a deactivate for the image in hand.

    Args:
        arguments: of the command line, to tell which of them miss this node; rclpy has its own.

    Raises:
        ScrfdError: a parameter has a value that can never work.
    """

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        super().__init__("face_node")
        self._log_handler = _RosLogHandler(self.get_logger())
        logging.getLogger("scrfd_ros").addHandler(self._log_handler)
        logging.getLogger("scrfd_ros").setLevel(logging.INFO)
        fence_services(self)
        declare_parameters(self)
        self._tell_what_is_unused(arguments)
        self.final_status: int | None = None  # once the lifecycle is at its end: of the process
        self._worker: Worker[Camera, tuple[ImageMessage, int]] = Worker(self._find_faces)
        self.is_idle = True  # of a node that has been destroyed: whether its work was done
        self._pipeline: FacePipeline | None = None
        self._cameras: list[Camera] = []
        self._humans: HumanFaces | None = None
        self._is_active = False
        self._lazy_timer: Timer | None = None
        self._watches: list[Watch] = []
        self._clock_watch = ClockWatch()
        self._reminders = Reminders()
        self._reminders_of_skipped = Reminders(_SKIPPED_PERIOD)
        self._reminders_of_damage = Reminders()
        # Not a lifecycle publisher: a node that is not active should say so.
        self._diagnostics: Publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.is_idle_because(DiagnosticStatus.WARN, self._not_configured)
        self.create_timer(_DIAGNOSTICS_PERIOD, self._look_after_itself, clock=STEADY)

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

    @_saying_why("configure", Transition.FAILURE)
    def on_configure(self, state: LifecycleState) -> Transition:
        self.is_idle_because(DiagnosticStatus.WARN, "configuring: loading the networks")
        self._humans = configured_human_faces(self)
        self._pipeline = self._worker.call(lambda: configured_pipeline(self))
        self._worker.max_batch = self._pipeline.detector.batch
        compressed = self.get_parameter("image_transport").value == "compressed"
        for name, rotation in configured_cameras(self).items():
            tracker = configured_tracker(self)
            self._cameras.append(Camera(self, name, compressed, tracker, rotation))
        self._tell_unused_qos()
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
        self.is_idle_because(DiagnosticStatus.WARN, self._inactive)
        return super().on_configure(state)

    @_saying_why("activate")
    def on_activate(self, state: LifecycleState) -> Transition:
        result = super().on_activate(state)
        assert self._pipeline is not None
        apply_live_parameters(self, self._pipeline)
        header = Header(stamp=stamp_now(self))
        for camera in self._cameras:
            camera.counts = Counts()
            camera.publish_info(
                vision_info(self._pipeline, header), label_info(self._pipeline, header)
            )
        self._watches = [Watch(self, camera) for camera in self._cameras]
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

    @_saying_why("deactivate")
    def on_deactivate(self, state: LifecycleState) -> Transition:
        self._stop_images()
        self.is_idle_because(DiagnosticStatus.WARN, self._inactive)
        return super().on_deactivate(state)

    @_saying_why("clean up")
    def on_cleanup(self, state: LifecycleState) -> Transition:
        self.release()
        self.is_idle_because(DiagnosticStatus.WARN, self._not_configured)
        return super().on_cleanup(state)

    @_saying_why("shut down")
    def on_shutdown(self, state: LifecycleState) -> Transition:
        self.release()
        self.is_idle_because(DiagnosticStatus.WARN, "shut down: to use it, start the node again")
        return super().on_shutdown(state)

    @_saying_why("recover from the error")
    def on_error(self, state: LifecycleState) -> Transition:
        self.release()  # why is told already
        return super().on_error(state)

    def _LifecycleNodeMixin__change_state(self, transition_id: int) -> Transition:
        # All transitions pass here, those at start and those that are asked for. rclpy (Humble and
        # Jazzy) lets the request for one that the present state does not have end the process.
        machine = self._state_machine
        if transition_id not in {transition[0] for transition in machine.available_transitions}:
            self.get_logger().error(
                f"transition {transition_id} refused: there is none of that number from the state "
                f"{machine.current_state[1]}",
                throttle_duration_sec=_LOG_PERIOD,
            )
            return Transition.FAILURE
        result = super()._LifecycleNodeMixin__change_state(transition_id)
        if machine.current_state[1] == "finalized":
            self.final_status = 0 if result == Transition.SUCCESS else 1
            self.get_logger().info("finalized: from here no transition leads, the process ends")
        return result

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

    def _tell_what_is_unused(self, arguments: Sequence[str]) -> None:
        for sentence in (
            *for_other_nodes(arguments, self.get_fully_qualified_name()),
            *unused_parameters(
                (name for name in self._parameter_overrides if not is_qos_override(name)),
                self.get_parameters_by_prefix(""),
            ),
        ):
            self.get_logger().warning(sentence)
        ignored = ignored_arguments(arguments)
        if ignored:
            self.get_logger().warning(
                f"ignored: {' '.join(ignored)}. Write parameters as: --ros-args -p name:=value"
            )

    def _tell_unused_qos(self) -> None:
        """Once the topics are known: the QoS of topics that are not there or do not take it."""
        known = set(self.get_parameters_by_prefix(""))
        for camera in self._cameras:
            known.update(camera.subscription_parameters)
        for sentence in unused_parameters(
            filter(is_qos_override, self._parameter_overrides), known
        ):
            self.get_logger().warning(sentence)

    def end(self) -> None:
        """Have a transition that is being waited for, or asked for from now on, raise `Stopped`."""
        self._worker.stop(0)

    def destroy_node(self) -> None:
        self.is_idle = self._worker.stop(_PATIENCE)
        if self._is_active:
            self._drop_waiting()
            self._log_counts()
        logging.getLogger("scrfd_ros").removeHandler(self._log_handler)
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
            camera.drop()

    def _drop_waiting(self) -> None:
        for camera in self._worker.discard():
            camera.drop()

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
        self._watches = []
        self._log_counts()

    def _log_counts(self) -> None:
        for camera in self._cameras:
            with camera.lock:
                counts = camera.counts
                lost = "unknown how many" if counts.lost is None else counts.lost
                told = (
                    f"{counts.handled} handled, {counts.dropped} dropped for newer ones, "
                    f"{counts.failed} skipped, {lost} lost on the way"
                )
                if counts.damaged:
                    told += f", {counts.damaged} damaged"
                if counts.in_hand:
                    told += f", {counts.in_hand} not finished"
            self.get_logger().info(f"{camera.name or 'images'}: {told}")

    @property
    def _not_configured(self) -> str:
        return f"not configured: ros2 lifecycle set {self.get_fully_qualified_name()} configure"

    @property
    def _inactive(self) -> str:
        return f"not active: ros2 lifecycle set {self.get_fully_qualified_name()} activate"

    def is_idle_because(self, level: bytes, sentence: str) -> None:
        """Say so in the diagnostics, now and as long as the node is not active."""
        self._idleness = Problem(level, sentence)
        self._publish_diagnostics()

    def _look_after_itself(self) -> None:
        """What is done once a second, whatever the state of the node and ROS time are."""
        now = time.monotonic()
        clock = self.get_clock()
        ros_time = clock.now().nanoseconds if clock.ros_time_is_active else None
        problem = self._clock_watch.look(now, ros_time, self.count_publishers("/clock"))
        if problem and self._reminders.is_due("clock", problem, now):
            self.get_logger().warning(problem)
        if self._is_active:
            stale_after = diagnostic_limits(self).stale_after
            for camera, watch in zip(self._cameras, self._watches, strict=True):
                camera.warn("clock", problem)
                watch.look(now, stale_after, self._clock_watch.is_paused)
        self._publish_diagnostics()

    def _publish_diagnostics(self) -> None:
        name = self.get_fully_qualified_name().removeprefix("/")
        if self._is_active:
            assert self._pipeline is not None
            limits = diagnostic_limits(self)
            states = [
                camera_status(camera, self._pipeline, name, limits) for camera in self._cameras
            ]
        else:
            cameras = self.get_parameter("cameras").value
            states = [idle_status(camera, name, self._idleness) for camera in cameras]
        header = Header(stamp=stamp_now(self))
        self._diagnostics.publish(DiagnosticArray(header=header, status=states))

    def _find_faces(self, images: list[tuple[Camera, tuple[ImageMessage, int]]]) -> None:
        """Handle images of different cameras, on the worker's thread, while the node is active."""
        assert self._pipeline is not None
        apply_live_parameters(self, self._pipeline)
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
        faces = taken.in_it(result.faces, taken.reduction)
        detections = detection_array(faces, header)
        camera.detections.publish(detections)
        camera.faces.publish(face_array(detections, faces, self._pipeline))
        if camera.overlay.get_subscription_count() > 0:
            overlay = draw_faces(taken.image, taken.in_it(result.faces, 1))
            camera.overlay.publish(image_message(overlay, header))
        camera.publish_annotations(faces, header)
        if self._humans is not None:
            self._humans.publish(camera.name, faces, taken.image, header, taken.time)
        with camera.lock:
            counts = camera.counts
            counts.reason = ""
            counts.handled += 1
            counts.busy_since = time.monotonic()
            counts.outputs.append(counts.busy_since)
            counts.milliseconds = result.milliseconds
        self._tell_damage(camera, taken.damage)

    def _tell_damage(self, camera: Camera, damage: str) -> None:
        """Count an image that was used although its data is damaged, and say so for some time."""
        counts = camera.counts
        if damage:
            if self._reminders_of_damage.is_due(camera.topic, "", time.monotonic()):
                self.get_logger().warning(f"{camera.topic}: used, but {damage}")
            with camera.lock:
                counts.damaged += 1
                counts.damaged_until = time.monotonic() + _DAMAGE_PERIOD
                counts.warnings["damage"] = (
                    f"{counts.damaged} of {counts.handled} images damaged, the last: {damage}"
                )
        elif "damage" in counts.warnings and time.monotonic() > counts.damaged_until:
            with camera.lock:
                del counts.warnings["damage"]

    def _skip(self, camera: Camera, error: Exception) -> None:
        if self._worker.is_stopped:  # and the publishers may be gone: not an error
            return
        reason = f"image skipped: {_reason(error)}"
        if self._reminders_of_skipped.is_due(camera.topic, "", time.monotonic()):
            self.get_logger().error(f"{camera.topic}: {reason}")
        with camera.lock:
            camera.counts.reason = camera.counts.last_reason = reason
            camera.counts.busy_since = time.monotonic()
            camera.counts.failed += 1

    def _read(self, camera: Camera, image: ImageMessage, arrival: int) -> _Taken:
        assert self._pipeline is not None
        if isinstance(image, bytes):
            read = parse_image(image)
            stamp = Time(sec=read.seconds, nanosec=read.nanoseconds)
            header = Header(stamp=stamp, frame_id=read.frame_id)
            time = _frame_time(camera, header, arrival)
            return _Taken(camera, header, time, bgr_from_image(read), 1, "")
        time = _frame_time(camera, image.header, arrival)
        # Smaller images are decoded faster; but faces and tiles are cut out of the whole one.
        detector = self._pipeline.detector
        is_cut = (
            self._pipeline.recognizer is not None
            or self._humans is not None
            or detector.tiles != (1, 1)
        )
        smallest = size_before_turn(detector.input_size, camera.rotation)
        found = bgr_from_compressed(image.format, image.data, None if is_cut else smallest)
        return _Taken(camera, image.header, time, *found)


class _Taken(NamedTuple):
    """An image as an image: see `scrfd_ros.images.encodings.DecodedImage`."""

    camera: Camera
    header: Header
    time: FrameTime
    image: NDArray[np.uint8]
    reduction: int
    damage: str

    @property
    def frame(self) -> Frame:
        image = upright(self.image, self.camera.rotation)
        return Frame(image, self.camera.tracker, *self.time)

    def in_it(self, faces: Faces, reduction: int) -> Faces:
        """The faces that were found in the frame, in pixels of the image as it was sent."""
        height, width = self.image.shape[:2]
        return in_original_image(faces, reduction, self.camera.rotation, (width, height))


def _frame_time(camera: Camera, header: Header, arrival: int) -> FrameTime:
    """When an image was taken; once for each image, as this moves the camera's clock on."""
    if camera.tracker is None:
        return FrameTime(0, 0)
    time = camera.clock.time_of(header.stamp.sec, header.stamp.nanosec, arrival)
    camera.warn("stamps", camera.clock.problem)
    return time


class _RosLogHandler(logging.Handler):
    """Hands what the rest of the package logs to the node's logger."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        # A line for each level: rclpy allows no two from one place in the code.
        if record.levelno >= logging.WARNING:
            self._logger.warning(record.getMessage())
        else:
            self._logger.info(record.getMessage())


def _reason(error: Exception) -> str:
    if isinstance(error, InvalidParameterValueException):
        # "Invalid parameter value (V) for parameter. Reason: NAME: what is wrong: NAME"
        return str(error).partition(" Reason: ")[2].rpartition(":")[0]
    return str(error) if isinstance(error, _EXPECTED) else repr(error)


_EXPECTED_ARGUMENTS = {
    "parameter override rule": "-p name:=value with a value in YAML, lists of one type",
    "remap rule": "-r from:=to, names of letters, digits, _ and /",
    "log level": "--log-level debug, info, warn, error or fatal",
}


def _plain(error: Exception) -> str:
    """What the C libraries say, on one line and without the places in their code."""
    return " ".join(re.sub(r",? at \S+:\d+", "", str(error)).split())


def _bad_arguments(error: Exception) -> str:
    """What rclpy.init() raises, as a sentence without places in the C code."""
    if isinstance(error, rclpy_implementation.UnknownROSArgsError):
        return f"unknown arguments after --ros-args: {error}; arguments of other kinds go before it"
    text = _plain(error).removeprefix("failed to initialize rcl: ")
    expected = [text for kind, text in _EXPECTED_ARGUMENTS.items() if f"parse {kind}" in str(error)]
    return "; expected: ".join([text, *expected])


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is told to stop; returns the exit status."""
    keep_freed_memory()
    keep_others_from_writing()
    arguments = sys.argv[1:] if args is None else args
    bad_file = bad_params_file(arguments)
    if bad_file:
        return _refuse(bad_file)
    try:
        # rclpy's handlers would shut ROS down in the midst of whatever is being done.
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except (rclpy_implementation.RCLError, rclpy_implementation.UnknownROSArgsError) as error:
        return _refuse(_bad_arguments(error))
    executor = FencedExecutor()
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
            node = FaceNode(arguments)
        except _EXPECTED as error:
            return _refuse(_reason(error))
        except rclpy_implementation.RCLError as error:
            return _refuse(_plain(error))
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
    assert node is not None  # otherwise there is nothing that could raise Stopped
    if not node.is_idle:
        # A network that is being built, loaded or run does not hear of the end, which may take
        # minutes to come; and Python would tear down what it uses.
        os._exit(0)
    return node.final_status or 0


def _refuse(reason: str) -> int:
    print(f"face_node: error: {reason}", file=sys.stderr)
    return 2
