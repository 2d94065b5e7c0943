# SPDX-License-Identifier: Apache-2.0
"""What the node publishes about each image of a camera."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, LabelInfo, VisionInfo

from scrfd_ros.faces import Faces
from scrfd_ros.images.decoded import DecodedImage
from scrfd_ros.images.drawing import draw_faces
from scrfd_ros.messages.faces import ModelNames, detection_array, face_array
from scrfd_ros.msg import FaceArray
from scrfd_ros.node.images import image_message
from scrfd_ros.node.messages import label_info, vision_info
from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.tracking.frame_clock import FrameTime

if TYPE_CHECKING:  # needs hri_msgs
    from scrfd_ros.node.hri import HumanFaces

try:
    from foxglove_msgs.msg import ImageAnnotations

    from scrfd_ros.node.annotations import image_annotations
except ImportError:
    ImageAnnotations = None

RESULT_QOS = QoSProfile(depth=10)
"""Reliable, so that it matches every subscriber."""

OVERLAY_QOS = QoSProfile(depth=1)

_LATCHED_QOS = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
_OVERRIDES = QoSOverridingOptions.with_default_policies()


@dataclass(frozen=True)
class ImageResult:
    """The faces in one image, and what the messages about them are made from.

    Attributes:
        header: of the image.
        time: when the image was taken, as the tracker knows it.
        image: as it was decoded.
        found: the faces, in pixels of `image.upright_whole`.
        pipeline: that found them.
    """

    header: Header
    time: FrameTime
    image: DecodedImage
    found: Faces
    pipeline: FacePipeline

    @cached_property
    def faces(self) -> Faces:
        """The faces, in pixels of the image as it was sent."""
        return self.image.restore(self.found)


class _Output(NamedTuple):
    """A topic for results.

    Attributes:
        topic: relative name below the camera's.
        message: makes the message about an image, as an object or as bytes.
        on_demand: made and published only while somebody subscribes.
    """

    topic: str
    type: type
    message: Callable[[ImageResult], Any]
    qos: QoSProfile = RESULT_QOS
    on_demand: bool = False


def _detection_array(result: ImageResult) -> bytes:
    return detection_array(result.faces, result.header)


def _face_array(result: ImageResult) -> bytes:
    return face_array(result.faces, result.header, ModelNames.of(result.pipeline))


def _overlay(result: ImageResult) -> Image:
    """The image as it was sent, with the faces drawn."""
    return image_message(draw_faces(result.image.whole, result.faces), result.header)


def _annotations(result: ImageResult) -> Any:
    return image_annotations(result.faces, result.header)


_OUTPUTS = [
    _Output("detections", Detection2DArray, _detection_array),
    _Output("faces", FaceArray, _face_array),
    _Output("overlay", Image, _overlay, OVERLAY_QOS, on_demand=True),
]
if ImageAnnotations is not None:  # foxglove_msgs is installed
    _OUTPUTS.append(_Output("annotations", ImageAnnotations, _annotations, on_demand=True))


class ResultPublishers:
    """The publishers of one camera's results.

    Args:
        node: whose publishers these are.
        camera: name of the camera, which is the namespace of the topics; empty for none.
        humans: also gets the results, if any.
    """

    def __init__(self, node: LifecycleNode, camera: str, humans: HumanFaces | None = None) -> None:
        self._node = node
        self._camera = camera
        self._humans = humans
        self._made: list[LifecyclePublisher] = []
        try:
            self._outputs = [
                (output, self._publisher(output.type, output.topic, output.qos))
                for output in _OUTPUTS
            ]
            self._vision_info = self._publisher(VisionInfo, "vision_info", _LATCHED_QOS)
            self._label_info = self._publisher(LabelInfo, "label_info", _LATCHED_QOS)
        except Exception:  # a QoS that does not exist, a name that is too long
            self.destroy()
            raise

    @property
    def are_wanted(self) -> bool:
        """Whether anybody subscribes to a result."""
        return any(publisher.get_subscription_count() > 0 for _, publisher in self._outputs) or (
            self._humans is not None and self._humans.is_wanted
        )

    def publish_info(self, pipeline: FacePipeline, header: Header) -> None:
        """Publish what the detections mean, for present and later subscribers."""
        self._vision_info.publish(vision_info(pipeline, header))
        self._label_info.publish(label_info(pipeline, header))

    def publish(self, result: ImageResult) -> None:
        """Publish the messages about one image."""
        for output, publisher in self._outputs:
            if not output.on_demand or publisher.get_subscription_count() > 0:
                publisher.publish(output.message(result))
        if self._humans is not None:
            self._humans.publish(
                self._camera, result.faces, result.image.whole, result.header, result.time
            )

    def destroy(self) -> None:
        """Remove the publishers."""
        for publisher in self._made:
            self._node.destroy_lifecycle_publisher(publisher)

    def _publisher(self, kind: type, topic: str, qos: QoSProfile) -> LifecyclePublisher:
        path = f"{self._camera}/{topic}" if self._camera else topic
        # A copy of the profile: rclpy writes the overrides of one topic into it.
        made = self._node.create_lifecycle_publisher(
            kind, path, copy(qos), qos_overriding_options=_OVERRIDES
        )
        self._made.append(made)
        return made
