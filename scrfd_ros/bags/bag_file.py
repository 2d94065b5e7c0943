# SPDX-License-Identifier: Apache-2.0
"""What the files of a bag have in common, however they store messages."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple, Protocol

MAX_BYTES = 1 << 29
"""Of a message, or of a chunk of messages, decompressed: what claims more is not read."""


class Topic(NamedTuple):
    """A topic of a bag. One whose type changes counts as two.

    Attributes:
        name: where the messages were published.
        kind: their type; "" where the file does not say.
        encoding: how they are serialized: "cdr" in ROS 2.
        digest: the hash of the type; "" where the file has none.
    """

    name: str
    kind: str
    encoding: str
    digest: str = ""


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


class BagFile(Protocol):
    """A file of a bag, of which everything is read that can be.

    Attributes:
        counts: how many messages were found of each topic. While records are read, some of them
            may turn out to be damaged.
        claims: how many messages each topic, by name, has according to the file. May be wrong.
        start: the time of the first message, nanoseconds.
        damage: a phrase for each place that is damaged.
    """

    counts: dict[Topic, int]
    claims: dict[str, int]
    start: int
    damage: list[str]

    def records(self, topics: Collection[Topic]) -> Iterator[Record]:
        """The messages on these topics, in the order of their times."""


class UnreadableError(Exception):
    """There is nothing in the file that can be read; says why."""
