# SPDX-License-Identifier: Apache-2.0
"""One camera: its topics, what has come of its images, and its tracker."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, LabelInfo, VisionInfo

from scrfd_ros.faces import Faces
from scrfd_ros.msg import FaceArray
from scrfd_ros.node.counts import Counts
from scrfd_ros.node.lost_images import PublisherNumbers
from scrfd_ros.tracking.frame_clock import FrameClock
from scrfd_ros.tracking.tracker import Tracker

try:
    from foxglove_msgs.msg import ImageAnnotations

    from scrfd_ros.node.annotations import image_annotations
except ImportError:
    ImageAnnotations = None

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

ImageMessage: TypeAlias = "bytes | CompressedImage"
"""A raw image stays serialized: most are replaced by newer ones before anybody reads them."""

IMAGE_QOS = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
"""Sensor data, newest only: matches best-effort and reliable cameras alike."""

RESULT_QOS = QoSProfile(depth=10)
"""Reliable, so that it matches every subscriber."""

OVERLAY_QOS = QoSProfile(depth=1)

_LATCHED_QOS = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
_COMPRESSED = "compressed"
_OVERRIDES = QoSOverridingOptions.with_default_policies()


def compressed_topic(node: Node, image: str) -> str:
    """The topic of the compressed images that belong to an image topic, as image_transport has it.

    It is below the image topic and follows its remapping; a remapping of its own wins. An image
    topic that is itself named so is meant to be taken as it is.

    Args:
        node: whose namespace and remappings hold.
        image: name of the image topic before remapping.
    """
    topic = f"{image}/{_COMPRESSED}"
    if node.resolve_topic_name(topic) != node.resolve_topic_name(topic, only_expand=True):
        return topic
    base = str(node.resolve_topic_name(image))
    return base if base.endswith(f"/{_COMPRESSED}") else f"{base}/{_COMPRESSED}"


class Camera:
    """Subscribes to the images of one camera, and publishes what is found in them.

    Args:
        node: whose subscription and publishers these are.
        name: relative namespace of the topics; empty for none.
        compressed: take compressed images, see `compressed_topic`, instead of `image`.
        tracker: follows the faces; None for ids that are not kept.
        rotation: what its images are turned by, see `scrfd_ros.images.orientation.ROTATIONS`.

    Attributes:
        image_name: of the image topic, before remapping and without a transport.
        numbers: of the messages since the images were subscribed.
        is_numbered: whether the middleware tells them; known after the first image.
        is_refusing: there was a publisher of an incompatible QoS; to be reset by who looks at it.
        clock: tells when the images were taken; used on the thread that handles them.
    """

    def __init__(
        self,
        node: LifecycleNode,
        name: str,
        compressed: bool,
        tracker: Tracker | None,
        rotation: int = 0,
    ) -> None:
        self.name = name
        self.rotation = rotation
        self.tracker = tracker
        self.counts = Counts()
        self._node = node
        self._type: type = CompressedImage if compressed else Image
        self.image_name = self._path("image")
        self._topic = compressed_topic(node, self.image_name) if compressed else self.image_name
        self._images: Subscription | None = None
        self._subscribed_at = 0.0
        self.numbers = PublisherNumbers()
        self.is_numbered = False
        self.is_refusing = False
        self.clock = FrameClock(self.topic)

        self._made: list[LifecyclePublisher] = []

        def publisher(kind: type, topic: str, qos: QoSProfile) -> LifecyclePublisher:
            path = self._path(topic)
            try:
                made = node.create_lifecycle_publisher(
                    kind, path, qos, qos_overriding_options=_OVERRIDES
                )
            except Exception:  # a QoS that there is not, a name that is too long
                self.destroy()
                raise
            self._made.append(made)
            return made

        self.detections = publisher(Detection2DArray, "detections", RESULT_QOS)
        self.faces = publisher(FaceArray, "faces", RESULT_QOS)
        self.overlay = publisher(Image, "overlay", OVERLAY_QOS)
        self._annotations: LifecyclePublisher | None = None
        if ImageAnnotations is not None:  # foxglove_msgs is installed
            self._annotations = publisher(ImageAnnotations, "annotations", RESULT_QOS)
        self._vision_info = publisher(VisionInfo, "vision_info", _LATCHED_QOS)
        self._label_info = publisher(LabelInfo, "label_info", _LATCHED_QOS)

    def _path(self, topic: str) -> str:
        return f"{self.name}/{topic}" if self.name else topic

    @property
    def is_wanted(self) -> bool:
        """Whether anybody subscribes to a result."""
        results = (self.detections, self.faces, self.overlay, self._annotations)
        return any(result and result.get_subscription_count() > 0 for result in results)

    @property
    def is_subscribed(self) -> bool:
        return self._images is not None

    @property
    def topic(self) -> str:
        """The full name of the image topic."""
        return str(self._node.resolve_topic_name(self._topic))

    @property
    def type_name(self) -> str:
        """Of the image topic, such as sensor_msgs/msg/Image."""
        return f"sensor_msgs/msg/{self._type.__name__}"

    @property
    def qos(self) -> QoSProfile:
        """The profile of the subscription, with overrides."""
        assert self._images is not None
        return self._images.qos_profile

    @property
    def has_images(self) -> bool:
        """Whether any image has come since it subscribed."""
        return bool(self.counts.arrivals) and self.counts.arrivals[-1] >= self._subscribed_at

    @property
    def waiting_since(self) -> float | None:
        """When the newest image came, or the subscription began: monotonic seconds."""
        if self._images is None:
            return None
        return self.counts.arrivals[-1] if self.has_images else self._subscribed_at

    @property
    def subscription_parameters(self) -> list[str]:
        """Names of the parameters for the QoS of the image topic, declared with `subscribe`."""
        return [
            f"qos_overrides.{self.topic}.subscription.{policy.name.lower()}"
            for policy in _OVERRIDES.policy_kinds
        ]

    def publish_info(self, vision_info: VisionInfo, label_info: LabelInfo) -> None:
        """Publish what the detections mean, for those who come now and later."""
        self._vision_info.publish(vision_info)
        self._label_info.publish(label_info)

    def publish_annotations(self, faces: Faces, header: Header) -> None:
        """Publish the faces, in pixels of the image, as Foxglove draws them, if it wants them."""
        if self._annotations is not None and self._annotations.get_subscription_count() > 0:
            self._annotations.publish(image_annotations(faces, header))

    def subscribe(self, callback: Callable[[Camera, ImageMessage, int], None]) -> None:
        """Begin to take images in; each is handed on with its arrival, see `FrameClock`."""
        self._subscribed_at = time.monotonic()
        self.numbers = PublisherNumbers()

        def count(message: ImageMessage, info: dict[str, Any]) -> None:
            arrival = time.monotonic_ns()
            now = arrival / 1e9
            number = info.get("publication_sequence_number")  # Humble has none
            self.is_numbered = number is not None
            missing = self.numbers.missing(number, now, self._publishers) if number else None
            self.counts.receive(now, missing)
            callback(self, message, arrival)

        self._images = self._node.create_subscription(
            self._type,
            self._topic,
            count,
            IMAGE_QOS,
            raw=self._type is Image,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._refuse),
            qos_overriding_options=_OVERRIDES,
        )

    def unsubscribe(self) -> None:
        """Take no more images in."""
        if self._images is not None:
            self._node.destroy_subscription(self._images)
            self._images = None

    def destroy(self) -> None:
        """Remove the publishers."""
        self.unsubscribe()
        for publisher in self._made:
            self._node.destroy_lifecycle_publisher(publisher)

    def _refuse(self, event: Any) -> None:
        self.is_refusing = True

    def _publishers(self) -> set[Hashable]:
        infos = self._node.get_publishers_info_by_topic(self.topic)
        return {tuple(info.endpoint_gid) for info in infos}
