# SPDX-License-Identifier: Apache-2.0
"""Read bags of ROS 2, sqlite3 and MCAP, without ROS.

Reading gives every message that can be had of a damaged bag, and says what is damaged.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from shlex import quote
from tempfile import TemporaryDirectory
from typing import BinaryIO, Final

from scrfd_ros.bags.bag_file import MAX_BYTES, BagFile, Record, Topic, UnreadableError
from scrfd_ros.bags.decompression import ZSTD_MAGIC, decompressed, decompressed_parts
from scrfd_ros.bags.mcap_file import MAGIC as _MCAP_MAGIC
from scrfd_ros.bags.mcap_file import McapFile
from scrfd_ros.bags.message_types import (
    COMPRESSED_IMAGE,
    FACE_ARRAY,
    IMAGE,
    deserialize,
)
from scrfd_ros.bags.metadata import BagMetadata, read_metadata
from scrfd_ros.bags.sqlite_file import MAGIC as _SQLITE_MAGIC
from scrfd_ros.bags.sqlite_file import SqliteFile
from scrfd_ros.errors import MessageError, ScrfdError

try:
    from rosbags.rosbag2 import StoragePlugin
except ImportError as error:
    raise ScrfdError(
        f"bags are read and written with the Python package rosbags, 0.11 or later; this one lacks "
        f"something ({error}): pip install --upgrade rosbags"
    ) from error

_KINDS: Final = (IMAGE, COMPRESSED_IMAGE, FACE_ARRAY)
"""Types of which messages are read; those of others are counted."""

_SUFFIX: Final = re.compile(r"\.(db3|mcap)(\.zstd|\.zst)?$")
_MAX_PLACES: Final = 3  # of one file that are named
_STEP: Final = 1 << 20


class Bag:
    """A bag that is being read.

    Attributes:
        path: the folder with metadata.yaml, or a single .db3 or .mcap file.
        counts: every topic in it, by name, with the number of messages that were found.
        claims: how many messages each topic has according to the bag. May be wrong.
        storage: how the bag is stored.
        notes: sentences about what is not as it should be, although nothing is lost by it.
    """

    def __init__(
        self,
        path: Path,
        files: dict[Path, BagFile],
        storage: StoragePlugin,
        metadata: BagMetadata,
        notes: list[str],
        damage: list[str],
    ) -> None:
        self.path = path
        self.storage = storage
        self.notes = notes
        self._files = dict(sorted(files.items(), key=lambda entry: entry[1].start))
        self._metadata = metadata
        self._damage = damage
        self._given: dict[Topic, Topic] = {}  # with what the file itself does not say
        for file in self._files.values():
            for topic in file.counts:
                self._given[topic] = self._completed(file, topic)
        counts: Counter[Topic] = Counter()
        claims: Counter[str] = Counter()
        for file in self._files.values():
            for topic, count in file.counts.items():
                counts[self._given[topic]] += count
            claims.update(file.claims)
        self.counts = dict(sorted(counts.items()))
        self.claims = {**claims, **metadata.counts}

    @property
    def damage(self) -> list[str]:
        """A sentence for each file that is damaged. Reading messages may bring more to light."""
        found = []
        for path, file in self._files.items():
            if file.damage:
                places = "; ".join(file.damage[:_MAX_PLACES])
                if (more := len(file.damage) - _MAX_PLACES) > 0:
                    places += f"; and {more} more"
                kind = "mcap" if isinstance(file, McapFile) else "db3"
                found.append(f"{path}: damaged: {places}. {_remedy(kind, path)}")
        return [*self._damage, *found]

    def topics(self, *kinds: str) -> list[Topic]:
        """The topics of ROS 2 of these types, by name."""
        return [topic for topic in self.counts if topic.kind in kinds and topic.encoding == "cdr"]

    def count(self, topics: Iterable[Topic]) -> int:
        """The number of messages on these topics."""
        return sum(self.counts[topic] for topic in topics)

    def records(self, topics: Collection[Topic]) -> Iterator[Record]:
        """Every message on these topics, in the order of their times.

        One that cannot be read any more comes with what there is of its bytes.
        """
        for file in self._files.values():
            wanted = {topic for topic in file.counts if self._given[topic] in topics}
            kinds = {(topic.name, topic.kind): self._given[topic].kind for topic in wanted}
            for record in file.records(wanted):
                data = record.data
                if data[:4] == ZSTD_MAGIC:  # as rosbag2 compresses messages one by one
                    data, _ = decompressed(data, "zstd", MAX_BYTES)
                yield record._replace(kind=kinds[record.topic, record.kind], data=data)

    def _completed(self, file: BagFile, topic: Topic) -> Topic:
        kind = topic.kind or self._metadata.kinds.get(topic.name, "")
        if not kind and topic.encoding == "cdr":
            first = next(file.records([topic]), None)
            kind = _guessed_kind(first.data) if first else ""
        digest = topic.digest or self._metadata.digests.get(topic.name, "")
        return topic._replace(kind=kind, digest=digest)


@contextmanager
def open_bag(path: Path) -> Iterator[Bag]:
    """Open a bag to read it.

    Raises:
        ScrfdError: there is none, or nothing in it can be read; says what may mend it.
    """
    with TemporaryDirectory(prefix="scrfd_bag_") as scratch:
        try:
            bag = _opened(path, Path(scratch))
        except OSError as error:
            raise ScrfdError(
                f"{error.filename or path}: cannot be read: {error.strerror}"
            ) from error
        yield bag


def _opened(path: Path, scratch: Path) -> Bag:
    notes: list[str] = []
    damage: list[str] = []
    metadata = BagMetadata([], {}, {}, {})
    paths = [path]
    if path.is_dir():
        here = [file for file in path.iterdir() if _SUFFIX.search(file.name)]
        here.sort(key=_by_number)
        metadata, problem = read_metadata(path / "metadata.yaml")
        if not here:
            raise _no_bag(path, metadata)
        paths = _listed(path, here, metadata, notes, damage)
        if problem:
            notes.append(
                f"{path}: {problem}; read without it. This writes it anew: "
                f"ros2 bag reindex {quote(str(path))}"
            )
    files: dict[Path, BagFile] = {}
    storage = StoragePlugin.SQLITE3
    refused: list[ScrfdError] = []
    for number, file in enumerate(paths):
        try:
            opened = _opened_file(file, scratch / str(number), damage)
        except ScrfdError as error:
            refused.append(error)
            damage.append(str(error))
            continue
        except OSError as error:
            if len(paths) == 1:
                raise
            damage.append(f"{file}: cannot be read: {error.strerror}")
            continue
        files[file] = opened
        storage = StoragePlugin.MCAP if isinstance(opened, McapFile) else StoragePlugin.SQLITE3
    if not files:
        raise refused[0] if refused else ScrfdError("; ".join(damage))
    return Bag(path, files, storage, metadata, notes, damage)


def _listed(
    folder: Path, here: list[Path], metadata: BagMetadata, notes: list[str], damage: list[str]
) -> list[Path]:
    """The files of a bag: those that metadata.yaml lists, and all there are if one is missing."""
    wanted = [PurePath(name).name for name in metadata.files]
    names = {file.name for file in here}
    missing = sorted(set(wanted) - names)
    others = [file for file in here if file.name not in wanted]
    if missing and len(others) < len(missing):
        damage.append(
            f"{folder}: {', '.join(missing)} is missing, and with it what was recorded there: copy "
            f"the whole folder again"
        )
    if wanted and not missing:
        if others:
            notes.append(
                f"{folder}: left alone, as metadata.yaml does not list it: "
                f"{', '.join(file.name for file in others)}. Give such a file itself to read it, "
                f"or list all: ros2 bag reindex {quote(str(folder))}"
            )
        return [file for file in here if file.name in wanted]
    return here


def _opened_file(path: Path, scratch: Path, damage: list[str]) -> BagFile:
    """Open one file, whatever its name says.

    Raises:
        OSError: it cannot be opened.
        ScrfdError: it is none, or nothing in it can be read.
    """
    original, problem = path, ""
    with path.open("rb") as file:
        start = file.read(len(_SQLITE_MAGIC))
        if start[:4] == ZSTD_MAGIC:
            file.seek(0)
            path, problem = _unpacked(file, scratch / _SUFFIX.sub(r".\1", path.name))
            if problem:
                damage.append(f"{original}: {problem}; what comes before that is read")
            start = _start_of(path)
    suffix = _SUFFIX.search(path.name)
    kind = suffix[1] if suffix else ""
    try:
        if not start:
            raise UnreadableError(problem or "the file is empty")
        if start.startswith(b"#ROSBAG V"):
            raise ScrfdError(
                f"{original}: a bag of ROS 1; expected one of ROS 2. This converts it: "
                f"rosbags-convert --src {quote(str(original))} "
                f"--dst {quote(str(original.with_suffix('')))}"
            )
        if start.startswith(_MCAP_MAGIC):
            kind = "mcap"
        elif start.startswith(_SQLITE_MAGIC):
            kind = "db3"
        if kind == "mcap":
            return McapFile(path, _KINDS)
        if kind == "db3":
            return SqliteFile(path, _KINDS)
    except UnreadableError as error:
        hint = f" {_remedy(kind, original)}" if kind and start else ""
        raise ScrfdError(
            f"{original}: not a bag that can be read: {error}. {_EXPECTED}.{hint}"
        ) from error
    raise ScrfdError(f"{original}: not a bag that can be read. {_EXPECTED}")


_REMEDIES: Final = {"mcap": "mcap recover {}", "db3": "sqlite3 {} .recover"}


def _remedy(kind: str, path: Path) -> str:
    return f"This may mend it: {_REMEDIES[kind].format(quote(str(path)))}"


_EXPECTED: Final = (
    "Expected a folder with metadata.yaml, as `ros2 bag record` writes it, or one .db3 or .mcap "
    "file of it"
)


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_SQLITE_MAGIC))


def _unpacked(source: BinaryIO, target: Path) -> tuple[Path, str]:
    """Decompress a whole file; returns it, and what is wrong with its end."""
    target.parent.mkdir()
    with target.open("wb") as file:
        try:
            for part in decompressed_parts(iter(lambda: source.read(_STEP), b""), "zstd"):
                file.write(part)
        except ValueError as error:
            return target, str(error)
    return target, ""


def _no_bag(path: Path, metadata: BagMetadata) -> ScrfdError:
    """Why there is no file of a bag in a folder."""
    inside = sorted(path.iterdir())
    if metadata.files:
        return ScrfdError(
            f"{path}: not a bag that can be read: {', '.join(metadata.files)} is missing, which "
            f"its metadata.yaml lists: copy the whole folder again"
        )
    for file in inside:
        if file.suffix == ".bag" and file.is_file():
            return ScrfdError(
                f"{path}: a folder with bags of ROS 1; expected one of ROS 2. This converts one: "
                f"rosbags-convert --src {quote(str(file))} "
                f"--dst {quote(str(file.with_suffix('')))}"
            )
    bags = [folder.name for folder in inside if folder.is_dir() and _looks_like_a_bag(folder)]
    if bags:
        more = f" and {len(bags) - 5} more" if len(bags) > 5 else ""
        return ScrfdError(
            f"{path}: not a bag, but a folder with bags in it: give one of them: "
            f"{', '.join(bags[:5])}{more}"
        )
    return ScrfdError(
        f"{path}: not a bag that can be read: there is no .db3 or .mcap file in it. {_EXPECTED}"
    )


def _looks_like_a_bag(folder: Path) -> bool:
    return any(
        file.name == "metadata.yaml" or _SUFFIX.search(file.name) for file in folder.iterdir()
    )


def _by_number(path: Path) -> list[tuple[int, str]]:
    """So that bag_10.db3 comes behind bag_9.db3."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in _DIGITS.split(path.name)]


_DIGITS: Final = re.compile(r"(\d{1,18})")


def _guessed_kind(data: bytes) -> str:
    """The type of a message of which no type is noted: an image, if it is whole as one."""
    for kind in (IMAGE, COMPRESSED_IMAGE):
        try:
            message = deserialize(data, kind)
        except MessageError:
            continue
        if kind == IMAGE and message.step * message.height == len(message.data) > 0:
            return kind
        if kind == COMPRESSED_IMAGE and message.data[:3].tobytes() in (b"\xff\xd8\xff", b"\x89PN"):
            return kind
    return ""
