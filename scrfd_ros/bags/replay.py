# SPDX-License-Identifier: Apache-2.0
"""Faces in the images of a bag: what the node would have published, had it missed none."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from scrfd_ros.bags.bag import new_bag, open_bag
from scrfd_ros.bags.image_topics import image_topics
from scrfd_ros.bags.recordings import Comparison, FrameKey, compare_recordings, seconds
from scrfd_ros.errors import ImageError, ScrfdError
from scrfd_ros.faces import Faces
from scrfd_ros.images.message import decode_message
from scrfd_ros.messages.bag_codec import (
    DETECTION_ARRAY,
    FACE_ARRAY,
    TYPES,
    MessageError,
    decoded,
    detection_array,
    encoded,
    face_array,
    faces_of,
)
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
                    image = decoded(data, kind)
                    stamp = f"stamp {seconds(_nanoseconds(image.header.stamp))}"
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
                detections = detection_array(faces, image.header)
                results.write(outcome.detections, time, encoded(detections, DETECTION_ARRAY))
                message = face_array(detections, faces, pipeline)
                results.write(outcome.faces, time, encoded(message, FACE_ARRAY))
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


class Recording(NamedTuple):
    """The faces on one topic of a bag.

    Attributes:
        models: names of the detector and the recognizer.
        frames: the faces of each image.
    """

    models: str
    frames: dict[FrameKey, Faces]


def read_recordings(path: Path) -> dict[str, Recording]:
    """The faces in a bag, replayed or recorded from a node, by topic.

    Raises:
        ScrfdError: the bag cannot be read as a whole, or there is no message of this version in it.
    """
    with open_bag(path) as bag:
        topics = bag.topics(FACE_ARRAY)
        if not topics:
            raise ScrfdError(
                f"{path}: there is no topic of the type {FACE_ARRAY} in it; expected a bag that "
                f"was replayed, or one in which the node's `faces` were recorded"
            )
        if {topic.digest for topic in topics} - {"", TYPES.hash_rihs01(FACE_ARRAY)}:
            raise ScrfdError(
                f"{path}: its {FACE_ARRAY} is that of another version of scrfd_ros; make it anew"
            )
        recordings = {topic.name: Recording("", {}) for topic in topics}
        repeats: Counter[tuple[str, int]] = Counter()
        for topic, kind, _, data in bag.records(topics):
            try:
                message = decoded(data, kind)
                faces = faces_of(message)
            except MessageError as error:
                raise ScrfdError(f"{path}, {topic}: {error}") from error
            stamp = _nanoseconds(message.header.stamp)
            frames = recordings[topic].frames
            frames[stamp, repeats[topic, stamp]] = faces
            repeats[topic, stamp] += 1
            models = " + ".join(filter(None, (message.detector, message.recognizer)))
            recordings[topic] = Recording(models, frames)
        if bag.damage:
            raise ScrfdError(f"{bag.damage[0]}; or make it anew")
    if not any(recording.frames for recording in recordings.values()):
        raise ScrfdError(
            f"{path}: there is no message on {', '.join(recordings)}, and so nothing to compare "
            f"with; make it anew from a bag with images"
        )
    return recordings


def compare(
    found: Mapping[str, Recording], golden: Mapping[str, Recording]
) -> dict[str, Comparison]:
    """Compare recordings of the same topics; where each side has but one, whatever its name.

    Returns:
        For each topic of `golden` how far it agrees with that of `found`.
    """
    if len(found) == len(golden) == 1:
        found = dict(zip(golden, found.values(), strict=True))
    nothing = Recording("", {})
    for topic, expected in golden.items():
        _warn_of_repeated_stamps(topic, found.get(topic, nothing).frames, expected.frames)
    return {
        topic: compare_recordings(found.get(topic, nothing).frames, expected.frames)
        for topic, expected in golden.items()
    }


def _warn_of_repeated_stamps(
    topic: str, found: Iterable[FrameKey], golden: Iterable[FrameKey]
) -> None:
    ours, theirs = (Counter(stamp for stamp, _ in keys) for keys in (found, golden))
    for stamp in sorted(ours.keys() & theirs.keys()):
        if ours[stamp] != theirs[stamp]:
            _LOG.warning(
                "%s: %d images here and %d there have the stamp %s: they are compared in their "
                "order, and differences can be those between images. Replay the bag for both",
                topic,
                ours[stamp],
                theirs[stamp],
                seconds(stamp),
            )
            return


def _time_of(image: Any, recorded: int, clock: FrameClock | None) -> FrameTime:
    """When an image was taken. It arrives when it was recorded, so that a bag's results are always
    the same."""
    if clock is None:
        return FrameTime(0, 0)
    return clock.time_of(image.header.stamp.sec, image.header.stamp.nanosec, recorded)


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec * 10**9 + stamp.nanosec)
