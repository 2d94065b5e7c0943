"""Faces in the images of a bag: what the node would have published, had it missed none."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from scrfd_ros.bag_messages import (
    COMPRESSED_IMAGE,
    DETECTION_ARRAY,
    FACE_ARRAY,
    IMAGE,
    TYPES,
    MessageError,
    decoded,
    detection_array,
    encoded,
    face_array,
    faces_of,
)
from scrfd_ros.bags import Bag, new_bag, open_bag
from scrfd_ros.errors import ImageError, ScrfdError
from scrfd_ros.evaluation.recordings import Comparison, FrameKey, compare_recordings, seconds
from scrfd_ros.faces import Faces
from scrfd_ros.frame_clock import FrameClock, FrameTime
from scrfd_ros.image_encodings import bgr_from_compressed, bgr_from_image, in_whole_picture
from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.tracking import Tracker

_LOG = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What has come of one topic of images.

    Attributes:
        detections, faces: the topics with the results.
        images: those that were read.
        broken: of these, those in which nothing could be looked for.
        found: faces, in all images together.
        damaged: images that were used although their data is damaged.
    """

    detections: str
    faces: str
    images: int = 0
    broken: int = 0
    found: int = 0
    damaged: int = 0


def replay(
    path: Path,
    output: Path,
    pipeline: FacePipeline,
    topics: Sequence[str] = (),
    tracking: bool = True,
) -> dict[str, Outcome]:
    """Find the faces in every image of a bag, and write them into a new one.

    For each image that is not broken there is one vision_msgs/Detection2DArray and one
    scrfd_ros/FaceArray, with the image's header and the time at which the image was recorded, in
    the order of the images. Broken ones are logged. Progress is shown on a terminal.

    Args:
        path: the bag that is read.
        output: the bag that is written, stored in the same way.
        topics: of the images; all there are, if none is given.
        tracking: give the faces of each topic ids, as the node does.

    Returns:
        For each topic of images what has come of it.

    Raises:
        ScrfdError: a bag cannot be read or written, `output` exists, or a topic has no images.
    """
    with open_bag(path) as bag:
        chosen = _image_topics(bag, topics)
        total = bag.count(chosen)
        if not total:
            raise ScrfdError(f"{path}: there are no images on {', '.join(chosen)}")
        outcomes = {
            topic: Outcome(f"{namespace}/detections", f"{namespace}/faces")
            for topic, namespace in result_namespaces(chosen).items()
        }
        trackers = {topic: Tracker() if tracking else None for topic in chosen}
        clocks = {topic: FrameClock(topic) if tracking else None for topic in chosen}
        with new_bag(output, bag.storage) as results, logging_redirect_tqdm():
            for outcome in outcomes.values():
                results.add_topic(outcome.detections, DETECTION_ARRAY)
                results.add_topic(outcome.faces, FACE_ARRAY)
            bar = tqdm(
                bag.records(chosen), "replaying", total, unit="image", leave=False, disable=None
            )
            for topic, kind, time, data in bar:
                outcome = outcomes[topic]
                outcome.images += 1
                stamp = f"recorded at {seconds(time)}"
                try:
                    image = decoded(data, kind)
                    stamp = f"stamp {seconds(_nanoseconds(image.header.stamp))}"
                    frame_time = _time_of(image, time, clocks[topic])
                    faces, damage = _faces_in(image, kind, pipeline, trackers[topic], frame_time)
                except (MessageError, ImageError) as error:
                    outcome.broken += 1
                    _LOG.warning("%s, %s: image skipped: %s", topic, stamp, error)
                    continue
                outcome.found += len(faces)
                if damage:
                    outcome.damaged += 1
                    if outcome.damaged == 1:
                        _LOG.warning("%s, %s: used, but %s", topic, stamp, damage)
                detections = detection_array(faces, image.header)
                results.write(outcome.detections, time, encoded(detections, DETECTION_ARRAY))
                message = face_array(detections, faces, pipeline)
                results.write(outcome.faces, time, encoded(message, FACE_ARRAY))
    return outcomes


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
        models: names of the detector and the recogniser.
        frames: the faces of each image.
    """

    models: str
    frames: dict[FrameKey, Faces]


def read_recordings(path: Path) -> dict[str, Recording]:
    """The faces in a bag, replayed or recorded from a node, by topic.

    Raises:
        ScrfdError: the bag cannot be read, or there are no faces of this version in it.
    """
    with open_bag(path) as bag:
        topics = bag.topics(FACE_ARRAY)
        if not topics:
            raise ScrfdError(
                f"{path}: there is no topic of the type {FACE_ARRAY} in it; expected a bag that "
                f"was replayed, or one in which the node's `faces` were recorded"
            )
        if bag.hashes(topics) - {TYPES.hash_rihs01(FACE_ARRAY)}:
            raise ScrfdError(
                f"{path}: its {FACE_ARRAY} is that of another version of scrfd_ros; make it anew"
            )
        recordings = {topic: Recording("", {}) for topic in topics}
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
    return {
        topic: compare_recordings(found.get(topic, nothing).frames, expected.frames)
        for topic, expected in golden.items()
    }


def _image_topics(bag: Bag, wanted: Sequence[str]) -> list[str]:
    there = bag.topics(IMAGE, COMPRESSED_IMAGE)
    unknown = [topic for topic in wanted if topic not in there]
    if there and not unknown:
        return [topic for topic in there if topic in wanted or not wanted]
    others = ", ".join(f"{topic} ({kind})" for topic, kind in bag.kinds.items()) or "no topics"
    missing = f"there are no images on {', '.join(unknown)}" if unknown else "there are no images"
    raise ScrfdError(
        f"{bag.path}: {missing}; expected topics of the type {IMAGE} or {COMPRESSED_IMAGE}, found "
        f"{others}"
    )


def _faces_in(
    image: Any, kind: str, pipeline: FacePipeline, tracker: Tracker | None, time: FrameTime
) -> tuple[Faces, str]:
    """The faces, and what is wrong with the image's data."""
    reduction, damage = 1, ""
    if kind == IMAGE:
        picture = bgr_from_image(image)
    else:
        # As in the node: faces to recognise are cut from the whole picture.
        smallest = pipeline.detector.input_size if pipeline.recognizer is None else None
        picture, reduction, damage = bgr_from_compressed(image.format, image.data, smallest)
    result = pipeline(picture, tracker, *time)
    return in_whole_picture(result.faces, reduction), damage


def _time_of(image: Any, recorded: int, clock: FrameClock | None) -> FrameTime:
    """When an image was taken. It arrives when it was recorded, so that a bag's results are always
    the same."""
    if clock is None:
        return FrameTime(0, 0)
    return clock.time_of(image.header.stamp.sec, image.header.stamp.nanosec, recorded)


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec * 10**9 + stamp.nanosec)
