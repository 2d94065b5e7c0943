# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 node: images in, faces out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleState
from rclpy.lifecycle import TransitionCallbackReturn as Transition
from std_msgs.msg import Header

from scrfd_ros.errors import ScrfdError
from scrfd_ros.node.camera import Camera, ReceivedImage
from scrfd_ros.node.clock import stamp_now
from scrfd_ros.node.config import NodeConfig
from scrfd_ros.node.diagnostics import Problem, networks_in_words
from scrfd_ros.node.frame_processor import FrameProcessor
from scrfd_ros.node.gallery_services import GalleryServices
from scrfd_ros.node.guarded_executor import guard_services
from scrfd_ros.node.image_intake import ImageIntake
from scrfd_ros.node.lifecycle import GuardedLifecycleNode, guarded
from scrfd_ros.node.log_bridge import LogBridge
from scrfd_ros.node.messages import check_definitions
from scrfd_ros.node.monitor import Monitor
from scrfd_ros.node.parameters import LiveConfig, declare_parameters
from scrfd_ros.node.unused_arguments import warn_of_unused_qos
from scrfd_ros.node.worker import Worker
from scrfd_ros.pipeline import FacePipeline, load_pipeline

if TYPE_CHECKING:  # needs hri_msgs
    from scrfd_ros.node.hri import HumanFaces

_PATIENCE = 1.0  # seconds that work in hand may take when the node ends


class FaceNode(GuardedLifecycleNode):
    """Publishes the faces in the images of one or several cameras.

    The executor's thread takes images in and answers services; a `Worker`'s thread loads and runs
    the networks. While the worker is busy, a newer image replaces the waiting one of the same
    camera. A transition ends when its work is done: services wait for a configure, and a deactivate
    waits for the image in hand.

    Attributes:
        is_idle: of a destroyed node: whether its worker had ended.

    Raises:
        ScrfdError: a parameter has a value that can never work.
    """

    def __init__(self) -> None:
        super().__init__("face_node")
        self._log_bridge = LogBridge(self.get_logger())
        guard_services(self)
        declare_parameters(self)
        self._worker: Worker[Camera, ReceivedImage] = Worker(self._process)
        self.is_idle = True
        self._config: LiveConfig | None = None
        self._pipeline: FacePipeline | None = None
        self._cameras: list[Camera] = []
        self._humans: HumanFaces | None = None
        self._gallery_services: GalleryServices | None = None  # with a gallery
        self._processor: FrameProcessor | None = None
        self._intake: ImageIntake | None = None  # while the node is active
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

    @guarded("configure", Transition.FAILURE)
    def on_configure(self, state: LifecycleState) -> Transition:
        self.report_idle(DiagnosticStatus.WARN, "configuring: loading the networks")
        check_definitions()
        self._config = LiveConfig(self)
        config = self._config.current()
        self._humans = _human_faces(self, config)
        self._pipeline = self._worker.call(
            lambda: load_pipeline(config, max_images=len(config.cameras), is_live=True)
        )
        self._worker.max_batch = self._pipeline.detector.batch
        compressed = config.image_transport == "compressed"
        for name, rotation in config.rotations.items():
            tracker = self._pipeline.new_tracker()
            self._cameras.append(Camera(self, name, compressed, tracker, rotation, self._humans))
        self._processor = FrameProcessor(
            self, self._config, self._pipeline, is_ending=lambda: self._worker.is_stopped
        )
        if self._pipeline.identifier is not None:
            self._gallery_services = GalleryServices(
                self, self._config, self._pipeline, self._cameras, self._worker
            )
        warn_of_unused_qos(
            self, (name for camera in self._cameras for name in camera.subscription_parameters)
        )
        if self._pipeline.warning:
            self.get_logger().warning(self._pipeline.warning)
        self.get_logger().info(networks_in_words(self._pipeline))
        self.report_idle(DiagnosticStatus.WARN, self._inactive)
        return super().on_configure(state)

    @guarded("activate")
    def on_activate(self, state: LifecycleState) -> Transition:
        result = super().on_activate(state)
        assert self._pipeline is not None and self._config is not None
        config = self._pipeline.config = self._config.current()
        header = Header(stamp=stamp_now(self))
        for camera in self._cameras:
            camera.results.publish_info(self._pipeline, header)
        self._monitor.start(self._cameras, self._pipeline, self._config)
        self._intake = ImageIntake(self, self._cameras, self._worker, config.lazy)
        self._intake.start()
        return result

    @guarded("deactivate")
    def on_deactivate(self, state: LifecycleState) -> Transition:
        self._stop_images()
        self.report_idle(DiagnosticStatus.WARN, self._inactive)
        return super().on_deactivate(state)

    @guarded("clean up")
    def on_cleanup(self, state: LifecycleState) -> Transition:
        self.release()
        self.report_idle(DiagnosticStatus.WARN, self._not_configured)
        return super().on_cleanup(state)

    @guarded("shut down")
    def on_shutdown(self, state: LifecycleState) -> Transition:
        self.release()
        self.report_idle(DiagnosticStatus.WARN, "shut down: to use it, start the node again")
        return super().on_shutdown(state)

    @guarded("recover from the error")
    def on_error(self, state: LifecycleState) -> Transition:
        self.release()  # the reason is in the log already
        return super().on_error(state)

    def release(self) -> None:
        """Stop the work and release what configuring and activating have made."""
        self._stop_images()
        if self._gallery_services is not None:
            self._gallery_services.destroy()
            self._gallery_services = None
        for camera in self._cameras:
            camera.destroy()
        self._cameras = []
        if self._humans is not None:
            self._humans.destroy()
            self._humans = None
        if self._pipeline is not None:
            self._pipeline.close()
        self._pipeline = self._processor = None

    def end(self) -> None:
        """Have present and later transitions raise `Stopped` instead of waiting for the worker."""
        self._worker.stop(0)

    def destroy_node(self) -> None:
        self.is_idle = self._worker.stop(_PATIENCE)
        if self._intake is not None:
            self._intake.abandon()
        if self._pipeline is not None and self.is_idle:
            self._pipeline.close()
        self._log_bridge.close()
        super().destroy_node()

    def _process(self, images: list[tuple[Camera, ReceivedImage]]) -> None:
        assert self._processor is not None
        self._processor.process(images)

    def _stop_images(self) -> None:
        if self._intake is not None:
            self._intake.stop()
            self._intake = None
            self._monitor.stop()

    @property
    def _not_configured(self) -> str:
        return f"not configured: ros2 lifecycle set {self.get_fully_qualified_name()} configure"

    @property
    def _inactive(self) -> str:
        return f"not active: ros2 lifecycle set {self.get_fully_qualified_name()} activate"

    def report_idle(self, level: bytes, sentence: str) -> None:
        self._monitor.report_idle(Problem(level, sentence))


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
    return HumanFaces(node, config.tracking.max_age, has_gallery=bool(config.gallery.store))
