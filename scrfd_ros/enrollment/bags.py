# SPDX-License-Identifier: Apache-2.0
"""The looks at people in a bag, by track."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from scrfd_ros.bags.bag import open_bag
from scrfd_ros.bags.camera import Camera, records_with_progress
from scrfd_ros.bags.image_topics import image_topics
from scrfd_ros.errors import ScrfdError
from scrfd_ros.gallery.people import Look
from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.tracking.tracker import Tracker

_LOG = logging.getLogger(__name__)

_PERIOD: Final = 0.2
"""Seconds after which a face is looked at again."""
_MOST_LOOKS: Final = 200
"""Maximum number of looks that are kept of a track, the best ones."""
_SUFFIXES: Final = (".db3", ".mcap", ".zstd", ".zst")


@dataclass
class Track:
    """A face that was followed through the images of a bag.

    Attributes:
        id: as in a replay with the same options.
        start, end: when it was seen first and last, seconds since the first image.
        looks: the best ones, best first; their source names the bag.
    """

    id: int
    start: float
    end: float
    looks: list[Look] = field(default_factory=list)


def is_bag(path: Path) -> bool:
    """Whether a path seems to be a bag, by its name or the metadata in a folder."""
    return path.suffix in _SUFFIXES or os.path.exists(path / "metadata.yaml")


def tracks_in(
    path: Path, pipeline: FacePipeline, topic: str | None = None, rotation: int = 0
) -> list[Track]:
    """The faces in a bag that were looked at, in the order in which they came.

    Progress is shown on a terminal; images that cannot be read, and damage, are logged.

    Args:
        path: the bag.
        pipeline: with a gallery.
        topic: of the images; None: the only one with images that can show faces.
        rotation: turns the images upright; one of `scrfd_ros.images.orientation.ROTATIONS`.

    Raises:
        ScrfdError: the bag cannot be read, has no such topic, or several of them.
    """
    tracks: dict[int, Track] = {}
    tracker = Tracker(replace(pipeline.config.tracking, refresh_period=_PERIOD))
    with open_bag(path) as bag:
        selection = image_topics(bag, [topic] if topic else [])
        if len(selection.names) > 1:
            raise ScrfdError(
                f"{path}: images on several topics; choose one by --topic: "
                f"{', '.join(selection.names)}"
            )
        camera = Camera(selection.names[0], "", pipeline, tracker, rotation)
        first = None
        for record in records_with_progress("looking", bag, selection.topics):
            first = record.time if first is None else first
            found = camera.find_faces(record)
            if found is None:
                continue
            now = (record.time - first) / 1e9
            assert found.faces.ids is not None
            for row, track_id in enumerate(found.faces.ids.tolist()):
                track = tracks.setdefault(track_id, Track(track_id, now, now))
                track.end = now
                if row in found.looks:
                    track.looks.append(found.looks[row]._replace(source=path.name))
                    if len(track.looks) >= 2 * _MOST_LOOKS:
                        track.looks = _best(track.looks)
        for sentence in (*bag.notes, *bag.damage):
            _LOG.warning("%s", sentence)
    for track in tracks.values():
        track.looks = _best(track.looks)
    return [track for track in tracks.values() if track.looks]


def _best(looks: Sequence[Look]) -> list[Look]:
    return sorted(looks, key=lambda each: -each.quality)[:_MOST_LOOKS]
