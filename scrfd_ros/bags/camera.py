# SPDX-License-Identifier: Apache-2.0
"""Find the faces in the images of one topic of a bag."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from tqdm import tqdm

from scrfd_ros.bags.bag import Bag
from scrfd_ros.bags.bag_file import Record, Topic
from scrfd_ros.bags.message_types import deserialize
from scrfd_ros.bags.times import nanoseconds, seconds
from scrfd_ros.errors import ImageError, MessageError
from scrfd_ros.faces import Faces
from scrfd_ros.gallery.people import Look
from scrfd_ros.images.message import decode_message
from scrfd_ros.messages.cdr import Header
from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.tracking.frame_clock import FrameClock, FrameTime
from scrfd_ros.tracking.tracker import Tracker

_LOG = logging.getLogger(__name__)

_MAX_LOGGED: Final = 5
"""Maximum number of broken images of a topic that are logged one by one."""


@dataclass
class Outcome:
    """What the images on one topic of a bag gave.

    Attributes:
        namespace: for the topics with the results, see `detections` and `faces`.
        images: number of images that were read.
        broken: number of these that could not be decoded.
        lost: number of images that were recorded but cannot be read from a damaged bag; None if it
            is unknown.
        found: number of faces in all images.
        damaged: number of images that were used although their data is damaged.
    """

    namespace: str
    images: int = 0
    broken: int = 0
    lost: int | None = 0
    found: int = 0
    damaged: int = 0

    @property
    def detections(self) -> str:
        return f"{self.namespace}/detections"

    @property
    def faces(self) -> str:
        return f"{self.namespace}/faces"


class Found(NamedTuple):
    """What was found in one image of a bag.

    Attributes:
        header: of the image's message.
        faces: in pixels of the image as it is.
        looks: at the faces that were embedded in this image, by row; empty without a gallery.
    """

    header: Header
    faces: Faces
    looks: Mapping[int, Look]


class Camera:
    """A topic of images of a bag, which are searched one after the other, as the node does.

    Args:
        topic: of the images.
        namespace: for the results.
        tracker: None for no ids.
        rotation: turns the images upright; one of `scrfd_ros.images.orientation.ROTATIONS`.

    Attributes:
        outcome: what the images gave so far.
    """

    def __init__(
        self,
        topic: str,
        namespace: str,
        pipeline: FacePipeline,
        tracker: Tracker | None,
        rotation: int,
    ) -> None:
        self.outcome = Outcome(namespace)
        self._topic = topic
        self._pipeline = pipeline
        self._tracker = tracker
        self._clock = FrameClock(topic)
        self._rotation = rotation

    def find_faces(self, record: Record) -> Found | None:
        """What is in an image, counted; None if it cannot be decoded, which is logged."""
        self.outcome.images += 1
        place = f"recorded at {seconds(record.time)}"
        try:
            message = deserialize(record.data, record.kind)
            place = f"stamp {seconds(nanoseconds(message.header.stamp))}"
            time = self._time_of(message.header, record.time)
            image = decode_message(message, self._rotation, self._pipeline.fit(self._tracker))
            result = self._pipeline(image, self._tracker, *time)
            faces = image.restore(result.faces)
        except (MessageError, ImageError) as error:
            self._skip(place, error)
            return None
        self.outcome.found += len(faces)
        if image.damage:
            self.outcome.damaged += 1
            if self.outcome.damaged == 1:
                _LOG.warning("%s, %s: used, but %s", self._topic, place, image.damage)
        return Found(message.header, faces, result.looks)

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


def records_with_progress(text: str, bag: Bag, topics: Sequence[Topic]) -> Iterator[Record]:
    """The records of a bag on these topics; progress is shown on a terminal, after the text."""
    records, count = bag.records(topics), bag.count(topics)
    yield from tqdm(records, text, count, unit="image", leave=False, disable=None)
