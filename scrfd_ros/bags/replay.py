# SPDX-License-Identifier: Apache-2.0
"""Find the faces in the images of a bag, and write what the node would have published."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from scrfd_ros.bags.bag import open_bag
from scrfd_ros.bags.bag_writer import new_bag
from scrfd_ros.bags.camera import Camera, Outcome, records_with_progress
from scrfd_ros.bags.image_topics import image_topics
from scrfd_ros.bags.message_types import DETECTION_ARRAY, FACE_ARRAY
from scrfd_ros.errors import ScrfdError
from scrfd_ros.messages.faces import ModelNames, detection_array, face_array
from scrfd_ros.pipeline import FacePipeline

_LOG = logging.getLogger(__name__)


class Replay(NamedTuple):
    """What the replay of a bag gave.

    Attributes:
        outcomes: by the topic of the images.
        left_alone: why other topics with images or something similar were not read, by topic; see
            `image_topics`.
        damage: a sentence for each file that is damaged or missing.
    """

    outcomes: dict[str, Outcome]
    left_alone: dict[str, str]
    damage: list[str]


def replay(
    path: Path,
    output: Path,
    pipeline: FacePipeline,
    topics: Sequence[str] = (),
    tracking: bool = True,
    rotation: int = 0,
) -> Replay:
    """Find the faces in every image of a bag, and write them into a new bag.

    Each image that can be decoded gives a vision_msgs/Detection2DArray and a scrfd_ros/FaceArray,
    in the order of the images, with the image's header and the time at which it was recorded. The
    first broken images of each topic are logged, as is damage to the bag, which costs only the
    images at the damaged places. Progress is shown on a terminal.

    Args:
        path: the bag to read.
        output: the bag to write, in the same format.
        topics: of the images; if empty, all that can show faces, see `image_topics`.
        tracking: give the faces of each topic ids, as the node does.
        rotation: turns the images upright; one of `scrfd_ros.images.orientation.ROTATIONS`.

    Raises:
        ScrfdError: nothing in the bag can be read, none of its images can be decoded, `output`
            exists or cannot be written, or a topic has no images. Then nothing is written.
    """
    with open_bag(path) as bag:
        for sentence in (*bag.notes, *bag.damage):
            _LOG.warning("%s", sentence)
        known_damage = bag.damage
        selection = image_topics(bag, topics)
        cameras = {
            topic: Camera(
                topic,
                namespace,
                pipeline,
                pipeline.new_tracker() if tracking else None,
                rotation,
            )
            for topic, namespace in result_namespaces(selection.names).items()
        }
        outcomes = {topic: camera.outcome for topic, camera in cameras.items()}
        with new_bag(output, bag.storage) as results:
            for outcome in outcomes.values():
                results.add_topic(outcome.detections, DETECTION_ARRAY)
                results.add_topic(outcome.faces, FACE_ARRAY)
            models = ModelNames.of(pipeline)
            for record in records_with_progress("replaying", bag, selection.topics):
                found = cameras[record.topic].find_faces(record)
                if found is not None:
                    outcome, (header, faces, _) = outcomes[record.topic], found
                    detections = detection_array(faces, header)
                    results.write(outcome.detections, record.time, detections)
                    results.write(outcome.faces, record.time, face_array(faces, header, models))
            damage = bag.damage
            for sentence in damage:
                if sentence not in known_damage:
                    _LOG.warning("%s", sentence)
            images = sum(outcome.images for outcome in outcomes.values())
            if images == sum(outcome.broken for outcome in outcomes.values()):
                raise ScrfdError(
                    f"{path}: none of the {images} images on {', '.join(outcomes)} can be read"
                )
        for topic, outcome in outcomes.items():
            _compare_with_claim(topic, outcome, bag.claims.get(topic), bool(damage))
    return Replay(outcomes, selection.left_alone, damage)


def _compare_with_claim(topic: str, outcome: Outcome, claim: int | None, is_damaged: bool) -> None:
    """Count the lost images of a damaged bag; log a wrong claim of a whole one."""
    if is_damaged:
        outcome.lost = None
        if claim is not None and claim >= outcome.images:
            outcome.lost = claim - outcome.images
    elif claim not in (None, outcome.images):
        _LOG.warning(
            "%s: the bag claims %d messages, but contains %d, all of which were read",
            topic,
            claim,
            outcome.images,
        )


def result_namespaces(topics: Iterable[str]) -> dict[str, str]:
    """The namespace of the results, by the topic of the images.

    It is the topic's own: /camera for /camera/image_raw and for /camera/image_raw/compressed. If
    several topics share a namespace, it is the topic itself.
    """
    namespaces = {topic: topic.removesuffix("/compressed").rpartition("/")[0] for topic in topics}
    shared = Counter(namespaces.values())
    return {
        topic: namespace if shared[namespace] == 1 else topic
        for topic, namespace in namespaces.items()
    }
