# SPDX-License-Identifier: Apache-2.0
"""Read bags of ROS 2, sqlite3 and MCAP, without ROS.

Reads every readable message of a damaged bag, and reports what is damaged.
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

_KINDS: Final = (IMAGE, COMPRESSED_IMAGE, FACE_ARRAY)
"""The types whose messages are read. Messages of other types are only counted."""

_SUFFIX: Final = re.compile(r"\.(db3|mcap)(\.zstd|\.zst)?$")
_STORAGES: Final = {"db3": SqliteFile.storage, "mcap": McapFile.storage}
_MAX_PLACES: Final = 3  # damaged places of one file that a sentence names
_STEP: Final = 1 << 20


class Bag:
    """A bag that is open for reading.

    Attributes:
        path: the folder with metadata.yaml, or a single .db3 or .mcap file.
        counts: the number of messages found on each topic; sorted by topic.
        claims: the number of messages on each topic according to the bag. May be wrong.
        storage: how the bag is stored, "sqlite3" or "mcap".
        notes: sentences about irregularities that cost no messages.
    """

    def __init__(
        self,
        path: Path,
        files: dict[Path, BagFile],
        storage: str,
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
        self._topics: dict[Topic, Topic] = {}  # completed from metadata.yaml and the first message
        for file in self._files.values():
            for topic in file.counts:
                self._topics[topic] = self._completed(file, topic)
        counts: Counter[Topic] = Counter()
        claims: Counter[str] = Counter()
        for file in self._files.values():
            for topic, count in file.counts.items():
                counts[self._topics[topic]] += count
            claims.update(file.claims)
        self.counts = dict(sorted(counts.items()))
        self.claims = {**claims, **metadata.counts}

    @property
    def damage(self) -> list[str]:
        """A sentence for each damaged file. Reading messages may find more damage."""
        found = []
        for path, file in self._files.items():
            if file.damage:
                places = "; ".join(file.damage[:_MAX_PLACES])
                if (more := len(file.damage) - _MAX_PLACES) > 0:
                    places += f"; and {more} more"
                found.append(f"{path}: damaged: {places}. {_remedy(file.storage, path)}")
        return [*self._damage, *found]

    def topics(self, *kinds: str) -> list[Topic]:
        """The topics of ROS 2 with these types, sorted by name."""
        return [topic for topic in self.counts if topic.kind in kinds and topic.encoding == "cdr"]

    def count(self, topics: Iterable[Topic]) -> int:
        """The number of messages on these topics."""
        return sum(self.counts[topic] for topic in topics)

    def records(self, topics: Collection[Topic]) -> Iterator[Record]:
        """Every message on these topics, in the order of their times.

        A message that cannot be read as a whole comes with the bytes that can be read.
        """
        for file in self._files.values():
            wanted = {topic for topic in file.counts if self._topics[topic] in topics}
            kinds = {(topic.name, topic.kind): self._topics[topic].kind for topic in wanted}
            for record in file.records(wanted):
                data = record.data
                if data[:4] == ZSTD_MAGIC:  # rosbag2 can compress each message by itself
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
    """Open a bag for reading.

    Raises:
        ScrfdError: there is no bag, or nothing in it can be read; says what may repair it.
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
                f"{path}: {problem}; read without it. This rewrites it: "
                f"ros2 bag reindex {quote(str(path))}"
            )
    files: dict[Path, BagFile] = {}
    storage = ""
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
        storage = opened.storage
    if not files:
        raise refused[0] if refused else ScrfdError("; ".join(damage))
    return Bag(path, files, storage, metadata, notes, damage)


def _listed(
    folder: Path, here: list[Path], metadata: BagMetadata, notes: list[str], damage: list[str]
) -> list[Path]:
    """The files that metadata.yaml lists, or all files in the folder if one is missing."""
    wanted = [PurePath(name).name for name in metadata.files]
    names = {file.name for file in here}
    missing = sorted(set(wanted) - names)
    others = [file for file in here if file.name not in wanted]
    if missing and len(others) < len(missing):
        damage.append(
            f"{folder}: {', '.join(missing)} is missing, and the messages in it are lost: copy the "
            f"whole folder again"
        )
    if wanted and not missing:
        if others:
            notes.append(
                f"{folder}: not read, because metadata.yaml does not list it: "
                f"{', '.join(file.name for file in others)}. To read it, give the file itself, or "
                f"list all files: ros2 bag reindex {quote(str(folder))}"
            )
        return [file for file in here if file.name in wanted]
    return here


def _opened_file(path: Path, scratch: Path, damage: list[str]) -> BagFile:
    """Open one file; its content shows the format, not its name.

    Raises:
        OSError: the file cannot be opened.
        ScrfdError: it is not a file of a bag, or nothing in it can be read.
    """
    original, problem = path, ""
    with path.open("rb") as file:
        start = file.read(len(_SQLITE_MAGIC))
        if start[:4] == ZSTD_MAGIC:
            file.seek(0)
            path, problem = _unpacked(file, scratch / _SUFFIX.sub(r".\1", path.name))
            if problem:
                damage.append(f"{original}: {problem}; the messages before that are read")
            start = _start_of(path)
    suffix = _SUFFIX.search(path.name)
    storage = _STORAGES[suffix[1]] if suffix else ""
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
            storage = McapFile.storage
        elif start.startswith(_SQLITE_MAGIC):
            storage = SqliteFile.storage
        if storage == McapFile.storage:
            return McapFile(path, _KINDS)
        if storage == SqliteFile.storage:
            return SqliteFile(path, _KINDS)
    except UnreadableError as error:
        hint = f" {_remedy(storage, original)}" if storage and start else ""
        raise ScrfdError(
            f"{original}: not a bag that can be read: {error}. {_EXPECTED}.{hint}"
        ) from error
    raise ScrfdError(f"{original}: not a bag that can be read. {_EXPECTED}")


_REMEDIES: Final = {"mcap": "mcap recover {}", "sqlite3": "sqlite3 {} .recover"}


def _remedy(storage: str, path: Path) -> str:
    return f"This may repair it: {_REMEDIES[storage].format(quote(str(path)))}"


_EXPECTED: Final = (
    "Expected a folder with metadata.yaml, as `ros2 bag record` writes it, or one .db3 or .mcap "
    "file of it"
)


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_SQLITE_MAGIC))


def _unpacked(source: BinaryIO, target: Path) -> tuple[Path, str]:
    """Decompress a whole file; returns its path, and what is wrong with its end."""
    target.parent.mkdir()
    with target.open("wb") as file:
        try:
            for part in decompressed_parts(iter(lambda: source.read(_STEP), b""), "zstd"):
                file.write(part)
        except ValueError as error:
            return target, str(error)
    return target, ""


def _no_bag(path: Path, metadata: BagMetadata) -> ScrfdError:
    """The error for a folder without files of a bag."""
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
            f"{path}: a folder with bags in it; expected one bag, such as: "
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
    """A sort key that puts bag_10.db3 after bag_9.db3."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in _DIGITS.split(path.name)]


_DIGITS: Final = re.compile(r"(\d{1,18})")


def _guessed_kind(data: bytes) -> str:
    """The type of a message without a noted type, if it is a whole image; otherwise empty."""
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
