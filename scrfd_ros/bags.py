"""Bags of ROS 2, sqlite3 and MCAP, read and written without ROS by the package rosbags."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from scrfd_ros.bag_messages import TYPES
from scrfd_ros.errors import ScrfdError

try:
    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import Reader, StoragePlugin, Writer, WriterError
except ImportError as error:
    raise ScrfdError(
        f"bags are read and written with the Python package rosbags, 0.11 or later; this one lacks "
        f"something ({error}): pip install --upgrade rosbags"
    ) from error

_VERSION: Final = 8
"""Of metadata.yaml: the last that rosbag2 of Humble reads."""


class Record(NamedTuple):
    """A message as it lies in a bag.

    Attributes:
        topic, kind: where it was published, and its type.
        time: when it was recorded, nanoseconds.
        data: its CDR bytes.
    """

    topic: str
    kind: str
    time: int
    data: bytes


class Bag:
    """A bag that is being read.

    Attributes:
        path: the folder with metadata.yaml, or a single .db3 or .mcap file.
        kinds: the type of each topic, in the order of the topics' names.
        storage: how the bag is stored.
    """

    def __init__(self, path: Path, reader: Reader) -> None:
        self.path = path
        self.kinds = {
            connection.topic: connection.msgtype
            for connection in sorted(reader.connections, key=lambda connection: connection.topic)
        }
        files = list(path.iterdir()) if path.is_dir() else [path]
        is_mcap = any(".mcap" in file.suffixes for file in files)  # "bag_0.mcap.zstd" too
        self.storage = StoragePlugin.MCAP if is_mcap else StoragePlugin.SQLITE3
        self._reader = reader

    def topics(self, *kinds: str) -> list[str]:
        """The topics of these types, by name."""
        return [topic for topic, kind in self.kinds.items() if kind in kinds]

    def count(self, topics: Sequence[str]) -> int:
        """The number of messages on these topics."""
        return sum(connection.msgcount for connection in self._connections(topics))

    def hashes(self, topics: Sequence[str]) -> set[str]:
        """The type hashes noted for these topics. Not every bag has them."""
        return {connection.digest for connection in self._connections(topics)} - {""}

    def records(self, topics: Sequence[str]) -> Iterator[Record]:
        """Every message on these topics, in the order of their times.

        Raises:
            ScrfdError: the bag is damaged.
        """
        connections = self._connections(topics)
        if not connections:
            return  # to rosbags, none means all
        messages = self._reader.messages(connections)
        while True:
            try:
                connection, time, data = next(messages)
            except StopIteration:
                return
            except Exception as error:
                raise _unreadable(self.path, error) from error
            yield Record(connection.topic, connection.msgtype, time, data)

    def _connections(self, topics: Sequence[str]) -> list[Connection]:
        return [entry for entry in self._reader.connections if entry.topic in topics]


@contextmanager
def open_bag(path: Path) -> Iterator[Bag]:
    """Open a bag to read it.

    Raises:
        ScrfdError: there is none, or it is damaged.
    """
    try:
        reader = Reader(path)
        reader.open()
    except Exception as error:
        raise _unreadable(path, error) from error
    try:
        yield Bag(path, reader)
    finally:
        reader.close()


class BagWriter:
    """A bag that is being written."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._connections: dict[str, Connection] = {}

    def add_topic(self, topic: str, kind: str) -> None:
        """Announce a topic; it is in the bag even if nothing is published on it."""
        self._connections[topic] = self._writer.add_connection(topic, kind, typestore=TYPES)

    def write(self, topic: str, time: int, data: memoryview) -> None:
        """Add a message of CDR bytes, recorded at `time`, nanoseconds."""
        self._writer.write(self._connections[topic], time, data)


@contextmanager
def new_bag(path: Path, storage: StoragePlugin) -> Iterator[BagWriter]:
    """Write a bag that is there as a whole or, after any error, not at all.

    Raises:
        ScrfdError: the path exists, or cannot be written.
    """
    refuse_existing(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            part = Path(folder, path.name)  # its files are named after it
            with Writer(part, version=_VERSION, storage_plugin=storage) as writer:
                yield BagWriter(writer)
            part.rename(path)
    except (OSError, sqlite3.Error, WriterError) as error:
        raise ScrfdError(f"{path}: cannot write the bag: {error}") from error


def refuse_existing(path: Path) -> None:
    """Raises ScrfdError if there is something at the path of a bag to be written."""
    if path.exists():
        raise ScrfdError(f"{path}: exists already; give another path, or remove it")


def _unreadable(path: Path, error: Exception) -> ScrfdError:
    # What is wrong with a bag comes as an error of Python, SQLite, a decompressor or rosbags.
    reason = str(error) or type(error).__name__
    return ScrfdError(
        f"{path}: not a bag that can be read: {reason}. Expected a folder with metadata.yaml, as "
        f"`ros2 bag record` writes it, or one .db3 or .mcap file of it"
    )
