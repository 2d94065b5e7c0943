# SPDX-License-Identifier: Apache-2.0
"""Write bags."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from scrfd_ros.bags.message_types import TYPES
from scrfd_ros.errors import ScrfdError
from scrfd_ros.files import refuse_existing

try:
    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
except ImportError as error:
    raise ScrfdError(
        f"bags are written with the Python package rosbags, 0.11 or later; the installed one lacks "
        f"something ({error}): pip install --upgrade rosbags"
    ) from error

_VERSION: Final = 8
"""Version of metadata.yaml: the newest that rosbag2 of Humble reads."""


class BagWriter:
    """A bag that is open for writing."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._connections: dict[str, Connection] = {}

    def add_topic(self, topic: str, kind: str) -> None:
        """Add a topic; the bag lists it even if it has no messages."""
        self._connections[topic] = self._writer.add_connection(topic, kind, typestore=TYPES)

    def write(self, topic: str, time: int, data: bytes) -> None:
        """Add a message in CDR bytes, recorded at `time`, nanoseconds."""
        self._writer.write(self._connections[topic], time, data)


@contextmanager
def new_bag(path: Path, storage: str) -> Iterator[BagWriter]:
    """Open a new bag for writing. It appears at `path` once it is complete; after an error, never.

    Args:
        storage: "sqlite3" or "mcap".

    Raises:
        ScrfdError: the path exists, or the bag cannot be written.
    """
    refuse_existing(path)
    plugin = StoragePlugin[storage.upper()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            part = Path(folder, path.name)  # its files are named after it
            with Writer(part, version=_VERSION, storage_plugin=plugin) as writer:
                yield BagWriter(writer)
            part.rename(path)
    except (OSError, sqlite3.Error, WriterError) as error:
        raise ScrfdError(f"{path}: cannot write the bag: {error}") from error
