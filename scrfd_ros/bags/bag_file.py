# SPDX-License-Identifier: Apache-2.0
"""The interface of a bag's files, whatever their format."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import ClassVar, NamedTuple, Protocol

MAX_BYTES = 1 << 29
"""Maximum size of a message or chunk, decompressed; the bytes beyond it are not read."""


class Topic(NamedTuple):
    """A topic of a bag. A topic whose type changes counts as two.

    Attributes:
        name: of the topic.
        kind: type of the messages; "" if the file does not say.
        encoding: serialization of the messages; "cdr" in ROS 2.
        digest: hash of the type; "" if the file has none.
    """

    name: str
    kind: str
    encoding: str
    digest: str = ""


class Record(NamedTuple):
    """A message of a bag.

    Attributes:
        topic, kind: name of its topic, and its type.
        time: when it was recorded, nanoseconds.
        data: its CDR bytes.
    """

    topic: str
    kind: str
    time: int
    data: bytes


class BagFile(Protocol):
    """A file of a bag, of which everything readable is read.

    The constructor takes the path and the types whose messages will be read; messages of other
    types are only counted. It finds every message, and raises OSError if the file cannot be opened
    and `UnreadableError` if nothing in it can be read.

    Attributes:
        storage: rosbag2's name of the format, "sqlite3" or "mcap".
        counts: number of messages found on each topic. Some may prove damaged when they are read.
        claims: number of messages on each topic, by name, according to the file. May be wrong.
        start: time of the first message, nanoseconds.
        damage: a phrase for each damaged place.
    """

    storage: ClassVar[str]
    counts: dict[Topic, int]
    claims: dict[str, int]
    start: int
    damage: list[str]

    def records(self, topics: Collection[Topic]) -> Iterator[Record]:
        """The messages on these topics, in the order of their times."""


class UnreadableError(Exception):
    """Nothing in the file can be read; says why."""
