# SPDX-License-Identifier: Apache-2.0
"""Which topics of a bag hold images in which faces can be looked for."""

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
"""Messages that are nearly images, by type."""
_LOOKED_AT: Final = 5
"""First messages of a topic that are tried until one can be read."""
_NAMED: Final = 5
"""Topics that are named in one line."""


class Selection(NamedTuple):
    """Topics that are read, and why others are not.

    Attributes:
        topics: those that are read. One name may be there with two types.
        left_alone: a phrase for each other topic with something like images, by name, and for all
            that is not of ROS 2.
    """

    topics: list[Topic]
    left_alone: dict[str, str]

    @property
    def names(self) -> list[str]:
        """The names of the topics that are read, each once."""
        return list(dict.fromkeys(topic.name for topic in self.topics))


def image_topics(bag: Bag, wanted: Sequence[str] = ()) -> Selection:
    """Choose topics of images: those that are wanted, else all in which there can be faces.

    Those are not: depth and disparity, video, the node's own overlay, and one of two topics that
    hold the same images, raw and compressed.

    Raises:
        ScrfdError: there are none, or one of those that are wanted holds no images.
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
    """What is said of topics that hold no images of ROS 2."""
    found = {}
    foreign: dict[str, list[str]] = {}
    for topic in bag.counts:
        if topic.encoding != "cdr":
            foreign.setdefault(topic.encoding or "no encoding", []).append(topic.name)
        elif topic.kind in _PACKETS:
            found[topic.name] = f"{_PACKETS[topic.kind]}, not images"
        elif not topic.kind and bag.counts[topic]:
            found[topic.name] = "the bag does not say of which type it is, and it is no image"
    for encoding, names in foreign.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        found[", ".join(names[:_NAMED]) + more] = f"not of ROS 2, but {encoding}"
    read = {topic.name for topic in bag.counts}
    for name, count in bag.claims.items():
        if count and name not in read:
            found[name] = f"none of its {count} messages can be read"
    return found


def _reason_against(bag: Bag, topic: Topic) -> str:
    """Why there can be no faces in the images on a topic; "" if there can."""
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
    return ""  # every one is counted as broken


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
    """Of topics that a camera publishes raw and compressed, the one with fewer images."""
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
