# SPDX-License-Identifier: Apache-2.0
"""Why no images arrive, as far as the ROS graph shows: a sentence for log and diagnostics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

RAW = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
NO_NAMES = ("_NODE_NAME_UNKNOWN_", "_CREATED_BY_BARE_DDS_APP_")
"""What rcl calls nodes with unknown names: newly discovered ones, and programs without ROS."""

TRANSPORTS = {RAW: "raw", COMPRESSED: "compressed"}
_SUFFIX = "/compressed"
_MAX_TOPICS = 4
_WITHOUT_FACES = ("depth", "disparity")


@dataclass(frozen=True)
class Endpoint:
    """A publisher on the image topic.

    Attributes:
        node: full name of its node; empty if unknown.
        type: of its messages, such as `RAW`.
        qos: its profile, in words.
        fits: whether its QoS is compatible with the subscription's.
    """

    node: str
    type: str
    qos: str
    fits: bool


@dataclass(frozen=True)
class Graph:
    """The part of the ROS graph that explains why no images arrive.

    Attributes:
        name: of the image topic before remapping, such as `image` or `front/image`.
        base: full name of the image topic.
        topic: full name of the subscribed topic: the same, or a compressed one.
        type: of the expected images: `RAW` or `COMPRESSED`.
        qos: profile of the subscription, in words.
        endpoints: publishers on the subscribed topic.
        image_topics: other topics with images, and their types.
        is_paused: the time of /clock stands still.
    """

    name: str
    base: str
    topic: str
    type: str
    qos: str
    endpoints: Sequence[Endpoint]
    image_topics: Mapping[str, str]
    is_paused: bool = False

    @property
    def refused(self) -> list[Endpoint]:
        """Publishers of the expected type whose QoS is incompatible."""
        return [one for one in self.endpoints if one.type == self.type and not one.fits]


def why_no_image(graph: Graph) -> str:
    """The likeliest cause and its remedy, in a sentence without a full stop."""
    fitting = [one for one in graph.endpoints if one.type == graph.type and one.fits]
    reasons = [incompatible(graph)] if graph.refused else []
    if fitting:
        reasons.append(_matched(graph, fitting))
    if reasons:
        return "; and ".join(reasons)
    if graph.endpoints:
        other = graph.endpoints[0]
        sentence = (
            f"{_names(graph.endpoints)} publishes {other.type} on {graph.topic}, expected "
            f"{graph.type}"
        )
        if other.type in TRANSPORTS:
            sentence += f": {_remedy(graph, graph.topic, other.type)}"
        return sentence
    return f"nobody publishes on {graph.topic}{_nearby(graph)}"


def incompatible(graph: Graph) -> str:
    """That the QoS of publishers is incompatible, and the remedy."""
    return (
        f"the QoS of {_names(graph.refused)} ({graph.refused[0].qos}) is incompatible with the "
        f"node's ({graph.qos}): start the node with the parameter "
        f"qos_overrides.{graph.topic}.subscription.reliability set to best_effort, or without it"
    )


def _matched(graph: Graph, endpoints: Sequence[Endpoint]) -> str:
    if graph.is_paused:
        return (
            f"{_names(endpoints)} publishes on {graph.topic}, but the time of /clock stands "
            f"still: is the simulation or the bag paused?"
        )
    return (
        f"{_names(endpoints)} publishes on {graph.topic}, but sends nothing, or the images are "
        f"lost on the way. With Fast DDS large images come only if that program has the transport "
        f"profile: see 'Images and Fast DDS' in the README. If it sends less often, raise "
        f"diagnostics.stale_after"
    )


def _nearby(graph: Graph) -> str:
    def distance(topic: str) -> tuple[bool, bool, float, str]:
        has_no_faces = any(word in topic.lower() for word in _WITHOUT_FACES)
        needs_remapping = "remap" in _remedy(graph, topic, graph.image_topics[topic])
        likeness = SequenceMatcher(None, graph.base.lower(), topic.lower()).ratio()
        return has_no_faces, needs_remapping, -likeness, topic

    topics = sorted(graph.image_topics, key=distance)
    if not topics:
        return (
            ", nor images on any other topic: is the camera's driver running, and with the same "
            "ROS_DOMAIN_ID?"
        )
    nearest, *others = topics
    kind = graph.image_topics[nearest]
    sentence = f"; images are on {nearest} ({_short(kind)}): {_remedy(graph, nearest, kind)}"
    if others:
        listed = [f"{topic} ({_short(graph.image_topics[topic])})" for topic in others]
        more = len(listed) - _MAX_TOPICS
        sentence += f". Also on {', '.join(listed[:_MAX_TOPICS])}"
        sentence += f" and {more} more" if more > 0 else ""
    return sentence


def _remedy(graph: Graph, topic: str, kind: str) -> str:
    """How to have the node take the images of this type from this topic."""
    steps = []
    if kind != graph.type:
        steps.append(f"set the parameter image_transport to {TRANSPORTS[kind]}")
    if kind == RAW:
        if topic != graph.base:
            steps.append(f"remap {graph.name}:={topic}")
    elif topic != (graph.base if graph.base.endswith(_SUFFIX) else graph.base + _SUFFIX):
        if topic.endswith(_SUFFIX):
            steps.append(f"remap {graph.name}:={topic.removesuffix(_SUFFIX)}")
        else:
            steps.append(f"remap {graph.name}{_SUFFIX}:={topic}")
    return " and ".join(steps) or "leave out the remapping"


def _names(endpoints: Sequence[Endpoint]) -> str:
    names = sorted({endpoint.node for endpoint in endpoints if endpoint.node})
    return ", ".join(names) if names else "a node whose name is not known"


def _short(kind: str) -> str:
    return kind.rpartition("/")[2]
