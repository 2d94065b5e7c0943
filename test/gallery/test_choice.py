# SPDX-License-Identifier: Apache-2.0
"""Which looks become templates, and which enrollments are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scrfd_ros.config import GalleryConfig
from scrfd_ros.errors import GalleryError
from scrfd_ros.gallery.choice import MAX_TEMPLATES, chosen, enroll
from scrfd_ros.gallery.gallery import Gallery
from scrfd_ros.gallery.opening import open_gallery
from scrfd_ros.gallery.people import GalleryInfo, Look

INFO = GalleryInfo("w600k_mbf", "0" * 64, 512)


def looks(person: int, count: int = 3, *, seed: int = 0, quality: float = 0.9) -> list[Look]:
    """Looks at a made-up person: unit vectors with cosines of about 0.7."""
    direction = np.random.default_rng(person).normal(size=512)
    vectors = direction + 0.65 * np.random.default_rng((person, seed)).normal(size=(count, 512))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [Look(each, quality, 0.0, 0.0) for each in vectors.astype(np.float32)]


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with open_gallery(str(tmp_path / "people.db"), INFO) as gallery:
        yield gallery


def test_the_best_looks_in_different_poses_are_chosen() -> None:
    vectors = looks(1, 20)
    qualities = np.linspace(0.95, 0.5, 20)
    # The ten best are frontal, then five to each side.
    yaws = [0.0] * 10 + [-30.0] * 5 + [30.0] * 5
    given = [
        look._replace(quality=quality, yaw=yaw)
        for look, quality, yaw in zip(vectors, qualities, yaws, strict=True)
    ]
    found = chosen(given[::-1], 3)
    assert [each.quality for each in found] == [qualities[0], qualities[10], qualities[15]]
    found = chosen(given)
    assert len(found) == MAX_TEMPLATES
    assert [each.quality for each in found[3:]] == list(qualities[1:6])


def test_the_same_image_becomes_one_template() -> None:
    first, second = looks(1, 2)
    assert chosen([first, first, second, first]) == [first, second]
    assert chosen([]) == []


def test_who_is_enrolled_gets_the_looks_with_their_sources(gallery: Gallery) -> None:
    given = [each._replace(source=f"{row}.jpg") for row, each in enumerate(looks(1, 3))]
    result = enroll(
        gallery, " Anna ", given[:2], source="a folder", consent="on paper", expires=9e9
    )
    assert result.is_new and result.person.name == "Anna" and len(result.added) == 2
    assert (result.person.consent, result.person.expires) == ("on paper", 9e9)
    result = enroll(gallery, "Anna", [given[2]._replace(source="")], source="a folder")
    assert not result.is_new and len(result.added) == 1
    templates = gallery.templates_of(result.person)
    assert sorted(each.source for each in templates) == ["0.jpg", "1.jpg", "a folder"]


def test_images_that_are_there_already_are_not_added_again(gallery: Gallery) -> None:
    given = looks(1, 3)
    enroll(gallery, "Anna", given[:2], source="")
    result = enroll(gallery, "Anna", given, source="")
    assert (len(result.added), len(result.again)) == (1, 2)
    result = enroll(gallery, "Anna", given, source="", force=True)
    assert (len(result.added), len(result.again)) == (0, 3)
    assert gallery.template_count == 3


def test_looks_of_low_quality_are_left_out_or_refused(gallery: Gallery) -> None:
    poor = looks(1, 2, quality=0.29)
    result = enroll(gallery, "Anna", [*poor, *looks(1, 1, seed=1)], source="")
    assert (len(result.added), len(result.poor)) == (1, 2)
    for refused, found in (
        (poor, "the best has 0.29, and a quality of 0.30 is needed"),
        ([], "no"),
    ):
        with pytest.raises(GalleryError, match=found):
            enroll(gallery, "Bert", refused, source="", force=True)
    enroll(
        gallery, "Bert", looks(2, 1, quality=0.2), source="", config=GalleryConfig(min_quality=0.1)
    )


def test_somebody_else_among_the_looks_is_left_out(gallery: Gallery) -> None:
    other = looks(2, 1, quality=0.99)
    result = enroll(gallery, "Anna", [*other, *looks(1, 4)], source="")
    assert (len(result.added), list(result.unlike)) == (4, other)


@pytest.mark.parametrize(
    "given", [looks(1, 1) + looks(2, 1), looks(1, 3) + looks(2, 2)], ids=["two", "five"]
)
def test_looks_at_several_people_are_refused_without_force(
    gallery: Gallery, given: list[Look]
) -> None:
    with pytest.raises(
        GalleryError, match=r"do not show one person.* lowest similarity is -?0\.\d"
    ):
        enroll(gallery, "Anna", given, source="")
    assert not gallery.people
    assert len(enroll(gallery, "Anna", given, source="", force=True).added) == len(given)


def test_who_is_there_under_another_name_is_refused_without_force(gallery: Gallery) -> None:
    enroll(gallery, "Anna", looks(1), source="")
    enroll(gallery, "Bert", looks(2), source="")
    again = looks(1, 3, seed=1)
    for name in ("Cleo", "Bert"):
        with pytest.raises(GalleryError, match=r"this is Anna already: similarity 0\.[678]\d"):
            enroll(gallery, name, again, source="")
    assert enroll(gallery, "Cleo", again, source="", force=True).is_new


def test_a_face_that_is_not_that_of_the_name_is_refused_without_force(gallery: Gallery) -> None:
    enroll(gallery, "Anna", looks(1), source="")
    with pytest.raises(GalleryError, match=r"not like that person: similarity -?0\.[01]\d, 0\.40"):
        enroll(gallery, "Anna", looks(2), source="")
    assert len(enroll(gallery, "Anna", looks(2), source="", force=True).added) == 3


def test_a_merged_persons_name_is_that_of_the_same_person(gallery: Gallery) -> None:
    enroll(gallery, "Anna", looks(1), source="")
    enroll(gallery, "Anne", looks(1, seed=1), source="", force=True)
    gallery.merge("Anne", "Anna")
    for seed, name in enumerate(("Anne", "Anna"), 2):
        result = enroll(gallery, name, looks(1, 2, seed=seed), source="")
        assert len(result.added) == 2 and result.person == gallery.find("Anna")
    assert gallery.template_counts() == {gallery.find("Anna").id: 10}


def test_a_rejection_by_mistake_ends_when_the_face_is_enrolled(gallery: Gallery) -> None:
    enroll(gallery, "Anna", looks(1), source="")
    enroll(gallery, "Anne", looks(1, seed=1), source="", force=True)
    gallery.merge("Anne", "Anna")
    seen, other = looks(1, 2, seed=2), looks(2, 1)
    gallery.reject("Anne", [*seen, *other], "")
    assert not gallery.nearest(seen[0].embedding)
    enroll(gallery, "Anna", seen, source="")
    assert gallery.nearest(seen[0].embedding)[0].similarity == pytest.approx(1)
    assert not gallery.nearest(other[0].embedding)  # that one was no mistake


def test_thousands_of_looks_are_chosen_from_in_a_moment(gallery: Gallery) -> None:
    result = enroll(gallery, "Anna", looks(1, 10_000), source="")
    assert len(result.added) == MAX_TEMPLATES and not result.unlike
