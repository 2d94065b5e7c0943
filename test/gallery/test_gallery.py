# SPDX-License-Identifier: Apache-2.0
"""Galleries: people come, are found, corrected and forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scrfd_ros.errors import GalleryError, NoGalleryError
from scrfd_ros.gallery.gallery import Gallery
from scrfd_ros.gallery.opening import gallery_info, open_gallery
from scrfd_ros.gallery.people import GalleryInfo, Look

INFO = GalleryInfo("w600k_mbf", "0" * 64, 512)


def looks(person: int, count: int = 3) -> list[Look]:
    """Looks at a made-up person: unit vectors near a direction of its own."""
    random = np.random.default_rng(person)
    vectors = random.normal(size=512) + 0.5 * random.normal(size=(count, 512))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [Look(vector, 0.9, 0.0, 0.0) for vector in vectors.astype(np.float32)]


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with open_gallery(str(tmp_path / "people.db"), INFO) as gallery:
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


def test_another_process_sees_changes_after_a_refresh(gallery: Gallery, tmp_path: Path) -> None:
    with open_gallery(str(tmp_path / "people.db")) as other:
        gallery.enroll("Anna", looks(1), source="")
        other.refresh()
        assert [each.name for each in other.people] == ["Anna"]
        gallery.forget("Anna")
        other.refresh()
        assert not other.people and other.template_count == 0


def test_what_a_gallery_is_for_is_told_without_making_one(gallery: Gallery, tmp_path: Path) -> None:
    assert gallery_info(str(tmp_path / "people.db")) == INFO
    assert gallery_info(str(tmp_path / "other.db")) is None
    with pytest.raises(NoGalleryError, match=r"other\.db: there is no gallery"):
        open_gallery(str(tmp_path / "other.db"))
    assert not (tmp_path / "other.db").exists()
