# SPDX-License-Identifier: Apache-2.0
"""Faces in the images of a bag: what the node would have published, had it missed none."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from scrfd_ros.bags.bag import open_bag
from scrfd_ros.bags.bag_writer import new_bag
from scrfd_ros.bags.image_topics import image_topics
from scrfd_ros.bags.message_types import DETECTION_ARRAY, FACE_ARRAY, deserialize
from scrfd_ros.bags.times import nanoseconds, seconds
from scrfd_ros.errors import ImageError, MessageError, ScrfdError
from scrfd_ros.images.message import decode_message
from scrfd_ros.messages.faces import ModelNames, detection_array, face_array
from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.tracking.frame_clock import FrameClock, FrameTime

_LOG = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What has come of one topic of images.

    Attributes:
        detections, faces: the topics with the results.
        images: those that were read.
        broken: of these, those in which nothing could be looked for.
        lost: images that were recorded and that the bag, being damaged, does not give any more;
            None if their number is not known.
        found: faces, in all images together.
        damaged: images that were used although their data is damaged.
    """

    detections: str
    faces: str
    images: int = 0
    broken: int = 0
    lost: int | None = 0
    found: int = 0
    damaged: int = 0


class Replay(NamedTuple):
    """What has come of a bag.

    Attributes:
        outcomes: of each topic that was read.
        left_alone: why other topics with something like images were not; see `image_topics`.
        damage: a sentence for each file that is damaged or missing.
    """

    outcomes: dict[str, Outcome]
    left_alone: dict[str, str]
    damage: list[str]


_SAID: Final = 5
"""Broken images of a topic that are named; the others are counted."""


def replay(
    path: Path,
    output: Path,
    pipeline: FacePipeline,
    topics: Sequence[str] = (),
    tracking: bool = True,
    rotation: int = 0,
) -> Replay:
    """Find the faces in every image of a bag, and write them into a new one.

    For each image that is not broken there is one vision_msgs/Detection2DArray and one
    scrfd_ros/FaceArray, with the image's header and the time at which the image was recorded, in
    the order of the images. The first broken ones of each topic are logged, and what is damaged in
    the bag: it costs only the images that lie there. Progress is shown on a terminal.

    Args:
        path: the bag that is read.
        output: the bag that is written, stored in the same way.
        topics: of the images; if none is given, all in which there can be faces, see
            `image_topics`.
        tracking: give the faces of each topic ids, as the node does.
        rotation: turns the images upright; one of `scrfd_ros.images.orientation.ROTATIONS`.

    Raises:
        ScrfdError: nothing in the bag can be read, none of its images is whole, `output` exists or
            cannot be written, or a topic has no images. Then nothing is written.
    """
    with open_bag(path) as bag:
        for sentence in (*bag.notes, *bag.damage):
            _LOG.warning("%s", sentence)
        known_damage = bag.damage
        selection = image_topics(bag, topics)
        outcomes = {
            topic: Outcome(f"{namespace}/detections", f"{namespace}/faces")
            for topic, namespace in result_namespaces(selection.names).items()
        }
        models = ModelNames.of(pipeline)
        trackers = {topic: pipeline.new_tracker() if tracking else None for topic in outcomes}
        clocks = {topic: FrameClock(topic) if tracking else None for topic in outcomes}
        with new_bag(output, bag.storage) as results, logging_redirect_tqdm():
            for outcome in outcomes.values():
                results.add_topic(outcome.detections, DETECTION_ARRAY)
                results.add_topic(outcome.faces, FACE_ARRAY)
            bar = tqdm(
                bag.records(selection.topics),
                "replaying",
                bag.count(selection.topics),
                unit="image",
                leave=False,
                disable=None,
            )
            for topic, kind, time, data in bar:
                outcome = outcomes[topic]
                outcome.images += 1
                stamp = f"recorded at {seconds(time)}"
                try:
                    image = deserialize(data, kind)
                    stamp = f"stamp {seconds(nanoseconds(image.header.stamp))}"
                    frame_time = _time_of(image, time, clocks[topic])
                    sent = decode_message(image, rotation, pipeline.fit)
                    result = pipeline(sent.upright, trackers[topic], *frame_time)
                except (MessageError, ImageError) as error:
                    outcome.broken += 1
                    if outcome.broken <= _SAID:
                        _LOG.warning("%s, %s: image skipped: %s", topic, stamp, error)
                    elif outcome.broken == _SAID + 1:
                        _LOG.warning("%s: further images skipped are only counted", topic)
                    continue
                faces = sent.restore(result.faces)
                outcome.found += len(faces)
                if sent.damage:
                    outcome.damaged += 1
                    if outcome.damaged == 1:
                        _LOG.warning("%s, %s: used, but %s", topic, stamp, sent.damage)
                results.write(outcome.detections, time, detection_array(faces, image.header))
                results.write(outcome.faces, time, face_array(faces, image.header, models))
            bag_damage = bag.damage
            for sentence in bag_damage:
                if sentence not in known_damage:
                    _LOG.warning("%s", sentence)
            images = sum(outcome.images for outcome in outcomes.values())
            if images == sum(outcome.broken for outcome in outcomes.values()):
                raise ScrfdError(
                    f"{path}: none of the {images} images on {', '.join(outcomes)} can be read"
                )
        for topic, outcome in outcomes.items():
            claim = bag.claims.get(topic)
            if not bag_damage and claim not in (None, outcome.images):
                _LOG.warning(
                    "%s: by the bag's own account there are %d messages, but %d are in it, all of "
                    "which were read",
                    topic,
                    claim,
                    outcome.images,
                )
            if bag_damage:
                known = claim is not None and claim >= outcome.images
                outcome.lost = bag.claims[topic] - outcome.images if known else None
    return Replay(outcomes, selection.left_alone, bag_damage)


def result_namespaces(topics: Iterable[str]) -> dict[str, str]:
    """The namespace of the results for each topic of images.

    That is the namespace of the topic, as of a node to which it is remapped there: /camera for
    /camera/image_raw and for /camera/image_raw/compressed. Where several topics share one, it is
    the topic itself.
    """
    namespaces = {topic: topic.removesuffix("/compressed").rpartition("/")[0] for topic in topics}
    shared = Counter(namespaces.values())
    return {
        topic: namespace if shared[namespace] == 1 else topic
        for topic, namespace in namespaces.items()
    }


def _time_of(image: Any, recorded: int, clock: FrameClock | None) -> FrameTime:
    """When an image was taken. It arrives when it was recorded, so that a bag's results are always
    the same."""
    if clock is None:
        return FrameTime(0, 0)
    return clock.time_of(image.header.stamp.sec, image.header.stamp.nanosec, recorded)
