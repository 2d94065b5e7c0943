# SPDX-License-Identifier: Apache-2.0
"""Export files: what is written is read, and what is not whole is refused in one sentence."""

from __future__ import annotations

import base64
import json
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from galleries import INFO, looks
from numpy.typing import NDArray

from scrfd_ros.errors import GalleryError, ScrfdError
from scrfd_ros.gallery.exchange import enroll_again, export_info, export_people, import_people
from scrfd_ros.gallery.gallery import Gallery
from scrfd_ros.gallery.opening import open_gallery
from scrfd_ros.gallery.people import GalleryInfo, Template

Entry = dict[str, Any]
NAMES = ("Anna", "Bert", "\u05d3\u05d5\u05d3 \U0001f468\u200d\U0001f467")


def crop(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (112, 112, 3), np.uint8)


def made(place: str) -> Gallery:
    """Anna has images; Bert is merged into her and has a negative example."""
    gallery = open_gallery(place, INFO)
    for person, name in enumerate(NAMES):
        some = looks(person)
        if name == "Anna":
            some = [look._replace(crop=crop(row)) for row, look in enumerate(some)]
        expires = time.time() + 1e6 if name == "Bert" else None
        gallery.enroll(name, some, source=f"{name}.jpg", consent="yes", expires=expires)
    gallery.reject("Bert", looks(7, 1), "a mistake")
    gallery.merge("Bert", "Anna")
    return gallery


@pytest.fixture
def gallery(place: str) -> Iterator[Gallery]:
    with made(place) as gallery:
        yield gallery


@pytest.fixture(scope="module")
def in_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """A gallery that no test changes."""
    with made(str(tmp_path_factory.mktemp("people") / "people.db")) as gallery:
        yield gallery


@pytest.fixture
def other(new_place: Callable[[], str]) -> Iterator[Gallery]:
    with open_gallery(new_place(), INFO) as other:
        yield other


@pytest.fixture
def file(gallery: Gallery, tmp_path: Path) -> Path:
    path = tmp_path / "people.jsonl"
    assert export_people(gallery, path) == len(NAMES)
    return path


def content(gallery: Gallery) -> dict[object, object]:
    def comparable(template: Template) -> tuple[object, ...]:
        return (*template[:2], template.embedding.tobytes(), *template[3:])

    return {
        person: sorted(map(comparable, templates), key=str)
        for person, templates in gallery.export()
    }


def entries(path: Path) -> list[Entry]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write(path: Path, lines: list[Entry]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def test_what_is_exported_is_imported(gallery: Gallery, other: Gallery, file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert export_info(file) == INFO
    assert import_people(other, file)[:2] == (3, 10)
    assert content(other) == content(gallery)
    assert [each.name for each in other.people] == [each.name for each in gallery.people]
    other.split("Bert")
    assert other.nearest(looks(1)[0].embedding)[0].person_id == other.find("Bert").id


def test_the_format_is_as_described(gallery: Gallery, file: Path) -> None:
    """By the description in docs/identity.md, without the code that writes it."""
    header, *people = entries(file)
    assert header == {
        "format": "scrfd_ros gallery",
        "version": 1,
        "recognizer": "w600k_mbf",
        "recognizer_sha256": "0" * 64,
        "dimensions": 512,
        "people": 3,
    }
    (anna,) = (each for each in people if each["name"] == "Anna")
    (bert,) = (each for each in people if each["name"] == "Bert")
    assert bert["merged_into"] == anna["id"]
    assert sorted(each["is_negative"] for each in bert["templates"]) == [False, False, False, True]
    found = {
        tuple(np.frombuffer(base64.b64decode(each["embedding"]), "<f4")): cv2.imdecode(
            np.frombuffer(base64.b64decode(each["image"]), np.uint8), cv2.IMREAD_COLOR
        )
        for each in anna["templates"]
    }
    for row, look in enumerate(looks(0)):
        assert np.array_equal(found[tuple(look.embedding)], crop(row))


def test_importing_again_changes_nothing(gallery: Gallery, file: Path) -> None:
    before = content(gallery)
    assert import_people(gallery, file) == (0, 0, [])
    assert content(gallery) == before
    anna = gallery.find("Anna")
    gallery.remove([gallery.templates_of(anna)[0].id])
    assert import_people(gallery, file) == (0, 1, [])
    assert content(gallery) == before


def test_who_was_forgotten_comes_back(gallery: Gallery, file: Path) -> None:
    before = content(gallery)
    gallery.forget("Anna")
    assert import_people(gallery, file)[:2] == (2, 7)
    assert content(gallery) == before


def test_conflicts_are_all_named_and_nothing_is_imported(
    gallery: Gallery, other: Gallery, file: Path
) -> None:
    gallery.rename("Anna", "Anne")
    template = gallery.templates_of(gallery.find("Bert"))[0]
    gallery.move([template.id], NAMES[2])
    gallery.forget(NAMES[2])
    other.enroll(NAMES[2], looks(9), source="")
    for which, words in (
        (gallery, r"Anna \(line 2\) is in the gallery with other data"),
        (other, "the gallery has another person of that name"),
    ):
        before = content(which)
        with pytest.raises(GalleryError, match=words):
            import_people(which, file)
        assert content(which) == before


def test_a_moved_template_is_a_conflict(gallery: Gallery, file: Path) -> None:
    template = gallery.templates_of(gallery.find("Bert"))[0]
    gallery.move([template.id], "Anna")
    with pytest.raises(GalleryError, match=r"Bert \(line 3\): a template is in the gallery"):
        import_people(gallery, file)


def test_who_has_expired_is_left_out(gallery: Gallery, other: Gallery, file: Path) -> None:
    header, *people = entries(file)
    people[0]["expires"] = 1.0  # Anna, whom Bert is merged into
    write(file, [header, *people])
    assert import_people(other, file)[:2] == (1, 3)
    assert [each.name for each in other.people] == [NAMES[2]]


def test_another_recognizer_is_refused(file: Path, new_place: Callable[[], str]) -> None:
    with open_gallery(new_place(), GalleryInfo("other", "1" * 64, 512)) as other:
        with pytest.raises(GalleryError, match=r"of the recognizer w600k_mbf.*of other"):
            import_people(other, file)
        assert not other.people


def test_files_are_not_overwritten_and_have_to_exist(
    gallery: Gallery, file: Path, tmp_path: Path
) -> None:
    with pytest.raises(ScrfdError, match="exists already"):
        export_people(gallery, file)
    with pytest.raises(ScrfdError, match="cannot write"):
        export_people(gallery, file / "below")
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(GalleryError, match=r"no such file|is not a file"):
            import_people(gallery, path)


def test_an_export_that_fails_leaves_nothing(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Iterator[object]:
        raise GalleryError("gone")
        yield

    monkeypatch.setattr(gallery, "export", broken)
    with pytest.raises(GalleryError, match="gone"):
        export_people(gallery, tmp_path / "some.jsonl")
    assert not (tmp_path / "some.jsonl").exists()


def _set(name: str, value: object, row: int = 1) -> Callable[[list[Entry]], object]:
    return lambda lines: lines[row].update({name: value})


def _set_template(name: str, value: object) -> Callable[[list[Entry]], object]:
    return lambda lines: lines[1]["templates"][0].update({name: value})


def _encoded(*numbers: float) -> str:
    return base64.b64encode(np.array(numbers, "<f4").tobytes()).decode()


def _circle(lines: list[Entry]) -> None:
    lines[1]["merged_into"] = lines[2]["id"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("format", "songs", 0), "line 1: it is not an export"),
        (_set("version", 2, 0), "line 1: it is not of version 1"),
        (_set("people", None, 0), "line 1: the export was not finished"),
        (_set("people", 4, 0), "has 3 people instead of 4: a part of it is missing"),
        (_set("people", True, 0), "line 1: people is not a whole number"),
        (_set("dimensions", 0, 0), "line 1: dimensions is not"),
        (_set("recognizer_sha256", "x", 0), "line 1: recognizer_sha256"),
        (_set("recognizer", "\ud800", 0), "line 1: the recognizer's name"),
        (lambda lines: lines.pop(), "has 2 people instead of 3"),
        (lambda lines: lines.append(lines[1]), "line 5: the name is in the file twice"),
        (lambda lines: lines[1].pop("name"), "line 2: name is missing"),
        (_set("mood", "good"), "line 2: there is a field that is not part"),
        (_set("id", "1"), "line 2: id is not a UUID"),
        (_set("expires", 253402300799.0), "line 2: expires is not a number"),  # 10000 in the east
        (_set("name", 7), "line 2: name is not a text"),
        (_set("name", " Anna"), "line 2: the name is not as names are kept"),
        (_set("name", "\ud800"), "line 2: a name has no control characters"),
        (_set("consent", "a\nb"), "line 2: a note of consent"),
        (_set("created", "now"), "line 2: created is not a number"),
        (_set("created", True), "line 2: created is not a number"),
        (_set("created", 10**400), "line 2: created is not a number"),
        (_set("created", float("nan")), "line 2: it is not JSON"),
        (_set("expires", -1), "line 2: expires is not a number"),
        (_set("merged_into", None), "line 2: merged_into is not a text"),
        (_set("merged_into", "0" * 8 + "-0000-0000-0000-" + "0" * 12), "somebody who is not there"),
        (_circle, "is merged in a circle"),
        (_set("templates", {}), "line 2: templates is not a list"),
        (_set("templates", ["x"]), "line 2: a template is not"),
        (_set_template("embedding", "?"), "line 2: embedding is not base64"),
        (_set_template("embedding", _encoded(1.0)), "line 2: an embedding does not have 512"),
        (_set_template("embedding", _encoded(*[1.0] * 512)), "line 2: .* not of unit length"),
        (_set_template("embedding", _encoded(*[np.nan] * 512)), "line 2: .* not of unit length"),
        (_set_template("embedding", _encoded(*[3e38] * 512)), "line 2: .* not of unit length"),
        (_set_template("quality", 2), "line 2: quality is not a number from 0 to 1"),
        (_set_template("source", "\u202e"), "line 2: source is too long"),
        (_set_template("is_negative", 0), "line 2: is_negative is not"),
        (_set_template("image", "AAAA"), "line 2: an image is not a PNG of 112x112"),
        (_set_template("person_id", "x"), "line 2: there is a field"),
    ],
)
def test_a_damaged_file_is_refused_with_the_line(
    in_file: Gallery, tmp_path: Path, change: Callable[[list[Entry]], object], words: str
) -> None:
    gallery, file = in_file, tmp_path / "people.jsonl"
    export_people(gallery, file)
    lines = entries(file)
    change(lines)
    write(file, lines)
    before = content(gallery)
    with pytest.raises(GalleryError, match=words) as refused:
        import_people(gallery, file)
    assert str(file) in str(refused.value)
    str(refused.value).encode()
    assert content(gallery) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "line 1: it is not JSON"),
        (b"\n\n", "line 1: it is not JSON"),
        (b"Anna;Bert\n", "line 1: it is not JSON"),
        (b"[]\n", "line 1: it is not a JSON object"),
        (b'{"format": "x", "format": "scrfd_ros gallery"}\n', "line 1: it is not JSON"),
        (b"[" * 100_000, "line 1: it is not JSON"),
        (b"\xff\xfe" + "{}".encode("utf-16-le"), "line 1: it is not"),
        (b'{"format": ' + b"9" * 5000, "line 1: it is not JSON"),
    ],
)
def test_what_is_no_export_is_refused(
    in_file: Gallery, tmp_path: Path, text: bytes, words: str
) -> None:
    path = tmp_path / "some.jsonl"
    path.write_bytes(text)
    with pytest.raises(GalleryError, match=words):
        import_people(in_file, path)


def test_a_gallery_with_images_is_taken_over_for_another_recognizer(
    gallery: Gallery, other: Gallery
) -> None:
    """The other recognizer is made up: it looks at two pixels."""

    def embed(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert crops.dtype == np.uint8 and crops.shape[1:] == (112, 112, 3)
        embeddings = np.zeros((len(crops), 512), np.float32)
        embeddings[np.arange(len(crops)), crops[:, 0, 0, 0]] = 1
        return embeddings

    taken = enroll_again(gallery, other, embed)
    assert taken == (1, 3, ["Bert", NAMES[2]])
    assert [each.name for each in other.people] == ["Anna"]
    for row in range(3):
        (best,) = other.nearest(embed(crop(row)[None])[0], 1)
        assert best.similarity == pytest.approx(1)
    with pytest.raises(GalleryError, match=r"another person has this name|in the gallery already"):
        enroll_again(gallery, other, embed)
    (look,) = looks(8, 1)
    gallery.enroll("Carl", [look._replace(crop=crop(8))], source="")
    gallery.merge("Anna", NAMES[2])
    gallery.merge(NAMES[2], "Carl")
    other.forget("Anna")
    enroll_again(gallery, other, embed)  # who is between the two has no images
    assert [each.name for each in other.merged(other.find("Carl").id)] == ["Anna"]
    gallery.forget("Carl")
    with pytest.raises(GalleryError, match="has no images of anybody"):
        enroll_again(gallery, other, embed)
