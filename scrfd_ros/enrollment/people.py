# SPDX-License-Identifier: Apache-2.0
"""Enroll people from images, one by one or a whole folder of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from scrfd_ros.enrollment.images import looks_at
from scrfd_ros.enrollment.terms import Terms
from scrfd_ros.errors import ScrfdError
from scrfd_ros.gallery.choice import Enrolled, enroll
from scrfd_ros.gallery.gallery import Gallery
from scrfd_ros.gallery.people import Look
from scrfd_ros.images.files import list_images
from scrfd_ros.pipeline import FacePipeline


class Attempt(NamedTuple):
    """What came of the images of one person.

    Attributes:
        name: of the person.
        images: their number.
        unusable: for each image that could not be used, a sentence that names it.
        enrolled: what was done; None if it was refused.
        reason: why it was refused, or "".
    """

    name: str
    images: int
    unusable: Sequence[str]
    enrolled: Enrolled | None
    reason: str = ""


def enroll_person(
    pipeline: FacePipeline,
    gallery: Gallery,
    name: str,
    images: Sequence[Path],
    terms: Terms,
    on_image: Callable[[], object] = lambda: None,
) -> Attempt:
    """Enroll a person from images.

    Args:
        pipeline: with this gallery.
        on_image: called after each image.
    """
    looks, unusable = looks_at(pipeline, images, on_image)
    if not looks:
        return Attempt(name, len(images), unusable, None, "no image can be used")
    try:
        enrolled = enroll_looks(pipeline, gallery, name, looks, terms)
    except ScrfdError as error:
        return Attempt(name, len(images), unusable, None, str(error))
    return Attempt(name, len(images), unusable, enrolled)


def enroll_looks(
    pipeline: FacePipeline, gallery: Gallery, name: str, looks: Sequence[Look], terms: Terms
) -> Enrolled:
    """Enroll a person from looks, which say where they are from.

    Raises:
        GalleryError: see `scrfd_ros.gallery.choice.enroll`.
    """
    config = pipeline.config.gallery
    return enroll(gallery, name, looks, source="", **terms._asdict(), config=config)


def folders_of_people(folder: Path) -> list[Path]:
    """The folders in a folder, one for each person, sorted; hidden ones are ignored.

    Raises:
        ScrfdError: there are none, or the folder cannot be read.
    """
    try:
        if not folder.is_dir():
            there = "not a folder" if folder.exists() else "no such folder"
            raise ScrfdError(f"{folder}: {there}; expected one with a folder for each person")
        found = sorted(folder.iterdir())
        people = [each for each in found if each.is_dir() and not each.name.startswith(".")]
    except OSError as error:
        raise ScrfdError(f"{folder}: cannot read: {error.strerror}") from error
    if not people:
        raise ScrfdError(
            f"{folder}: no folders in it; expected one with the images of each person, of the "
            f"person's name. To enroll one person: scrfd gallery enroll NAME {folder}"
        )
    return people


def enroll_people(
    pipeline: FacePipeline, gallery: Gallery, folders: Sequence[Path], terms: Terms
) -> list[Attempt]:
    """Enroll a person for each folder of images, by its name; progress is shown on a terminal.

    Args:
        pipeline: with this gallery.
        folders: from `folders_of_people`.
    """
    attempts: list[Attempt] = []
    images: dict[str, list[Path]] = {}
    for folder in folders:
        try:
            if folder.parent.resolve().is_relative_to(folder.resolve()):
                raise ScrfdError(f"{folder}: a link to a folder that it is in")
            images[folder.name] = list_images(folder)
        except ScrfdError as error:
            attempts.append(Attempt(folder.name, 0, [], None, str(error)))
    total = sum(map(len, images.values()))
    with tqdm(None, "enrolling", total, unit="image", leave=False, disable=None) as progress:
        for name, paths in images.items():
            attempts.append(enroll_person(pipeline, gallery, name, paths, terms, progress.update))
    return sorted(attempts, key=lambda each: each.name.casefold())
