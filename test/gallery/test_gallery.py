# SPDX-License-Identifier: Apache-2.0
"""Galleries: people come, are found, corrected and forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from galleries import INFO, looks

from scrfd_ros.errors import GalleryError, NoGalleryError
from scrfd_ros.gallery.gallery import Gallery
from scrfd_ros.gallery.opening import open_gallery, open_store


@pytest.fixture
def gallery(place: str) -> Iterator[Gallery]:
    with open_gallery(place, INFO) as gallery:
        yield gallery


def test_people_are_enrolled_corrected_and_forgotten(gallery: Gallery) -> None:
    anna = gallery.enroll("Anna", looks(1), source="anna.jpg")
    bert = gallery.enroll("Bert", looks(2), source="bert.jpg")
    (look,) = looks(1, 1)
    best, second = gallery.nearest(look.embedding)
    assert best.person_id == anna.id and best.similarity > 0.5
    assert second.person_id == bert.id and second.similarity < 0.3
    gallery.merge("Anna", "Bert")
    assert [each.person_id for each in gallery.nearest(look.embedding)] == [bert.id]
    assert gallery.template_counts() == {bert.id: 6}
    gallery.split("Anna")
    assert gallery.nearest(look.embedding)[0].person_id == anna.id
    gallery.rename("Anna", "Anne")
    assert gallery.find("Anne") == anna._replace(name="Anne")
    gallery.reject("Anne", [look], "a mistake")
    assert [each.person_id for each in gallery.nearest(look.embedding)] == [bert.id]
    gallery.forget("Anne")
    assert [each.name for each in gallery.people] == ["Bert"]
    with pytest.raises(GalleryError, match="nobody in the gallery is called 'Anne'"):
        gallery.find("Anne")


def test_another_process_sees_changes_after_a_refresh(gallery: Gallery, place: str) -> None:
    with open_gallery(place) as other:
        gallery.enroll("Anna", looks(1), source="")
        other.refresh()
        assert [each.name for each in other.people] == ["Anna"]
        gallery.forget("Anna")
        other.refresh()
        assert not other.people and other.template_count == 0


def test_a_gallery_that_has_to_exist_is_not_made(new_place: Callable[[], str]) -> None:
    place = new_place()
    for _ in range(2):
        with pytest.raises(NoGalleryError, match="there is no gallery"):
            open_gallery(place)


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_a_following_gallery_sees_changes_within_a_second(gallery: Gallery, place: str) -> None:
    with open_gallery(place) as other:
        other.follow()
        for change, done in (
            (
                lambda: gallery.enroll("Anna", looks(1), source=""),
                lambda: other.template_count == 3,
            ),
            (lambda: gallery.rename("Anna", "Anne"), lambda: other.people[0].name == "Anne"),
            (lambda: gallery.forget("Anne"), lambda: not other.people),
        ):
            time.sleep(0.3)  # nothing happens for a while
            change()
            start = time.monotonic()
            assert until(done)
            assert time.monotonic() - start < 1
        assert other.state == ""


def test_people_are_forgotten_when_they_expire(gallery: Gallery) -> None:
    gallery.enroll("Bert", looks(2), source="", expires=time.time() + 1e6)
    assert gallery.forget_expired() == 0
    soon = time.time() + 0.5
    anna = gallery.enroll("Anna", looks(1), source="", expires=soon)
    gallery.enroll("Carl", looks(3), source="")
    gallery.merge("Carl", "Anna")
    gallery.follow()
    assert until(lambda: len(gallery.people) == 1)
    assert time.time() >= soon
    assert gallery.person(anna.id) is None
    with pytest.raises(GalleryError, match="Carl"):
        gallery.find("Carl")  # the same human


def test_merges_nest_and_splits_restore_exactly(gallery: Gallery) -> None:
    anna, bert, carl = (
        gallery.enroll(name, looks(index), source="") for index, name in enumerate("ABC")
    )
    gallery.merge("A", "B")
    gallery.merge("A", "C")  # the whole person, so B and with it A
    assert gallery.people == [carl]
    assert {each.name for each in gallery.merged(carl.id)} == {"A", "B"}
    for again in (("C", "A"), ("A", "B"), ("A", "A")):
        with pytest.raises(GalleryError, match="one person already"):
            gallery.merge(*again)
    with pytest.raises(GalleryError, match="C is not merged"):
        gallery.split("C")
    gallery.split("B")
    assert gallery.people == [bert, carl]
    assert gallery.template_counts() == {bert.id: 6, carl.id: 3}
    gallery.split("A")
    assert gallery.people == [anna, bert, carl]


def test_two_processes_cannot_merge_in_a_circle(gallery: Gallery, place: str) -> None:
    for index, name in enumerate("ABC"):
        gallery.enroll(name, looks(index), source="")
    store = open_store(place, None)
    ids = {each.name: each.id for each in gallery.people}
    gallery.merge("A", "B")
    gallery.merge("B", "C")
    with pytest.raises(GalleryError, match="one person already"):
        store.merge(ids["C"], ids["A"])  # as one would who has not seen the others
    with pytest.raises(GalleryError, match="a moment ago"):
        store.merge(ids["A"], ids["C"])
    store.close()


def test_who_is_merged_is_forgotten_with_the_whole_person(gallery: Gallery) -> None:
    for index, name in enumerate("ABCD"):
        gallery.enroll(name, looks(index), source="")
    gallery.merge("A", "B")
    gallery.merge("B", "C")
    with pytest.raises(GalleryError, match="A is merged into C: forget C"):
        gallery.forget("A")
    gallery.forget("C")
    assert [each.name for each in gallery.people] == ["D"]
    assert gallery.template_count == 3


def test_a_person_may_come_back_after_being_forgotten(gallery: Gallery, place: str) -> None:
    """With the same ids, as by an import of what was exported before."""
    with open_gallery(place) as other:
        anna = gallery.enroll("Anna", looks(1), source="")
        templates = gallery.templates_of(anna)
        other.refresh()
        gallery.forget("Anna")
        store = open_store(place, None)
        store.add([anna], templates)
        store.close()
        other.refresh()
        assert other.people == [anna] and other.template_count == 3


def test_names_people_have(gallery: Gallery) -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    for given, kept in {
        "  Anna \t Maria\n": "Anna Maria",
        "Rene\N{COMBINING ACUTE ACCENT}": "Ren\xe9",
        "\u05d3\u05d5\u05d3": "\u05d3\u05d5\u05d3",  # right to left
        "\u0645\u06cc\u200c\u0634": "\u0645\u06cc\u200c\u0634",  # Persian, with a non-joiner
        family: family,  # emoji, with joiners
        "A" * 200: "A" * 200,
        "'; DROP TABLE people; --": "'; DROP TABLE people; --",
        "100%s ?": "100%s ?",
    }.items():
        person = gallery.enroll(given, looks(1), source=given)
        assert person.name == kept
        assert gallery.find(given) == gallery.find(kept) == person == gallery.find(person.id)
    gallery.refresh()
    assert len(gallery.people) == 8


def test_names_that_are_refused(gallery: Gallery) -> None:
    gallery.enroll("Anna", looks(1), source="")
    for name in (
        *("", " \n", "A" * 201, "a\0b", "a\x1b[2Jb", "\udce9", "\u202eannA", "a\u2028b\u200b"),
        "01234567-89ab-cdef-0123-456789ABCDEF",
    ):
        with pytest.raises(GalleryError, match="a name "):
            gallery.enroll(name, looks(1), source="")
        with pytest.raises(GalleryError, match="a name "):
            gallery.rename("Anna", name)


def test_who_is_not_there(gallery: Gallery) -> None:
    anna = gallery.enroll("Anna Karenina", looks(1), source="")
    for near in ("ANNA KARENINA", "Ana Karenina"):
        with pytest.raises(GalleryError, match=f"called '{near}'; did you mean Anna Karenina"):
            gallery.forget(near)
    with pytest.raises(GalleryError, match=r"called 'Zoe'$"):
        gallery.rename("Zoe", "Zora")
    with pytest.raises(GalleryError, match="no template"):
        gallery.move([anna.id], "Anna Karenina")
    with pytest.raises(GalleryError, match="no template"):
        gallery.remove([anna.id])


def test_templates_move_to_another_person_and_go(gallery: Gallery) -> None:
    anna = gallery.enroll("Anna", looks(1), source="a.jpg")
    bert = gallery.enroll("Bert", looks(2), source="b.jpg")
    first, *others = gallery.templates_of(anna)
    assert first.source == "a.jpg" and first.embedding.tolist() in [
        look.embedding.tolist() for look in looks(1)
    ]
    gallery.move([first.id], "Bert")
    assert gallery.template_counts() == {anna.id: 2, bert.id: 4}
    assert gallery.nearest(first.embedding)[0].person_id == bert.id
    gallery.remove([each.id for each in others])
    assert gallery.template_counts() == {anna.id: 0, bert.id: 4}
    assert gallery.people == [anna, bert]


def test_names_are_one_of_a_kind(gallery: Gallery) -> None:
    gallery.enroll("Anna", looks(1), source="")
    gallery.enroll("Bert", looks(2), source="")
    with pytest.raises(GalleryError, match="another person has this name"):
        gallery.rename("Bert", "Anna")
    gallery.rename("Bert", "anna")
    gallery.rename("anna", "anna")
    gallery.enroll("Anna", looks(1, 1), source="")
    assert sorted(gallery.template_counts().values()) == [3, 4]


def test_what_cannot_be_enrolled(gallery: Gallery) -> None:
    with pytest.raises(GalleryError, match="no look"):
        gallery.enroll("Anna", [], source="")
    (look,) = looks(1, 1)
    for bad in (look.embedding[:128], look.embedding * np.nan, look.embedding * 0):
        with pytest.raises(GalleryError, match="512 numbers and of unit length"):
            gallery.enroll("Anna", [look._replace(embedding=bad)], source="")
    for expires in (0.0, time.time() - 1, float("nan"), float("inf")):
        with pytest.raises(GalleryError, match="in the future"):
            gallery.enroll("Anna", [look], source="", expires=expires)
    with pytest.raises(GalleryError, match="note of consent"):
        gallery.enroll("Anna", [look], source="", consent="said\nyes")
    assert not gallery.people
    gallery.enroll("Anna", [look], source="", consent="said yes")
    # A file's name that is no text, such as the command line gives.
    gallery.enroll("Anna", [look], source="\udce9\0.jpg")
    assert {each.source for each in gallery.templates_of(gallery.find("Anna"))} == {"", "??.jpg"}
    with pytest.raises(GalleryError, match="another note of consent"):
        gallery.enroll("Anna", [look], source="", consent="said yes again")


def test_images_are_kept_where_they_are_given(gallery: Gallery) -> None:
    crop = np.random.default_rng(1).integers(0, 256, (112, 112, 3), np.uint8)
    anna = gallery.enroll("Anna", [looks(1)[0]._replace(crop=crop), looks(1)[1]], source="")
    first, second = sorted(gallery.templates_of(anna), key=lambda each: -len(each.image))
    assert np.array_equal(cv2.imdecode(np.frombuffer(first.image, np.uint8), -1), crop)
    assert second.image == b""
