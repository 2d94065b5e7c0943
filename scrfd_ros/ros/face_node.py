"""The ROS 2 node: images in, faces out."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher, LifecycleState
from rclpy.lifecycle import TransitionCallbackReturn as Transition
from rclpy.logging import get_logger
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from scrfd_ros.errors import ScrfdError
from scrfd_ros.msg import FaceArray
from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.ros.images import bgr_from_image
from scrfd_ros.ros.messages import detection_array, face_array
from scrfd_ros.ros.parameters import (
    apply_live_parameters,
    configured_pipeline,
    declare_parameters,
)
from scrfd_ros.ros.worker import Worker

IMAGE_QOS = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
"""Sensor data, newest only: matches best-effort and reliable cameras alike."""

RESULT_QOS = QoSProfile(depth=10)
"""Reliable, so that it matches every subscriber."""

_LOG_PERIOD = 5.0  # seconds between repeats of one message


class FaceNode(LifecycleNode):
    """Subscribes to `image`; publishes `detections` and `faces` for every image it works on.

    The executor's thread only takes images in and answers services; loading the networks and
    running them is a `Worker`'s business. While that is busy, a newer image replaces the one
    that waits. A transition ends when its work is done: services wait for a configure, and a
    deactivate for the image in hand.
    """

    def __init__(self) -> None:
        super().__init__("face_node")
        self._log_handler = _RosLogHandler(self.get_logger())
        logging.getLogger("scrfd_ros").addHandler(self._log_handler)
        logging.getLogger("scrfd_ros").setLevel(logging.INFO)
        declare_parameters(self)
        self._worker: Worker[Image] = Worker(self._find_faces)
        self._pipeline: FacePipeline | None = None
        self._images: Subscription | None = None
        self._detections: LifecyclePublisher | None = None
        self._faces: LifecyclePublisher | None = None

    def start(self) -> None:
        """Configure and activate, if the parameters say so."""
        if not self.get_parameter("autostart").value:
            return
        if self.trigger_configure() == Transition.SUCCESS:
            self.trigger_activate()
        elif self.context.ok():
            name = self.get_fully_qualified_name()
            self.get_logger().error(
                f"not configured, waiting. When the cause is removed, start the node again, or: "
                f"ros2 lifecycle set {name} configure; ros2 lifecycle set {name} activate"
            )

    def on_configure(self, state: LifecycleState) -> Transition:
        try:
            self._pipeline = self._worker.call(lambda: configured_pipeline(self))
        except Exception as error:  # rclpy would swallow it without a word
            self.get_logger().error(f"cannot configure: {_reason(error)}")
            return Transition.FAILURE
        if self._pipeline.warning:
            self.get_logger().warning(self._pipeline.warning)
        self._detections = self.create_lifecycle_publisher(
            Detection2DArray, "detections", RESULT_QOS
        )
        self._faces = self.create_lifecycle_publisher(FaceArray, "faces", RESULT_QOS)
        detector, recognizer = self._pipeline.detector.network, self._pipeline.recognizer
        self.get_logger().info(
            f"detector {detector.path.name} on {detector.backend}, "
            + (
                f"recogniser {recognizer.network.path.name} on {recognizer.network.backend}"
                if recognizer
                else "no recogniser"
            )
        )
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> Transition:
        result = super().on_activate(state)
        self._images = self.create_subscription(Image, "image", self._worker.offer, IMAGE_QOS)
        self.get_logger().info(f"waiting for images on {self._images.topic_name}")
        return result

    def on_deactivate(self, state: LifecycleState) -> Transition:
        self._stop_images()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> Transition:
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> Transition:
        self._release()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> Transition:
        self._release()
        return super().on_error(state)

    def _LifecycleNodeMixin__change_state(self, transition_id: int) -> Transition:
        # rclpy (Humble to Kilted) lets the request for a transition that the present state does
        # not have end the process: the exception leaves spin(). Refuse it instead.
        try:
            return super()._LifecycleNodeMixin__change_state(transition_id)
        except rclpy_implementation.RCLError as error:
            if self.context.ok():
                self.get_logger().error(f"transition {transition_id} refused: {error}")
            return Transition.FAILURE

    def destroy_node(self) -> None:
        self._worker.stop()
        if self._images is not None:
            # The node's own logger also publishes, which after a signal is no longer possible.
            self._log_counts(get_logger("scrfd_ros"))
        logging.getLogger("scrfd_ros").removeHandler(self._log_handler)
        super().destroy_node()

    def _stop_images(self) -> None:
        if self._images is None:
            return
        self.destroy_subscription(self._images)
        self._images = None
        self._worker.forget()
        self._log_counts(self.get_logger())

    def _log_counts(self, logger: RcutilsLogger) -> None:
        logger.info(
            f"{self._worker.handled} images handled, {self._worker.dropped} dropped for newer ones"
        )

    def _release(self) -> None:
        self._stop_images()
        for publisher in (self._detections, self._faces):
            if publisher is not None:
                self.destroy_lifecycle_publisher(publisher)
        self._pipeline = self._detections = self._faces = None

    def _find_faces(self, image: Image) -> None:
        """Handle one image, on the worker's thread, while the node is active."""
        try:
            assert self._pipeline and self._detections and self._faces
            picture = bgr_from_image(image)
            apply_live_parameters(self, self._pipeline)
            faces = self._pipeline(picture).faces
            detections = detection_array(faces, image.header)
            self._detections.publish(detections)
            self._faces.publish(face_array(detections, faces, self._pipeline))
        except Exception as error:
            # One image must not stop a robot's node, whatever a network or library makes of it.
            # When ROS shuts down during an image, nobody is left to publish to: not an error.
            if self.context.ok():
                self.get_logger().error(
                    f"image skipped: {_reason(error)}", throttle_duration_sec=_LOG_PERIOD
                )


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
    return str(error) if isinstance(error, ScrfdError) else repr(error)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is told to stop; returns the exit status."""
    try:
        rclpy.init(args=args)
    except rclpy_implementation.RCLError as error:
        print(f"face_node: error: {error}", file=sys.stderr)
        return 2
    node = None
    try:
        node = FaceNode()
        node.start()
        if rclpy.ok():
            rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        print(f"face_node: error: {error}", file=sys.stderr)
        return 2
    except Exception:
        # A signal shuts ROS down at any moment, and whatever was being done then fails.
        if rclpy.ok():
            raise
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0
