# SPDX-License-Identifier: Apache-2.0
"""Find the faces in the images of a bag, and write what the node would have published."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from tqdm import tqdm

from scrfd_ros.bags.bag import Bag, open_bag
from scrfd_ros.bags.bag_file import Record, Topic
from scrfd_ros.bags.bag_writer import new_bag
from scrfd_ros.bags.image_topics import image_topics
from scrfd_ros.bags.message_types import DETECTION_ARRAY, FACE_ARRAY, deserialize
from scrfd_ros.bags.times import nanoseconds, seconds
from scrfd_ros.errors import ImageError, MessageError, ScrfdError
from scrfd_ros.faces import Faces
from scrfd_ros.images.message import decode_message
from scrfd_ros.messages.cdr import Header
from scrfd_ros.messages.faces import ModelNames, detection_array, face_array
from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.tracking.frame_clock import FrameClock, FrameTime
from scrfd_ros.tracking.tracker import Tracker

_LOG = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What the replay of one topic of images gave.

    Attributes:
        detections, faces: the topics with the results.
        images: number of images that were read.
        broken: number of these that could not be decoded.
        lost: number of images that were recorded but cannot be read from a damaged bag; None if it
            is unknown.
        found: number of faces in all images.
        damaged: number of images that were used although their data is damaged.
    """

    detections: str
    faces: str
    images: int = 0
    broken: int = 0
    lost: int | None = 0
    found: int = 0
    damaged: int = 0


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


_MAX_LOGGED: Final = 5
"""Maximum number of broken images of a topic that are logged one by one."""


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
            topic: _Camera(
                topic,
                Outcome(f"{namespace}/detections", f"{namespace}/faces"),
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
            for record in _with_progress(bag, selection.topics):
                answer = cameras[record.topic].find_faces(record)
                if answer is not None:
                    outcome, (header, faces) = outcomes[record.topic], answer
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


class _Camera:
    """The state of one topic of images during a replay."""

    def __init__(
        self,
        topic: str,
        outcome: Outcome,
        pipeline: FacePipeline,
        tracker: Tracker | None,
        rotation: int,
    ) -> None:
        self.outcome = outcome
        self._topic = topic
        self._pipeline = pipeline
        self._tracker = tracker
        self._clock = FrameClock(topic)
        self._rotation = rotation

    def find_faces(self, record: Record) -> tuple[Header, Faces] | None:
        """The header and the faces of an image, counted; None if it cannot be decoded."""
        self.outcome.images += 1
        place = f"recorded at {seconds(record.time)}"
        try:
            message = deserialize(record.data, record.kind)
            place = f"stamp {seconds(nanoseconds(message.header.stamp))}"
            time = self._time_of(message.header, record.time)
            image = decode_message(message, self._rotation, self._pipeline.fit(self._tracker))
            faces = image.restore(self._pipeline(image, self._tracker, *time).faces)
        except (MessageError, ImageError) as error:
            self._skip(place, error)
            return None
        self.outcome.found += len(faces)
        if image.damage:
            self.outcome.damaged += 1
            if self.outcome.damaged == 1:
                _LOG.warning("%s, %s: used, but %s", self._topic, place, image.damage)
        return message.header, faces

    def _time_of(self, header: Header, recorded: int) -> FrameTime:
        """The time of an image, whose recording counts as its arrival: the same in every replay."""
        if self._tracker is None:
            return FrameTime(0, 0)
        return self._clock.time_of(header.stamp.sec, header.stamp.nanosec, recorded)

    def _skip(self, place: str, error: Exception) -> None:
        self.outcome.broken += 1
        if self.outcome.broken <= _MAX_LOGGED:
            _LOG.warning("%s, %s: image skipped: %s", self._topic, place, error)
        elif self.outcome.broken == _MAX_LOGGED + 1:
            _LOG.warning("%s: further skipped images are only counted", self._topic)


def _with_progress(bag: Bag, topics: Sequence[Topic]) -> Iterator[Record]:
    records, count = bag.records(topics), bag.count(topics)
    yield from tqdm(records, "replaying", count, unit="image", leave=False, disable=None)


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
