# SPDX-License-Identifier: Apache-2.0
"""Who faces are: made-up embeddings on the tracks of a real tracker."""

from __future__ import annotations

import threading
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
from scrfd_ros.gallery.strangers import Strangers
from scrfd_ros.tracking.tracker import Tracker

UNKNOWN, TENTATIVE, KNOWN = IdentityState


def face_of(person: int, number: int = 0) -> NDArray[np.float32]:
    """An embedding of a made-up person; cosines of one person's are about 0.8."""
    own = np.random.default_rng(person).normal(size=512)
    own += 0.5 * np.random.default_rng((person, number + 1)).normal(size=512)
    return (own / np.linalg.norm(own)).astype(np.float32)


def looks_at(person: int, count: int = 3) -> list[Look]:
    return [Look(face_of(person, 100 + number), 0.9, 0.0, 0.0) for number in range(count)]


def faces_at(places: Sequence[int]) -> Faces:
    """Faces side by side."""
    x = 200.0 * np.array(places).reshape(-1, 1)
    boxes = np.hstack((x, 0 * x, x + 50, 0 * x + 60)).astype(np.float32)
    return Faces(boxes, np.full(len(places), 0.9, np.float32))


class Camera:
    """A camera that sees people who stand side by side, at 10 images a second.

    What is embedded is what the tracker asks for, as in the pipeline.
    """

    def __init__(self, identifier: Identifier) -> None:
        self.identifier = identifier
        self.tracker = Tracker()
        self.number = self.epoch = 0

    def see(self, *people: int, quality: float = 0.9, images: int = 1) -> list[Identity]:
        for _ in range(images):
            faces = self._image(people, quality)
        assert faces.identities is not None
        return list(faces.identities)

    def _image(self, people: Sequence[int], quality: float) -> Faces:
        self.number += 1
        tracked = self.tracker.match(faces_at(people), self.number / 10, self.epoch)
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


def test_a_stranger_keeps_an_id_on_all_cameras_and_can_be_enrolled_later(
    camera: Camera, gallery: Gallery
) -> None:
    eight, nine = camera.see(8, 9, images=10)
    assert eight.state is nine.state is UNKNOWN
    assert eight.person_id.startswith("stranger-") and eight.person_id != nine.person_id
    camera.see(images=30)  # longer than tracking.max_age: the next track is a new one
    assert camera.see(8)[0].person_id == ""
    assert camera.see(8, images=5)[0].person_id == eight.person_id
    other = Camera(camera.identifier)
    assert other.see(9, images=6)[0].person_id == nine.person_id
    looks = camera.identifier.stranger_looks(nine.person_id)
    assert len(looks) == 5
    gallery.enroll("Nina", looks, source="")
    assert other.see(9)[0].name == "Nina"
    with pytest.raises(GalleryError, match="no stranger has the id"):
        camera.identifier.stranger_looks(nine.person_id)
    assert camera.see(8)[0].person_id == eight.person_id


def test_strangers_are_forgotten_after_their_time_and_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scrfd_ros.gallery.strangers._MOST", 20)
    now = 0.0
    strangers = Strangers(lambda: now)
    first = strangers.find(looks_at(5), 0.4, ())
    kept = strangers._known[first].looks
    assert strangers.find(looks_at(5), 0.4, ()) == first
    assert strangers.find(looks_at(5), 0.4, [first]) != first  # two of them in one image
    now = 10.0
    second = strangers.find(looks_at(6), 0.4, ())
    strangers.forget_old(10.0)
    assert first not in strangers and second in strangers
    assert all(not look.embedding.any() for look in kept)
    for person in range(30):
        now += 1
        strangers.find(looks_at(1000 + person, 1), 0.4, ())
    assert len(strangers._known) == 20 and second not in strangers


def test_no_strangers_without_a_time_to_live(gallery: Gallery) -> None:
    camera = Camera(Identifier(gallery, GalleryConfig(stranger_ttl=0.0)))
    assert camera.see(9, images=20)[0] == camera.see(9)[0]._replace(person_id="")


def test_what_was_seen_of_who_is_forgotten_is_overwritten(camera: Camera, gallery: Gallery) -> None:
    camera.see(1, 2, 9, images=10)
    anna, bert, stranger = camera.identifier._cameras[camera.tracker].values()
    of_anna = [look.embedding for look in (*anna.looks, *(each.look for each in anna.decision[1]))]
    of_stranger = [look.embedding for look in stranger.looks]
    of_bert = [look.embedding for look in bert.looks]
    assert of_anna and of_stranger and of_bert
    gallery.forget("Anna")
    camera.identifier.review()  # no image is needed for it
    assert not any(each.any() for each in (*of_anna, *of_stranger))
    assert all(each.any() for each in of_bert)
    states = [each.name or each.state for each in camera.see(1, 2, 9)]
    assert states == [UNKNOWN, "Bert", UNKNOWN]


def test_faces_are_forgotten_at_the_end(camera: Camera) -> None:
    camera.see(1, 9, images=10)
    tracks = camera.identifier._cameras[camera.tracker].values()
    strangers = camera.identifier._strangers._known.values()
    seen = [look for track in tracks for look in track.looks]
    seen += [look for stranger in strangers for look in stranger.looks]
    camera.identifier.forget_all()
    assert seen and not any(look.embedding.any() for look in seen)
    assert not camera.identifier._cameras


def test_a_face_that_leaves_is_dropped(camera: Camera) -> None:
    camera.see(1, images=10)
    (track,) = camera.identifier._cameras[camera.tracker].values()
    camera.see(images=30)
    assert not camera.identifier._cameras[camera.tracker]
    assert not any(look.embedding.any() for look in track.looks)


def test_options_take_effect_with_the_next_image(camera: Camera) -> None:
    camera.see(1, images=10)
    camera.identifier.config = GalleryConfig(threshold=0.95)
    assert camera.see(1)[0].state is UNKNOWN
    camera.identifier.config = GalleryConfig(looks=2)
    assert camera.see(1)[0].name == "Anna"
    camera.identifier.config = GalleryConfig(looks=20)
    assert camera.see(1)[0].name == "Anna"  # as there were as many as were asked for then


def test_many_changes_of_a_large_gallery_do_not_keep_the_camera(
    camera: Camera, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Votes are counted again now and then: that takes long if there are many templates."""
    monkeypatch.setattr("scrfd_ros.gallery.identifier._LONG", 0.0)
    monkeypatch.setattr("scrfd_ros.gallery.identifier._PAUSE", 1e9)
    camera.see(1, images=10)
    gallery.merge("Anna", "Bert")
    assert camera.see(1)[0].name == "Bert"
    gallery.split("Anna")
    assert camera.see(1)[0].name == "Bert"
    gallery.forget("Bert")
    assert camera.see(1)[0].state is UNKNOWN  # whoever is forgotten has no name in any case
    camera.identifier._next_review = 0.0
    assert camera.see(1, images=3)[-1].name == ""
    assert camera.see(1, images=9)[-1].name == "Anna"


def test_another_person_on_the_track_needs_twice_the_looks(camera: Camera) -> None:
    camera.see(1, images=40)
    names = []
    (look,) = looks_at(2, 1)
    for number in range(9):
        tracked = camera.tracker.match(faces_at([1]), (camera.number + 1 + number) / 10)
        camera.tracker.commit(tracked)
        found = camera.identifier.identify(tracked.faces, {0: look}, camera.tracker).identities
        assert found is not None
        names.append(found[0].name)
    assert names == [*["Anna"] * 5, *["Bert"] * 4]


def test_a_settled_face_is_seldom_embedded(camera: Camera) -> None:
    camera.see(1, 9, images=12)  # five looks each
    assert camera.tracker.eager == frozenset()
    camera.see(1, 9, images=5, quality=0.1)
    assert camera.tracker.eager == frozenset()


def test_two_faces_of_one_person_get_one_name(camera: Camera, gallery: Gallery) -> None:
    identifier = camera.identifier
    faces = Faces(np.zeros((2, 4), np.float32), np.ones(2, np.float32))
    near, far = gallery.templates_of(gallery.find("Anna"))[0].embedding, face_of(1, 50)
    found = identifier.identify(
        faces, {0: Look(far, 0.9, 0.0, 0.0), 1: Look(near, 0.9, 0.0, 0.0)}
    ).identities
    assert found is not None
    assert [each.state for each in found] == [TENTATIVE, KNOWN]


def test_time_that_starts_anew_drops_what_was_known(camera: Camera) -> None:
    camera.see(1, images=10)
    camera.epoch += 1
    camera.number = 0
    assert camera.see(1)[0].state is TENTATIVE
    assert camera.see(1, images=6)[0].name == "Anna"


def test_names_follow_the_ids_that_the_tracker_exchanges(camera: Camera) -> None:
    camera.see(1, 2, images=12)
    camera.see(images=4)  # and change places meanwhile
    tracked = camera.tracker.match(faces_at([1, 2]), 1.7)
    assert tracked.faces.ids is not None and tracked.faces.ids.tolist() == [1, 2]
    vectors = np.stack([face_of(2), face_of(1)])
    tracked = tracked.learn(tracked.rows, vectors, np.ones(2, np.float32))
    camera.tracker.commit(tracked)
    assert tracked.faces.ids is not None and tracked.faces.ids.tolist() == [2, 1]
    found = camera.identifier.identify(tracked.faces, {}, camera.tracker).identities
    assert found is not None
    assert [each.name for each in found] == ["Bert", "Anna"]


def test_requests_come_from_another_thread(camera: Camera, gallery: Gallery) -> None:
    camera.see(1, 9, images=10)
    ended = threading.Event()
    errors: list[Exception] = []

    def ask() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            try:
                camera.identifier.looks(camera.tracker, 1)
                person = gallery.enroll(f"person {number}", looks_at(100 + number, 1), source="")
                camera.identifier.settle(camera.tracker, 1, person.id)
                gallery.forget(person.id)
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    names = {camera.see(1, 9)[0].name for _ in range(100)}
    ended.set()
    thread.join()
    assert not errors and names == {"Anna"}
