# SPDX-License-Identifier: Apache-2.0
"""The looks at a person in images, each of which shows that person alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from scrfd_ros.errors import ImageError, ScrfdError
from scrfd_ros.faces import Faces
from scrfd_ros.gallery.people import Look
from scrfd_ros.images.files import IMAGE_SUFFIXES, list_images, read_image
from scrfd_ros.pipeline import FacePipeline, Result

_MAX_SHOWN = 3  # boxes in an error


class Seen(NamedTuple):
    """What images show of a person.

    Attributes:
        looks: one for each image that can be used; their source is the name of the file.
        refused: for each other image a sentence that names it.
    """

    looks: Sequence[Look]
    refused: Sequence[str]


def look_at(pipeline: FacePipeline, path: Path) -> Look:
    """The look at the only face in an image.

    Args:
        pipeline: with a gallery.

    Raises:
        ImageError: the image cannot be read, or does not show exactly one face.
    """
    return only_look(pipeline(read_image(path)), f"{path}")._replace(source=path.name)


def only_look(result: Result, image: str) -> Look:
    """The look at the only face in an image.

    Args:
        result: of a pipeline with a gallery.
        image: what to call the image in an error.

    Raises:
        ImageError: the image does not show exactly one face.
    """
    faces = result.faces
    if not len(faces):
        raise ImageError(f"{image}: no face found; give an image in which the face is easy to see")
    if len(faces) > 1:
        raise ImageError(
            f"{image}: {len(faces)} faces, at {_boxes(faces)}; cut out the part with the person"
        )
    if 0 not in result.looks:
        raise ImageError(f"{image}: the face has no embedding: its quality is too low")
    return result.looks[0]


def looks_at(
    pipeline: FacePipeline,
    paths: Iterable[Path],
    on_image: Callable[[], object] = lambda: None,
) -> Seen:
    """The looks at a person in images; those that cannot be used are told.

    Args:
        pipeline: with a gallery.
        paths: of the images.
        on_image: called after each image.
    """
    looks: list[Look] = []
    refused: list[str] = []
    for path in paths:
        try:
            looks.append(look_at(pipeline, path))
        except ImageError as error:
            refused.append(str(error))
        on_image()
    return Seen(looks, refused)


def images_of(paths: Sequence[Path]) -> list[Path]:
    """The images that paths name: files as they are, and the images in folders.

    Raises:
        ScrfdError: a path does not exist or cannot be read, or a folder has no images; if the
            folders in it have, it says how to enroll these.
    """
    found: list[Path] = []
    for path in paths:
        try:
            found += _images_of(path)
        except OSError as error:
            raise ScrfdError(f"{path}: cannot read: {error.strerror}") from error
    return found


def _images_of(path: Path) -> list[Path]:
    if not path.exists():
        raise ScrfdError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    try:
        return list_images(path)
    except ScrfdError:
        if not any(map(_has_images, path.iterdir())):
            raise
        raise ScrfdError(
            f"{path}: no images in it, but in folders in it; to enroll one person for each of "
            f"these: scrfd gallery enroll --people {path}"
        ) from None


def _has_images(path: Path) -> bool:
    return path.is_dir() and any(each.suffix.lower() in IMAGE_SUFFIXES for each in path.iterdir())


def _boxes(faces: Faces) -> str:
    """The boxes of faces, as corners in whole pixels."""
    boxes = [
        "({:.0f}, {:.0f}) to ({:.0f}, {:.0f})".format(*box) for box in faces.boxes[:_MAX_SHOWN]
    ]
    more = f" and {len(faces) - _MAX_SHOWN} more" if len(faces) > _MAX_SHOWN else ""
    return f"{'; '.join(boxes)}{more}"
