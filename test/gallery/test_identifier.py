# SPDX-License-Identifier: Apache-2.0
"""Who faces are: made-up embeddings on the tracks of a real tracker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scrfd_ros.config import GalleryConfig
from scrfd_ros.errors import GalleryError
from scrfd_ros.faces import Faces, Identity, IdentityState
from scrfd_ros.gallery.gallery import Gallery
from scrfd_ros.gallery.identifier import Identifier
from scrfd_ros.gallery.opening import open_gallery
from scrfd_ros.gallery.people import GalleryInfo, Look
from scrfd_ros.tracking.tracker import Tracker

UNKNOWN, TENTATIVE, KNOWN = IdentityState


def face_of(person: int, number: int = 0) -> NDArray[np.float32]:
    """An embedding of a made-up person; cosines of one person's are about 0.8."""
    own = np.random.default_rng(person).normal(size=512)
    own += 0.5 * np.random.default_rng((person, number + 1)).normal(size=512)
    return (own / np.linalg.norm(own)).astype(np.float32)


def looks_at(person: int, count: int = 3) -> list[Look]:
    return [Look(face_of(person, 100 + number), 0.9, 0.0, 0.0) for number in range(count)]


class Camera:
    """A camera that sees people who stand side by side, at 10 images a second.

    What is embedded is what the tracker asks for, as in the pipeline.
    """

    def __init__(self, identifier: Identifier) -> None:
        self.identifier = identifier
        self.tracker = Tracker()
        self.number = 0

    def see(self, *people: int, quality: float = 0.9, images: int = 1) -> list[Identity]:
        for _ in range(images):
            faces = self._image(people, quality)
        assert faces.identities is not None
        return list(faces.identities)

    def _image(self, people: Sequence[int], quality: float) -> Faces:
        self.number += 1
        x = 200.0 * np.array(people).reshape(-1, 1)
        boxes = np.hstack((x, 0 * x, x + 50, 0 * x + 60)).astype(np.float32)
        faces = Faces(boxes, np.full(len(people), 0.9, np.float32))
        tracked = self.tracker.match(faces, self.number / 10)
        rows = tracked.rows
        embeddings = [face_of(people[row], self.number) for row in rows]
        vectors = np.array(embeddings, np.float32).reshape(-1, 512)
        tracked = tracked.learn(rows, vectors, np.ones(len(rows), np.float32))
        self.tracker.commit(tracked)
        looks = {
            int(row): Look(vector, quality, 0.0, 0.0)
            for row, vector in zip(rows, vectors, strict=True)
            if tracked.certain[row]
        }
        return self.identifier.identify(tracked.faces, looks, self.tracker)


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    info = GalleryInfo("w600k_mbf", "0" * 64, 512)
    with open_gallery(str(tmp_path / "people.db"), info) as gallery:
        gallery.enroll("Anna", looks_at(1), source="")
        gallery.enroll("Bert", looks_at(2), source="")
        yield gallery


@pytest.fixture
def camera(gallery: Gallery) -> Camera:
    return Camera(Identifier(gallery, GalleryConfig()))


def test_people_are_named_after_three_looks_and_strangers_never(camera: Camera) -> None:
    anna, stranger = camera.see(1, 9)
    assert anna.state is TENTATIVE and anna.name == "" and anna.similarity > 0.7
    assert stranger.state is UNKNOWN and stranger.similarity < 0.3
    camera.see(1, 9, images=3)
    assert camera.see(1, 9)[0].name == "Anna"  # looks at 0, 0.2 and 0.4 s
    assert {each.name for _ in range(50) for each in camera.see(1, 9)} == {"Anna", ""}


def test_looks_of_low_quality_do_not_count(camera: Camera) -> None:
    assert camera.see(1, quality=0.2, images=30)[0].state is TENTATIVE
    camera.see(1, images=60)
    assert camera.see(1)[0].name == "Anna"


def test_without_a_tracker_one_look_decides(gallery: Gallery) -> None:
    identifier = Identifier(gallery, GalleryConfig())
    faces = Faces(np.zeros((4, 4), np.float32), np.ones(4, np.float32))
    looks = {0: looks_at(1)[0], 1: looks_at(1)[0]._replace(quality=0.1), 3: looks_at(7)[0]}
    found = identifier.identify(faces, looks).identities
    assert found is not None
    assert [each.state for each in found] == [KNOWN, TENTATIVE, UNKNOWN, UNKNOWN]
    assert found[0].name == "Anna" and not found[1].name and found[2] == Identity()


def test_corrections_tell_in_the_next_image(camera: Camera, gallery: Gallery) -> None:
    camera.see(1, images=10)
    gallery.rename("Anna", "Anne")
    assert camera.see(1)[0].name == "Anne"
    gallery.merge("Anne", "Bert")
    assert camera.see(1)[0].name == "Bert"
    gallery.split("Anne")
    assert camera.see(1)[0].name == "Anne"
    gallery.forget("Anne")
    assert camera.see(1)[0].state is UNKNOWN


def test_a_face_is_rejected_and_enrolled_from_what_was_seen(
    camera: Camera, gallery: Gallery
) -> None:
    camera.see(1, images=10)
    identifier, tracker = camera.identifier, camera.tracker
    person_id, looks = identifier.reject(tracker, 1)
    assert person_id == gallery.find("Anna").id and len(looks) >= 3
    assert camera.see(1)[0].state is UNKNOWN  # even though no negative example was stored
    person = gallery.enroll("Anne", identifier.looks(tracker, 1), source="")
    gallery.forget("Anna")
    identifier.settle(tracker, 1, person.id)
    assert camera.see(1)[0].name == "Anne"
    with pytest.raises(GalleryError, match="no face has the id 7 now"):
        identifier.looks(tracker, 7)
