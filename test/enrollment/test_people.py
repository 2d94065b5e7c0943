# SPDX-License-Identifier: Apache-2.0
"""People are enrolled from images and folders; what cannot be used is told, the rest is used."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from exif import with_orientation

from scrfd_ros.enrollment.images import images_of, look_at
from scrfd_ros.enrollment.people import enroll_people, enroll_person, folders_of_people
from scrfd_ros.enrollment.terms import Terms, expiry
from scrfd_ros.errors import ImageError, ScrfdError
from scrfd_ros.gallery.gallery import Gallery
from scrfd_ros.images.files import read_image
from scrfd_ros.pipeline import FacePipeline


def gallery_of(pipeline: FacePipeline) -> Gallery:
    assert pipeline.identifier is not None
    return pipeline.identifier.gallery


def test_images_without_exactly_one_face_are_refused(
    pipeline: FacePipeline, portraits: Path
) -> None:
    for name, reason in (
        ("nobody.png", r"nobody\.png: no face found"),
        ("group.png", r"group\.png: 6 faces, at \(74\d, .* and 3 more; cut out the part"),
        ("nothing.png", r"nothing\.png: cannot read the image"),
    ):
        with pytest.raises(ImageError, match=reason):
            look_at(pipeline, portraits / name)


def test_an_image_that_is_stored_lying_is_turned(
    pipeline: FacePipeline, portraits: Path, tmp_path: Path
) -> None:
    upright = read_image(portraits / "obama1.png")
    lying = cv2.imencode(".jpg", np.rot90(upright))[1].tobytes()  # to the left
    (tmp_path / "lying.jpg").write_bytes(with_orientation(lying, 6))
    look, other = (
        look_at(pipeline, path) for path in (tmp_path / "lying.jpg", portraits / "obama1.png")
    )
    assert look.embedding @ other.embedding > 0.9
    assert (look.source, other.source) == ("lying.jpg", "obama1.png")


def test_a_person_is_enrolled_from_the_images_that_can_be_used(
    pipeline: FacePipeline, portraits: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"junk")
    paths = [
        *(portraits / f"{name}.png" for name in ("obama1", "obama2", "group", "biden", "obama3")),
        tmp_path / "broken.jpg",
    ]
    gallery, done = gallery_of(pipeline), []
    attempt = enroll_person(
        pipeline, gallery, "Barack", paths, Terms("on paper"), lambda: done.append(1)
    )
    assert len(done) == attempt.images == 6
    assert [sentence.split(": ")[0] for sentence in attempt.unusable] == [
        str(portraits / "group.png"),
        str(tmp_path / "broken.jpg"),
    ]
    assert attempt.enrolled is not None and attempt.enrolled.person.consent == "on paper"
    assert [look.source for look in attempt.enrolled.unlike] == ["biden.png"]
    sources = [each.source for each in gallery.templates_of(gallery.find("Barack"))]
    assert sorted(sources) == ["obama1.png", "obama2.png", "obama3.png"]

    attempt = enroll_person(pipeline, gallery, "Joe", [portraits / "group.png"], Terms())
    assert attempt.enrolled is None and attempt.reason == "no image can be used"


def test_a_folder_of_people_is_enrolled(
    pipeline: FacePipeline, portraits: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "people"
    for person, *names in (
        ("Barack_Obama", "obama1", "obama2"),
        ("Joe Biden", "biden"),
        ("王小明", "yaoming"),
        ("double", "obama3"),
        ("group", "group"),
        (".hidden", "biden"),
    ):
        (folder / person).mkdir(parents=True)
        for name in names:
            shutil.copy(portraits / f"{name}.png", folder / person)
    (folder / "empty").mkdir()
    (folder / "loop").symlink_to(tmp_path)
    for name in (".DS_Store", "Thumbs.db", "王小明/Thumbs.db", "王小明/.DS_Store"):
        (folder / name).write_bytes(b"junk")

    gallery = gallery_of(pipeline)
    folders = folders_of_people(folder)
    attempts = {each.name: each for each in enroll_people(pipeline, gallery, folders, Terms())}
    assert sorted(each.name for each in gallery.people) == ["Barack_Obama", "Joe Biden", "王小明"]
    assert {name: each.reason for name, each in attempts.items() if each.reason} == {
        "double": attempts["double"].reason,
        "empty": f"{folder / 'empty'}: no images in it; expected JPEG, PNG or the like",
        "group": "no image can be used",
        "loop": f"{folder / 'loop'}: a link to a folder that it is in",
    }
    assert "this is Barack_Obama already: similarity 0." in attempts["double"].reason

    again = enroll_people(pipeline, gallery, folders, Terms())
    assert gallery.template_count == 4
    assert [len(each.enrolled.again) for each in again if each.enrolled is not None] == [2, 1, 1]


def test_a_folder_of_people_and_one_of_images_are_told_apart(
    portraits: Path, tmp_path: Path
) -> None:
    (tmp_path / "people" / "a").mkdir(parents=True)
    shutil.copy(portraits / "biden.png", tmp_path / "people" / "a")
    with pytest.raises(ScrfdError, match=r"scrfd gallery enroll --people .*people$"):
        images_of([tmp_path / "people"])
    with pytest.raises(ScrfdError, match=r"no folders in it.* scrfd gallery enroll NAME"):
        folders_of_people(tmp_path / "people" / "a")
    for path in (tmp_path / "nothing", portraits / "biden.png"):
        with pytest.raises(ScrfdError, match=r"no such folder|not a folder"):
            folders_of_people(path)
    with pytest.raises(ScrfdError, match="nothing: no such file or folder"):
        images_of([tmp_path / "nothing"])
    assert len(images_of([tmp_path / "people" / "a", portraits / "group.png"])) == 2


def test_terms() -> None:
    now = 1.8e9  # in January 2027
    assert expiry("30", now) == now + 30 * 86400
    assert expiry("0.5", now) == now + 43200
    assert 0 < expiry("2027-02-01", now) - now < 40 * 86400
    for text in (
        *("0", "-1", "nan", "inf", "1e300", "soon", ""),
        *("2020-01-01", "0001-01-01", "9999-12-31", "9999-12-32"),
    ):
        with pytest.raises(
            ValueError, match=r"expected a (time to come|number of days, or a date)"
        ):
            expiry(text, now)
