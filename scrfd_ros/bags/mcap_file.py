# SPDX-License-Identifier: Apache-2.0
"""Read MCAP files (https://mcap.dev/spec), whole or damaged, with or without an index.

A file is read from beginning to end without its index, which may be missing or wrong. After a
damaged record, reading continues at the next whole one. The packages `mcap` and `rosbags` need a
correct index, stop at the first damage, and allocate the memory that a file claims to need.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from array import array
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final, NamedTuple, Protocol

import numpy as np

from scrfd_ros.bags.bag_file import MAX_BYTES, Record, Topic, UnreadableError
from scrfd_ros.bags.decompression import decompressed

MAGIC: Final = b"\x89MCAP0\r\n"

_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _STATISTICS, _DATA_END = 2, 3, 4, 5, 6, 11, 15
_PRIVATE: Final = 0x80
_LEAST: Final = {1: 8, _FOOTER: 20, _SCHEMA: 14, _CHANNEL: 16, _MESSAGE: 22, _CHUNK: 40, 7: 6} | {
    8: 68, 9: 36, 10: 52, _STATISTICS: 46, 12: 8, 13: 20, 14: 17, _DATA_END: 4
}  # fmt: skip
"""Minimum size of the content of each kind of record, bytes."""

_RECORD = struct.Struct("<BQ")
_MESSAGE_HEAD = struct.Struct("<HIQQ")
_CHUNK_HEAD = struct.Struct("<QQQII")

_ANYTHING = re.compile(rb"[\x03-\x0f](?=.{4}\0{4})", re.DOTALL)
"""Matches where a record of less than 4 GiB may begin."""
_BEHIND_A_CHUNK = re.compile(rb"[\x06\x07\x0f](?=.{4}\0{4})", re.DOTALL)
"""The same for records that are never in a chunk, because compressed data can look like others."""
_WINDOW: Final = 1 << 20
_CHAIN: Final = 3
"""Whole records in a row that count as records, not as a coincidence."""

_CHUNKS_KEPT: Final = 4  # decompressed; the times of neighboring chunks may overlap


class _Bytes(Protocol):
    """A source of records.

    Attributes:
        size: in bytes.
    """

    size: int

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes at `offset`, or fewer at the end."""


class _Content:
    """The records of a decompressed chunk."""

    def __init__(self, content: bytes) -> None:
        self.size = len(content)
        self._content = content

    def read(self, offset: int, count: int) -> bytes:
        return self._content[offset : offset + count]


class _OpenFile:
    """The records in a file. Bytes that the disk cannot read count as missing."""

    def __init__(self, descriptor: int) -> None:
        self.size = os.fstat(descriptor).st_size
        self.errors: set[str] = set()
        self._descriptor = descriptor

    def read(self, offset: int, count: int) -> bytes:
        count = min(count, self.size - offset, MAX_BYTES)
        if count <= 0:  # the offset lies beyond the end
            return b""
        try:
            return os.pread(self._descriptor, count, offset)
        except OSError as error:
            self.errors.add(str(error.strerror))
            return b""


class _Channel(NamedTuple):
    topic: str
    schema: int
    kind: str
    encoding: str


class _Chunk(NamedTuple):
    """The place and compression of a compressed chunk's data."""

    offset: int
    size: int
    compression: str


class McapFile:
    """An MCAP file; a `BagFile`."""

    storage: ClassVar[str] = "mcap"

    def __init__(self, path: Path, kinds: Collection[str]) -> None:
        self.path = path
        self.damage: list[str] = []
        self.start = 2**63
        self._kinds = kinds
        self._schemas: dict[int, str] = {}
        self._channels: list[_Channel | None] = []  # None: not described yet
        self._readable: list[bool] = []  # of each channel
        self._channel_of: dict[int, int] = {}  # by the id in the file
        self._found: Counter[int] = Counter()
        self._cut: Counter[int] = Counter()
        self._chunks: list[_Chunk] = []
        self._claims: dict[int, int] = {}
        # Columns of the messages that can be read later.
        self._times, self._offsets, self._sizes = array("Q"), array("Q"), array("Q")
        self._places, self._channel = array("q"), array("q")  # number of the chunk, -1 without
        self._ended = False
        # Channels described in a damaged chunk; a later description replaces them.
        self._doubtful: set[int] = set()
        self._doubting = False
        self._skipped = 0  # private records, known to their writer only
        with self._open() as file:
            if file.read(0, 8) == MAGIC:
                self._walk(file, 8, None)
            else:
                self.damage.append("its first bytes are not those of an MCAP file")
                self._walk(file, 0, None)
            self.damage += sorted(f"parts of it cannot be read: {error}" for error in file.errors)
        if not self._ended:
            self.damage.append(
                "it has no end: the recording was interrupted, or the copy of the file was"
            )
        self._topics = [self._topic(channel) for channel in self._channels]
        self.counts: dict[Topic, int] = {topic: 0 for topic in self._topics if topic is not None}
        nameless = 0
        for channel, count in self._found.items():
            topic = self._topics[channel]
            if topic is None:
                nameless += count
            else:
                self.counts[topic] += count
        if self._skipped and sum(self._claims.values()) > sum(self._found.values()):
            self.damage.append(f"{self._skipped} records are of an unknown kind")
        if nameless:
            self.damage.append(f"{nameless} messages belong to topics that it does not name")
        if not self.counts:
            raise UnreadableError("; ".join(self.damage) or "it is empty")
        self.claims: dict[str, int] = {}
        for number, channel in self._channel_of.items():
            topic = self._topics[channel]
            if topic is not None and (number in self._claims or self._cut[channel]):
                seen = self._found[channel] + self._cut[channel]
                claim = max(self._claims.get(number, 0), seen)
                self.claims[topic.name] = self.claims.get(topic.name, 0) + claim

    def records(self, topics: Collection[Topic]) -> Iterator[Record]:
        wanted = [number for number, topic in enumerate(self._topics) if topic in topics]
        (rows,) = np.nonzero(np.isin(np.frombuffer(self._channel, np.int64), wanted))
        times = np.frombuffer(self._times, np.uint64)[rows]
        chunks: OrderedDict[int, bytes] = OrderedDict()
        with self._open() as file:
            for row in rows[np.argsort(times, kind="stable")].tolist():
                topic = self._topics[self._channel[row]]
                assert topic is not None
                place, offset, size = self._places[row], self._offsets[row], self._sizes[row]
                if place < 0:
                    data = file.read(offset, size)
                else:
                    if place not in chunks:
                        if len(chunks) == _CHUNKS_KEPT:
                            chunks.popitem(last=False)
                        begin, length, compression = self._chunks[place]
                        packed = file.read(begin, length)
                        chunks[place], _ = decompressed(packed, compression, MAX_BYTES)
                    chunks.move_to_end(place)
                    data = chunks[place][offset : offset + size]
                yield Record(topic.name, topic.kind, self._times[row], data)

    @contextmanager
    def _open(self) -> Iterator[_OpenFile]:
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            yield _OpenFile(descriptor)
        finally:
            os.close(descriptor)

    def _topic(self, channel: _Channel | None) -> Topic | None:
        if channel is None:
            return None
        kind = channel.kind or self._schemas.get(channel.schema, "")
        return Topic(channel.topic, kind, channel.encoding)

    def _walk(self, source: _Bytes, offset: int, place: int | None) -> None:
        """Take in the records from `offset` on, including those in chunks.

        `place` is the number of the chunk whose content `source` is; None for the file itself.
        """
        behind = offset  # where to search for the next record if this one is damaged
        while offset < source.size:
            opcode, size = _record_at(source, offset)
            content = offset + _RECORD.size
            if opcode == 0 or not self._take(source, opcode, content, size, place):
                found = _next_record(source, behind, _ANYTHING)
                if place is not None or found is not None:
                    self._damaged_at(offset, place)
                if found is None:
                    return
                offset, behind = found, found + 1
                continue
            behind = content
            offset = content + size
            if place is not None:
                continue
            if opcode == _CHUNK:
                offset = behind = self._enter(source, content, size)
            elif opcode == _FOOTER:
                # Two joined files have two magics in a row.
                while source.read(offset, len(MAGIC)) == MAGIC:
                    offset += len(MAGIC)

    def _damaged_at(self, offset: int, place: int | None) -> None:
        where = f"byte {offset}"
        if place is not None:
            where += f" of the chunk at byte {self._chunks[place].offset}"
        if not self._ended:  # the records after the messages are not needed
            self.damage.append(f"a damaged record at {where}")

    def _take(
        self, source: _Bytes, opcode: int, content: int, size: int, place: int | None
    ) -> bool:
        """Take in one record; False if it is damaged."""
        if opcode == _MESSAGE:
            self._ended = False
            if content + size > source.size:
                self._count_cut(source, content)
                return False
            number, _, time, _ = _MESSAGE_HEAD.unpack(source.read(content, _MESSAGE_HEAD.size))
            self._add_message(number, time, content, size, place)
        elif opcode == _CHUNK:
            self._ended = False
            return place is None and _chunk_head(source, content) is not None
        elif opcode >= _PRIVATE:
            self._skipped += 1
        elif opcode in (_DATA_END, _FOOTER):
            self._ended = True
            self._doubting = False
        elif opcode in (_SCHEMA, _CHANNEL, _STATISTICS):
            try:
                self._describe(opcode, source.read(content, min(size, _WINDOW)))
            except (struct.error, UnicodeDecodeError):
                self._damaged_at(content - _RECORD.size, place)
        return True

    def _add_message(
        self, number: int, time: int, content: int, size: int, place: int | None
    ) -> None:
        channel = self._channel_of.get(number)
        if channel is None:
            channel = self._channel_of[number] = self._add_channel(None)
        self._found[channel] += 1
        if time < self.start:
            self.start = time
        if self._readable[channel]:
            self._times.append(time)
            self._offsets.append(content + _MESSAGE_HEAD.size)
            self._sizes.append(size - _MESSAGE_HEAD.size)
            self._places.append(-1 if place is None else place)
            self._channel.append(channel)

    def _add_channel(self, channel: _Channel | None) -> int:
        self._channels.append(channel)
        self._readable.append(channel is None or channel.kind in ("", *self._kinds))
        return len(self._channels) - 1

    def _count_cut(self, source: _Bytes, content: int) -> None:
        head = source.read(content, 2)
        number = int.from_bytes(head, "little")
        if len(head) == 2 and number in self._channel_of:
            self._cut[self._channel_of[number]] += 1

    def _describe(self, opcode: int, content: bytes) -> None:
        """Take in a schema, a channel or the statistics."""
        if opcode == _STATISTICS:
            (length,) = struct.unpack_from("<I", content, 42)
            self._claims.update(struct.iter_unpack("<HQ", content[46 : 46 + length // 10 * 10]))
            return
        (number,) = struct.unpack_from("<H", content)
        if opcode == _SCHEMA:
            self._schemas[number], _ = _text(content, 2)
            return
        (schema,) = struct.unpack_from("<H", content, 2)
        name, offset = _text(content, 4)
        encoding, _ = _text(content, offset)
        channel = _Channel(name, schema, self._schemas.get(schema, ""), encoding)
        index = self._channel_of.get(number)
        if index is not None and (self._channels[index] is None or index in self._doubtful):
            self._channels[index] = channel
            self._doubtful.discard(index)
        elif index is None or self._channels[index] != channel:
            if channel in self._channels:
                self._channel_of[number] = self._channels.index(channel)
            else:
                self._channel_of[number] = self._add_channel(channel)
        if self._doubting:
            index = self._channel_of[number]
            self._doubtful.add(index)
            self._readable[index] = True

    def _enter(self, source: _Bytes, content: int, size: int) -> int:
        """Take in a chunk; returns the offset of the next record.

        The records of an uncompressed chunk are read as records of the file itself.
        """
        head = _chunk_head(source, content)
        assert head is not None
        offset, length, compression, crc = head
        chunk = _Chunk(offset, min(length, source.size - offset), compression)
        whole = chunk.size == length
        self._doubting = False
        if not compression:
            if crc and whole and _crc(source, offset, length) != crc:
                self._doubt(offset)
            return offset  # its records stay doubtful until the next chunk or the end
        inside, problem = decompressed(source.read(offset, chunk.size), compression, MAX_BYTES)
        self._chunks.append(chunk)
        if problem and whole:
            self._doubting = True
            self.damage.append(f"the chunk at byte {offset}: {problem}")
        elif crc and whole and zlib.crc32(inside) != crc:
            self._doubt(offset)
        self._walk(_Content(inside), 0, len(self._chunks) - 1)
        self._doubting = False
        # The chunk gives its end twice; either may be wrong.
        for end in (content + size, offset + length):
            if end == source.size or _record_at(source, end)[0]:
                return end
        return _next_record(source, offset, _BEHIND_A_CHUNK) or source.size

    def _doubt(self, offset: int) -> None:
        self._doubting = True
        self.damage.append(
            f"the chunk at byte {offset} does not match its checksum: its messages are used, but "
            f"may be wrong"
        )


def _record_at(source: _Bytes, offset: int) -> tuple[int, int]:
    """The kind of the record at `offset` and the size of its content; (0, 0) if there is none.

    A message or chunk may claim more bytes than exist: the existing part of a chunk is read.
    """
    head = source.read(offset, _RECORD.size)
    if len(head) < _RECORD.size:
        return 0, 0
    opcode, size = _RECORD.unpack(head)
    if opcode < _PRIVATE and (opcode not in _LEAST or size < _LEAST[opcode]):
        return 0, 0
    available = source.size - offset - _RECORD.size
    if size > available and (opcode not in (_MESSAGE, _CHUNK) or available < _LEAST[opcode]):
        return 0, 0
    return opcode, size


def _next_record(source: _Bytes, offset: int, candidates: re.Pattern[bytes]) -> int | None:
    """The first offset from which whole records follow each other."""
    while offset < source.size:
        window = source.read(offset, _WINDOW + _RECORD.size)
        for match in candidates.finditer(window, 0, _WINDOW + _RECORD.size):
            if match.start() < _WINDOW and _is_chain(source, offset + match.start()):
                return offset + match.start()
        offset += _WINDOW
    return None


def _is_chain(source: _Bytes, offset: int) -> bool:
    for number in range(_CHAIN):
        opcode, size = _record_at(source, offset)
        if opcode == 0:
            # At the end of the data the chain may be shorter.
            return number > 0 and (offset >= source.size or source.read(offset, 8) == MAGIC)
        if opcode == _CHUNK:
            head = _chunk_head(source, offset + _RECORD.size)
            if head is None:
                return False
            if not head[2]:  # uncompressed: its records lie in the file itself
                offset = head[0]
                continue
        offset += _RECORD.size + size
        if offset > source.size:
            return number > 0
    return True


def _chunk_head(source: _Bytes, content: int) -> tuple[int, int, str, int] | None:
    """The offset of a chunk's data, its size, its compression, and its checksum or 0."""
    head = source.read(content, _CHUNK_HEAD.size + 32)
    try:
        _, _, _, crc, length = _CHUNK_HEAD.unpack_from(head)
        compression = head[_CHUNK_HEAD.size : _CHUNK_HEAD.size + length].decode("ascii")
        (size,) = struct.unpack_from("<Q", head, _CHUNK_HEAD.size + length)
    except (struct.error, UnicodeDecodeError):
        return None
    return content + _CHUNK_HEAD.size + length + 8, size, compression, crc


def _text(content: bytes, offset: int) -> tuple[str, int]:
    """A string, and the offset of its end."""
    (length,) = struct.unpack_from("<I", content, offset)
    end = offset + 4 + length
    if end > len(content):
        raise struct.error("a string is longer than its record")
    return content[offset + 4 : end].decode(), end


def _crc(source: _Bytes, offset: int, size: int) -> int:
    crc = 0
    for begin in range(offset, offset + size, _WINDOW):
        crc = zlib.crc32(source.read(begin, min(_WINDOW, offset + size - begin)), crc)
    return crc
