# SPDX-License-Identifier: Apache-2.0
"""One camera: the subscription to its images, its clock, tracker, counts and results."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple

from builtin_interfaces.msg import Time
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from scrfd_ros.node.counts import Counts
from scrfd_ros.node.lost_images import PublisherNumbers
from scrfd_ros.node.results import ResultPublishers
from scrfd_ros.tracking.frame_clock import FrameClock, FrameTime
from scrfd_ros.tracking.tracker import Tracker

if TYPE_CHECKING:  # needs hri_msgs
    from scrfd_ros.node.hri import HumanFaces

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks


IMAGE_QOS = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
"""Only the newest image; matches best-effort and reliable cameras."""

_COMPRESSED = "compressed"
_OVERRIDES = QoSOverridingOptions.with_default_policies()


class ReceivedImage(NamedTuple):
    """An image as it arrived.

    Attributes:
        message: raw images stay serialized, as most are replaced by newer ones before anybody reads
            them.
        arrival: nanoseconds of the monotonic clock, see `FrameClock.time_of`.
    """

    message: bytes | CompressedImage
    arrival: int


def compressed_topic(node: Node, image: str) -> str:
    """The topic of the compressed images that belong to an image topic, as image_transport has it.

    It is below the image topic and follows its remapping, unless it is remapped itself. An image
    topic whose name already ends in /compressed is used as it is.

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
    """One camera of the node.

    Args:
        node: whose subscription and publishers these are.
        name: relative namespace of the topics; empty for none.
        compressed: take compressed images, see `compressed_topic`, instead of `image`.
        tracker: follows the faces; None for faces without ids.
        rotation: turns its images upright, see `scrfd_ros.images.orientation.ROTATIONS`.
        humans: see `ResultPublishers`.

    Attributes:
        counts: what has become of its images.
        results: its results' publishers.
        image_name: name of the image topic, before remapping and without a transport.
        numbers: sequence numbers of the messages since the subscription.
        is_numbered: whether the middleware numbers messages; known after the first image.
        is_refusing: there was a publisher of an incompatible QoS; the reader resets it.
    """

    def __init__(
        self,
        node: LifecycleNode,
        name: str,
        compressed: bool,
        tracker: Tracker | None,
        rotation: int = 0,
        humans: HumanFaces | None = None,
    ) -> None:
        self.name = name
        self.rotation = rotation
        self.tracker = tracker
        self.counts = Counts()
        self._node = node
        self._type: type = CompressedImage if compressed else Image
        self.image_name = f"{name}/image" if name else "image"
        self._topic = compressed_topic(node, self.image_name) if compressed else self.image_name
        self._images: Subscription | None = None
        self._subscribed_at = 0.0
        self.numbers = PublisherNumbers()
        self.is_numbered = False
        self.is_refusing = False
        self._clock = FrameClock(self.topic)
        self.results = ResultPublishers(node, name, humans)

    @property
    def is_subscribed(self) -> bool:
        return self._images is not None

    @property
    def topic(self) -> str:
        """The full name of the image topic."""
        return str(self._node.resolve_topic_name(self._topic))

    @property
    def type_name(self) -> str:
        """The type of the image topic, such as sensor_msgs/msg/Image."""
        return f"sensor_msgs/msg/{self._type.__name__}"

    @property
    def qos(self) -> QoSProfile:
        """The profile of the subscription, with overrides."""
        assert self._images is not None
        return self._images.qos_profile

    @property
    def has_images(self) -> bool:
        """Whether any image has arrived since the subscription."""
        return bool(self.counts.arrivals) and self.counts.arrivals[-1] >= self._subscribed_at

    @property
    def waiting_since(self) -> float | None:
        """When the newest image arrived, or else the subscription began: monotonic seconds.

        None without a subscription.
        """
        if self._images is None:
            return None
        return self.counts.arrivals[-1] if self.has_images else self._subscribed_at

    @property
    def subscription_parameters(self) -> list[str]:
        """Names of the QoS parameters of the image topic, which `subscribe` declares."""
        return [
            f"qos_overrides.{self.topic}.subscription.{policy.name.lower()}"
            for policy in _OVERRIDES.policy_kinds
        ]

    def time_of(self, stamp: Time, arrival: int) -> FrameTime:
        """When an image was taken, for the tracker.

        To be called once for each image, in order: it moves the camera's clock on.

        Args:
            stamp: of the image's header.
            arrival: see `ReceivedImage`.
        """
        if self.tracker is None:
            return FrameTime(0, 0)
        time = self._clock.time_of(stamp.sec, stamp.nanosec, arrival)
        self.counts.warn("stamps", self._clock.problem)
        return time

    def subscribe(self, callback: Callable[[Camera, ReceivedImage], None]) -> None:
        """Begin to take images in; each is passed to the callback."""
        self._subscribed_at = time.monotonic()
        self.numbers = PublisherNumbers()

        def count(message: bytes | CompressedImage, info: dict[str, Any]) -> None:
            arrival = time.monotonic_ns()
            now = arrival / 1e9
            number = info.get("publication_sequence_number")  # Humble has none
            self.is_numbered = number is not None
            missing = self.numbers.missing(number, now, self._publishers) if number else None
            self.counts.receive(now, missing)
            callback(self, ReceivedImage(message, arrival))

        self._images = self._node.create_subscription(
            self._type,
            self._topic,
            count,
            copy(IMAGE_QOS),  # rclpy writes the overrides of one topic into it
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
        """Remove subscription and publishers."""
        self.unsubscribe()
        self.results.destroy()

    def _refuse(self, event: Any) -> None:
        self.is_refusing = True

    def _publishers(self) -> set[Hashable]:
        infos = self._node.get_publishers_info_by_topic(self.topic)
        return {tuple(info.endpoint_gid) for info in infos}
