# SPDX-License-Identifier: Apache-2.0
"""Choose the topics of a bag whose images can show faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from scrfd_ros.bags.bag import Bag
from scrfd_ros.bags.bag_file import Topic
from scrfd_ros.bags.message_types import COMPRESSED_IMAGE, IMAGE, deserialize
from scrfd_ros.errors import ImageError, MessageError, ScrfdError
from scrfd_ros.images.compressed import is_video
from scrfd_ros.images.encodings import is_depth, known_encoding

_PACKETS: Final = {
    "theora_image_transport/msg/Packet": "theora",
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": "ffmpeg",
    "foxglove_msgs/msg/CompressedVideo": "video",
    "stereo_msgs/msg/DisparityImage": "disparity",
}
"""Types of messages that are related to images but are not images."""
_LOOKED_AT: Final = 5
"""Maximum number of first messages of a topic that are tried until one can be read."""
_NAMED: Final = 5
"""Maximum number of topics that one line names."""


class Selection(NamedTuple):
    """The topics that are read, and why others are not.

    Attributes:
        topics: the topics that are read. A name can occur with two types.
        left_alone: why other topics are not read, by name: those with images or something similar,
            and all that are not of ROS 2.
    """

    topics: list[Topic]
    left_alone: dict[str, str]

    @property
    def names(self) -> list[str]:
        """The names of the topics that are read, without repetition."""
        return list(dict.fromkeys(topic.name for topic in self.topics))


def image_topics(bag: Bag, wanted: Sequence[str] = ()) -> Selection:
    """Choose topics of images: the wanted ones, or else all that can show faces.

    Topics that cannot: depth and disparity, video, the node's own overlay, and one of two topics
    with the same images, raw and compressed.

    Raises:
        ScrfdError: there are no such topics, or a wanted one holds no images.
    """
    there = bag.topics(IMAGE, COMPRESSED_IMAGE)
    left_alone = _others(bag)
    if wanted:
        chosen = [topic for topic in there if topic.name in wanted]
    else:
        reasons = {topic: _reason_against(bag, topic) for topic in there}
        chosen = [topic for topic in there if not reasons[topic]]
        for topic, same in _twice(bag, chosen).items():
            chosen.remove(topic)
            reasons[topic] = f"the same images as {same}"
        for topic, reason in reasons.items():
            if reason and topic.name not in {other.name for other in chosen}:
                left_alone[topic.name] = reason
    missing = [name for name in wanted if not any(topic.name == name for topic in chosen)]
    empty = [
        name
        for name in dict.fromkeys(topic.name for topic in chosen)
        if not bag.count(topic for topic in chosen if topic.name == name)
    ]
    if chosen and not missing and not empty:
        return Selection(chosen, left_alone)
    nowhere = [*missing, *empty]
    said = f"there are no images on {', '.join(nowhere)}" if nowhere else "there are no images"
    found = ", ".join(f"{topic.name} ({_description(topic, left_alone)})" for topic in bag.counts)
    raise ScrfdError(
        " ".join(
            [
                f"{bag.path}: {said}; expected topics of the type {IMAGE} or {COMPRESSED_IMAGE} in "
                f"which there can be faces, found {found or 'no topics'}",
                *(f"({sentence})" for sentence in bag.damage),
            ]
        )
    )


def _description(topic: Topic, left_alone: Mapping[str, str]) -> str:
    kind = topic.kind or f"type unknown, {topic.encoding}"
    reason = left_alone.get(topic.name)
    return f"{kind}: {reason}" if reason else kind


def _others(bag: Bag) -> dict[str, str]:
    """Why topics without images of ROS 2 are not read, by name."""
    found = {}
    foreign: dict[str, list[str]] = {}
    for topic in bag.counts:
        if topic.encoding != "cdr":
            foreign.setdefault(topic.encoding or "no encoding", []).append(topic.name)
        elif topic.kind in _PACKETS:
            found[topic.name] = f"{_PACKETS[topic.kind]}, not images"
        elif not topic.kind and bag.counts[topic]:
            found[topic.name] = "the bag does not give its type, and it is not an image"
    for encoding, names in foreign.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        found[", ".join(names[:_NAMED]) + more] = f"not of ROS 2, but {encoding}"
    read = {topic.name for topic in bag.counts}
    for name, count in bag.claims.items():
        if count and name not in read:
            found[name] = f"none of its {count} messages can be read"
    return found


def _reason_against(bag: Bag, topic: Topic) -> str:
    """Why the images on a topic cannot show faces; "" if they can."""
    if not bag.counts[topic]:
        return "no messages"
    base = topic.name.removesuffix("/compressed")
    if base.rpartition("/")[2] == "overlay":
        return "images with faces drawn in, as the node publishes them"
    if topic.name.endswith("/compressedDepth"):
        return "depth"
    for record in islice(bag.records([topic]), _LOOKED_AT):
        try:
            return _reason_against_image(deserialize(record.data, record.kind), record.kind)
        except MessageError:
            continue
    return ""  # each of its images will be counted as broken


def _reason_against_image(message: Any, kind: str) -> str:
    if kind == IMAGE:
        if is_depth(message.encoding):
            return f"depth ({message.encoding})"
        try:
            is_known = known_encoding(message.encoding) is not None
        except ImageError:  # compressed data in a raw image
            is_known = False
        return "" if is_known else f"encoding {message.encoding!r}"
    name, _, how = message.format.partition(";")
    if "compresseddepth" in how.lower() or is_depth(name):
        return f"depth ({message.format.strip()})"
    if is_video(name):
        return f"video ({name.strip()})"
    return ""


def _twice(bag: Bag, topics: Sequence[Topic]) -> dict[Topic, str]:
    """For each pair of a raw and a compressed topic: the one with fewer images, and the other."""
    by_name = {topic.name: topic for topic in topics}
    found = {}
    for name, raw in by_name.items():
        compressed = by_name.get(f"{name}/compressed")
        if compressed is not None:
            fewer, more = raw, compressed
            if bag.counts[raw] >= bag.counts[compressed]:
                fewer, more = compressed, raw
            found[fewer] = more.name
    return found
