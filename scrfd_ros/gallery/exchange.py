# SPDX-License-Identifier: Apache-2.0
"""Galleries from one place to another: the export file, and from one recognizer to the next.

docs/identity.md describes the file.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import struct
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from scrfd_ros.errors import GalleryError
from scrfd_ros.files import refuse_existing
from scrfd_ros.gallery.gallery import (
    FOREVER,
    Gallery,
    check_consent,
    checked_name,
    shown_source,
)
from scrfd_ros.gallery.people import GalleryInfo, Person, Template, is_id

FORMAT = "scrfd_ros gallery"
VERSION = 1

_HEADER = 512  # bytes of the first line, with blanks at its end: the number of people comes last
_LONGEST_LINE = 256 << 20  # bytes: some thousand templates with images
_LARGEST_IMAGE = 1 << 20  # bytes
_CROP = 112  # pixels, of each side of an aligned face
_MOST_DIMENSIONS = 4096
_LISTED = 10  # conflicts

_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", _CROP, _CROP)
_SHA256 = re.compile("[0-9a-f]{64}")

Entry: TypeAlias = dict[str, Any]


class Imported(NamedTuple):
    """What an import or another enrollment added.

    Attributes:
        people: number of people who were not there.
        templates: number of templates that were not there.
        left_out: names of people who were left out: they have expired, or, in another enrollment,
            have no images.
    """

    people: int
    templates: int
    left_out: Sequence[str]


def export_people(gallery: Gallery, path: Path) -> int:
    """Write everybody in a gallery with all templates into a new file; returns how many.

    Only the user can read the file. It is as it was at one moment, while others may go on.

    Raises:
        ScrfdError: the file exists, or cannot be written.
        GalleryError: the store cannot be read.
    """
    refuse_existing(path)
    people = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                os.fchmod(descriptor, 0o600)
                stream.write(_header(gallery.info, None))
                for person, templates in tqdm(
                    gallery.export(), "exporting", leave=False, disable=None
                ):
                    stream.write(_line(person, templates))
                    people += 1
                stream.seek(0)
                stream.write(_header(gallery.info, people))
                stream.flush()
                os.fsync(descriptor)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise GalleryError(f"{path}: cannot write: {error.strerror}") from error
    return people


def export_info(path: Path) -> GalleryInfo:
    """What gallery an export file is of.

    Raises:
        GalleryError: it cannot be read, or is no export file.
    """
    with _opened(path) as stream:
        return _read_header(path, stream)[0]


def import_people(gallery: Gallery, path: Path) -> Imported:
    """Add the people in an export file to a gallery: all of them, or none.

    Who is there already, just as in the file, is left as is: importing a file twice is no error.

    Raises:
        GalleryError: the file cannot be read or is damaged, is of another recognizer, or has people
            or names that the gallery has with other data.
    """
    there = _Contents(gallery)
    file = _File(path, gallery.info)
    people: dict[str, Person] = {}
    conflicts: list[str] = []
    new: set[str] = set()
    now = time.time()
    for number, person, templates in file:
        people[person.id] = person
        where = f"{person.name} (line {number})"
        if person.id in there.people:
            if person != there.people[person.id]:
                conflicts.append(f"{where} is in the gallery with other data")
        elif person.name in there.names:
            conflicts.append(f"{where}: the gallery has another person of that name")
        for each in templates:
            if each.id not in there.templates:
                new.add(each.id)
            elif there.templates[each.id] != _digest(each):
                conflicts.append(f"{where}: a template is in the gallery with other data")
                break
    _check_merges(path, people, there.people)
    if conflicts:
        more = len(conflicts) - _LISTED
        raise GalleryError(
            f"{path}: nothing was imported: {'; '.join(conflicts[:_LISTED])}"
            f"{f'; and {more} more' if more > 0 else ''}; rename or forget these in the "
            f"gallery, or import into a new one"
        )
    expired = _with_merged(
        people, {each.id for each in people.values() if each.expires and each.expires <= now}
    )
    added = [
        each for each in people.values() if each.id not in there.people and each.id not in expired
    ]

    count = 0

    def new_templates() -> Iterator[Template]:
        """From the file again: it may be larger than memory."""
        nonlocal count
        for _, person, templates in file:
            for each in templates if person.id not in expired else ():
                if each.id in new:
                    count += 1
                    yield each

    if added or new:
        gallery.restore(added, new_templates())
    return Imported(len(added), count, [people[each].name for each in expired])


def enroll_again(
    old: Gallery, new: Gallery, embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
) -> Imported:
    """Add everybody in a gallery to one for another recognizer, from the images that were kept.

    Args:
        old: a gallery with images: `gallery.keep_images`.
        new: for the other recognizer.
        embed: from aligned faces, uint8 [N, 112, 112, 3] BGR, to embeddings, float32 [N, D], of
            that recognizer.

    Raises:
        GalleryError: a kept image is damaged, nobody has images, or the new gallery has somebody
            of the same name.
    """
    people: list[Person] = []
    templates: list[Template] = []
    left_out: list[str] = []
    for person, known in tqdm(old.export(), "enrolling", leave=False, disable=None):
        kept = [each for each in known if each.image]
        if not kept:
            left_out.append(person.name)
            continue
        crops = np.stack([_crop(each.image) for each in kept])
        people.append(person)
        templates += [
            each._replace(embedding=embedding)
            for each, embedding in zip(kept, embed(crops), strict=True)
            if embedding.any()
        ]
    if not people:
        raise GalleryError(
            "the gallery has no images of anybody: enroll the people anew, with "
            "gallery.keep_images if the next recognizer is to take them over"
        )
    ids = {each.id for each in people}
    people = [each._replace(merged_into=_next(old, each, ids)) for each in people]
    new.restore(people, templates)
    return Imported(len(people), len(templates), left_out)


def _next(gallery: Gallery, person: Person, ids: Container[str]) -> str:
    """Id of the next of these people whom a person is merged into, "" for none."""
    seen: set[str] = set()  # circles are only in damaged galleries
    while (into := person.merged_into) and into not in ids and into not in seen:
        seen.add(into)
        person = gallery.find(into)
    return into if into in ids else ""


class _Contents:
    """What a gallery has, to compare with."""

    def __init__(self, gallery: Gallery) -> None:
        self.people: dict[str, Person] = {}
        self.templates: dict[str, int] = {}
        for person, templates in gallery.export():
            self.people[person.id] = person
            self.templates.update({each.id: _digest(each) for each in templates})
        self.names = {each.name for each in self.people.values()}


class _File:
    """The people in an export file, read anew by each loop over it.

    Raises:
        GalleryError: in the loop: the file is damaged, or of another recognizer.
    """

    def __init__(self, path: Path, info: GalleryInfo) -> None:
        self._path = path
        self._info = info

    def __iter__(self) -> Iterator[tuple[int, Person, list[Template]]]:
        """The number of the line, the person, and its templates."""
        with _opened(self._path) as stream:
            info, people = _read_header(self._path, stream)
            _check_info(self._path, info, self._info)
            ids: set[str] = set()
            names: set[str] = set()
            number = 1
            for line in tqdm(
                iter(lambda: stream.readline(_LONGEST_LINE + 1), b""),
                "reading",
                total=people,
                leave=False,
                disable=None,
            ):
                number += 1
                try:
                    person, templates = _person(_parsed(line), info)
                    if person.name in names:
                        raise ValueError("the name is in the file twice")
                    for each in (person.id, *(each.id for each in templates)):
                        if each in ids:
                            raise ValueError("an id is in the file twice")
                        ids.add(each)
                except (ValueError, GalleryError) as error:
                    raise GalleryError(f"{self._path}: line {number}: {error}") from error
                names.add(person.name)
                yield number, person, templates
            if number - 1 != people:
                raise GalleryError(
                    f"{self._path}: the file has {number - 1} people instead of {people}: a part "
                    f"of it is missing, or there is too much"
                )


def _opened(path: Path) -> BinaryIO:
    try:
        if not path.is_file():
            there = "it is not a file" if path.exists() else "there is no such file"
            raise GalleryError(f"{path}: {there}; give the path of a file that `export` wrote")
        return path.open("rb")
    except OSError as error:
        raise GalleryError(f"{path}: cannot read: {error.strerror}") from error


def _header(info: GalleryInfo, people: int | None) -> bytes:
    """The first line, always of one length."""
    entry = {"format": FORMAT, "version": VERSION, **info._asdict(), "people": people}
    return json.dumps(entry).encode().ljust(_HEADER - 1) + b"\n"


def _line(person: Person, templates: Sequence[Template]) -> bytes:
    entry: Entry = {
        **person._asdict(),
        "templates": [
            {
                "id": each.id,
                "embedding": base64.b64encode(each.embedding.astype("<f4").tobytes()).decode(),
                "quality": each.quality,
                "source": each.source,
                "created": each.created,
                "is_negative": each.is_negative,
                "image": base64.b64encode(each.image).decode(),
            }
            for each in templates
        ],
    }
    return json.dumps(entry, ensure_ascii=False).encode() + b"\n"


def _read_header(path: Path, stream: BinaryIO) -> tuple[GalleryInfo, int]:
    """What gallery a file is of, and how many people it has."""
    try:
        entry = _parsed(stream.readline(_LONGEST_LINE))
        if entry.get("format") != FORMAT:
            raise ValueError("it is not an export of a gallery")
        if entry.get("version") != VERSION:
            raise ValueError(f"it is not of version {VERSION}, which this scrfd_ros knows")
        _check_fields(entry, ("format", "version", *GalleryInfo._fields, "people"))
        people = entry["people"]
        if people is None:
            raise ValueError("the export was not finished; export again")
        info = GalleryInfo(
            _text(entry, "recognizer"),
            _text(entry, "recognizer_sha256"),
            _whole(entry, "dimensions", 1, _MOST_DIMENSIONS),
        )
        if shown_source(info.recognizer) != info.recognizer:
            raise ValueError("the recognizer's name has characters that cannot be shown")
        if not _SHA256.fullmatch(info.recognizer_sha256):
            raise ValueError("recognizer_sha256 is not 64 hexadecimal digits")
        return info, _whole(entry, "people", 0, 10**9)
    except ValueError as error:
        raise GalleryError(f"{path}: line 1: {error}") from error
    except OSError as error:
        raise GalleryError(f"{path}: cannot read: {error.strerror}") from error


def _check_info(path: Path, info: GalleryInfo, wanted: GalleryInfo) -> None:
    if info[1:] != wanted[1:]:
        raise GalleryError(
            f"{path}: the file is of the recognizer {info.recognizer}, and the gallery of "
            f"{wanted.recognizer}, whose embeddings cannot be compared with it: import it into a "
            f"gallery of its own"
        )


def _parsed(line: bytes) -> Entry:
    """A line as a JSON object.

    Raises:
        ValueError: it is not one.
    """
    if len(line) > _LONGEST_LINE:
        raise ValueError(f"it has more than {_LONGEST_LINE >> 20} MiB")
    try:
        entry = json.loads(line, parse_constant=_refuse, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is not JSON: cut off, damaged, or written by hand") from error
    if not isinstance(entry, dict):
        raise ValueError("it is not a JSON object")
    return entry


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _object(pairs: Sequence[tuple[str, Any]]) -> Entry:
    entry = dict(pairs)
    if len(entry) != len(pairs):
        raise ValueError("a field is there twice")
    return entry


def _person(entry: Entry, info: GalleryInfo) -> tuple[Person, list[Template]]:
    """A line as a person.

    Raises:
        ValueError, GalleryError: it is not one.
    """
    _check_fields(entry, (*Person._fields, "templates"))
    person = Person(
        id=_id(entry, "id"),
        name=_text(entry, "name"),
        consent=_text(entry, "consent"),
        created=_number(entry, "created", 0, FOREVER),
        expires=None if entry["expires"] is None else _number(entry, "expires", 0, FOREVER),
        merged_into=_id(entry, "merged_into") if entry["merged_into"] != "" else "",
    )
    if checked_name(person.name) != person.name:
        raise ValueError("the name is not as names are kept: composed, with single blanks")
    check_consent(person.consent)
    if not isinstance(entry["templates"], list):
        raise ValueError("templates is not a list")
    return person, [_template(each, person.id, info) for each in entry["templates"]]


def _template(entry: object, person_id: str, info: GalleryInfo) -> Template:
    if not isinstance(entry, dict):
        raise ValueError("a template is not a JSON object")
    _check_fields(entry, tuple(each for each in Template._fields if each != "person_id"))
    content = _bytes(entry, "embedding")
    if len(content) != 4 * info.dimensions:
        raise ValueError(f"an embedding does not have {info.dimensions} numbers")
    embedding = np.frombuffer(content, "<f4").astype(np.float32)
    with np.errstate(all="ignore"):
        if not abs(float(embedding @ embedding) - 1) < 1e-3:
            raise ValueError("an embedding is not of unit length")
    image = _bytes(entry, "image")
    if image and (len(image) > _LARGEST_IMAGE or not image.startswith(_PNG)):
        raise ValueError(f"an image is not a PNG of {_CROP}x{_CROP} pixels")
    source = _text(entry, "source")
    if shown_source(source) != source:
        raise ValueError("source is too long, or has characters that cannot be shown")
    if not isinstance(entry["is_negative"], bool):
        raise ValueError("is_negative is not true or false")
    return Template(
        id=_id(entry, "id"),
        person_id=person_id,
        embedding=embedding,
        quality=_number(entry, "quality", 0, 1),
        source=source,
        created=_number(entry, "created", 0, FOREVER),
        is_negative=entry["is_negative"],
        image=image,
    )


def _check_fields(entry: Entry, names: Sequence[str]) -> None:
    missing, unknown = set(names) - entry.keys(), entry.keys() - set(names)
    if missing:
        raise ValueError(f"{min(missing)} is missing")
    if unknown:
        raise ValueError("there is a field that is not part of the format")


def _text(entry: Entry, name: str) -> str:
    if not isinstance(entry[name], str):
        raise ValueError(f"{name} is not a text")
    return str(entry[name])


def _id(entry: Entry, name: str) -> str:
    text = _text(entry, name)
    if not is_id(text):
        raise ValueError(f"{name} is not a UUID")
    return text


def _number(entry: Entry, name: str, low: float, high: float) -> float:
    value = entry[name]
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} is not a number from {low:g} to {high:g}")
    return float(value)


def _whole(entry: Entry, name: str, low: int, high: int) -> int:
    value = entry[name]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} is not a whole number from {low} to {high}")
    return value


def _bytes(entry: Entry, name: str) -> bytes:
    try:
        return base64.b64decode(_text(entry, name), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{name} is not base64") from error


def _check_merges(path: Path, people: Mapping[str, Person], there: Mapping[str, Person]) -> None:
    """Check that who is merged into somebody leads to a person of its own.

    Raises:
        GalleryError: somebody is missing, or they are merged in a circle.
    """
    everybody = {**there, **people}
    for person in people.values():
        seen = {person.id}
        into = person.merged_into
        while into:
            if into not in everybody or into in seen:
                what = "in a circle" if into in seen else "into somebody who is not there"
                raise GalleryError(f"{path}: {person.name} is merged {what}")
            seen.add(into)
            into = everybody[into].merged_into


def _with_merged(people: Mapping[str, Person], ids: set[str]) -> set[str]:
    """People, and those who are merged into them."""
    while more := {each.id for each in people.values() if each.merged_into in ids} - ids:
        ids = ids | more
    return ids


def _digest(template: Template) -> int:
    """Equal for equal templates."""
    return hash(template._replace(embedding=template.embedding.tobytes()))  # type: ignore[arg-type]


def _crop(image: bytes) -> NDArray[np.uint8]:
    crop = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    if crop is None or crop.shape != (_CROP, _CROP, 3):
        raise GalleryError("an image that was kept in the gallery is damaged")
    return np.asarray(crop, np.uint8)
