# SPDX-License-Identifier: Apache-2.0
"""Bags with images of cameras."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import lz4.frame
import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

TYPES = get_typestore(Stores.ROS2_HUMBLE)
IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
STORAGES = {"sqlite3": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}
DELAY = 5_000_000  # nanoseconds from a stamp to its recording


class Entry(NamedTuple):
    """A message to be recorded."""

    topic: str
    kind: str
    stamp: int  # nanoseconds
    data: bytes


def raw(topic: str, stamp: int, image: NDArray[np.uint8], **fields: Any) -> Entry:
    """A sensor_msgs/Image; fields replace its own."""
    height, width = image.shape[:2]
    parts = {
        "header": _header(stamp),
        "height": height,
        "width": width,
        "encoding": "bgr8",
        "is_bigendian": 0,
        "step": 3 * width,
        "data": np.ascontiguousarray(image).reshape(-1),
    }
    message = TYPES.types[IMAGE](**(parts | fields))
    return Entry(topic, IMAGE, stamp, bytes(TYPES.serialize_cdr(message, IMAGE)))


def jpeg(topic: str, stamp: int, image: NDArray[np.uint8], keep: float = 1) -> Entry:
    """A sensor_msgs/CompressedImage, or the first part of one."""
    content = cv2.imencode(".jpg", image)[1].reshape(-1)
    message = TYPES.types[COMPRESSED_IMAGE](
        header=_header(stamp),
        format="bgr8; jpeg compressed bgr8",
        data=content[: int(keep * content.size)],
    )
    data = TYPES.serialize_cdr(message, COMPRESSED_IMAGE)
    return Entry(topic, COMPRESSED_IMAGE, stamp, bytes(data))


def text(topic: str, stamp: int) -> Entry:
    """A std_msgs/String, which is not an image."""
    kind = "std_msgs/msg/String"
    data = TYPES.serialize_cdr(TYPES.types[kind](data="hello"), kind)
    return Entry(topic, kind, stamp, bytes(data))


def write_bag(path: Path, entries: Iterable[Entry], storage: str = "sqlite3") -> Path:
    """A bag with these messages, recorded `DELAY` after their stamps."""
    with Writer(path, version=9, storage_plugin=STORAGES[storage]) as writer:
        connections = {}
        for topic, kind, stamp, data in entries:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            writer.write(connections[topic], stamp + DELAY, data)
    return path


class Channel(NamedTuple):
    """How a topic is described in an MCAP file; schema None: not at all."""

    schema: str | None
    schema_encoding: str = "ros2msg"
    encoding: str = "cdr"


def write_mcap(
    path: Path,
    entries: Sequence[Entry],
    *,
    compression: str | None = "",
    chunk: int = 2,
    message_index: bool = True,
    summary: bool = True,
    claimed: int | None = None,
    chunk_offset: int = 0,
    profile: str = "ros2",
    channels: dict[str, Channel] | None = None,
    channels_in_summary: bool = True,
    crc: bool = True,
    claimed_size: int | None = None,
) -> Path:
    """An MCAP file, written by the specification, with every permitted variation.

    Args:
        compression: of the chunks; None: there are none.
        chunk: messages in each.
        message_index, summary: whether they are there.
        claimed: number of messages of each channel according to the statistics.
        chunk_offset: what is added to the offsets of chunks in their index.
        channels: of some topics; the others' are those of ROS 2.
        claimed_size: of the chunks, decompressed.
    """
    packers: dict[str, Callable[[bytes], bytes]] = {
        "": bytes,
        "lz4": lz4.frame.compress,
        "zstd": _zstd().compress,
    }
    topics = list(dict.fromkeys((entry.topic, entry.kind) for entry in entries))
    descriptions = b""
    for number, (topic, kind) in enumerate(topics, 1):
        channel = (channels or {}).get(topic, Channel(kind))
        if channel.schema is not None:
            schema = struct.pack("<H", number) + _text(channel.schema)
            descriptions += _record(
                3, schema + _text(channel.schema_encoding) + struct.pack("<I", 0)
            )
        head = struct.pack("<HH", number, 0 if channel.schema is None else number)
        descriptions += _record(
            4, head + _text(topic) + _text(channel.encoding) + struct.pack("<I", 0)
        )
    file = bytearray(b"\x89MCAP0\r\n" + _record(1, _text(profile) + _text("test")))
    index = b""
    groups = [entries[at : at + chunk] for at in range(0, len(entries), chunk)]
    for number, group in enumerate(groups if compression is not None else [entries]):
        content = bytearray(descriptions if number == 0 else b"")
        places: dict[int, list[tuple[int, int]]] = {}
        for entry in group:
            channel_id = topics.index((entry.topic, entry.kind)) + 1
            time = entry.stamp + DELAY
            places.setdefault(channel_id, []).append((time, len(content)))
            content += _record(5, struct.pack("<HIQQ", channel_id, 0, time, time) + entry.data)
        if compression is None:
            file += content
            continue
        packed = packers[compression](bytes(content))
        times = [entry.stamp + DELAY for entry in group]
        span = struct.pack("<QQ", min(times), max(times))
        size = len(content) if claimed_size is None else claimed_size
        head = span + struct.pack("<QI", size, zlib.crc32(content) if crc else 0)
        start = len(file)
        file += _record(6, head + _text(compression) + struct.pack("<Q", len(packed)) + packed)
        length = len(file) - start
        offsets = b""
        for channel_id, messages in places.items() if message_index else ():
            offsets += struct.pack("<HQ", channel_id, len(file))
            pairs = b"".join(struct.pack("<QQ", *message) for message in messages)
            file += _record(7, struct.pack("<HI", channel_id, len(pairs)) + pairs)
        rest = len(file) - start - length
        index += _record(
            8,
            span
            + struct.pack("<QQI", start + chunk_offset, length, len(offsets))
            + offsets
            + struct.pack("<Q", rest)
            + _text(compression)
            + struct.pack("<QQ", len(packed), len(content)),
        )
    file += _record(15, struct.pack("<I", 0))
    start = len(file) if summary else 0
    if summary:
        file += descriptions if channels_in_summary else b""
        file += index
        counts = b""
        for number, topic in enumerate(topics, 1):
            found = sum((entry.topic, entry.kind) == topic for entry in entries)
            counts += struct.pack("<HQ", number, found if claimed is None else claimed)
        total = len(entries) if claimed is None else claimed
        file += _record(
            11,
            struct.pack("<QHIIIIQQ", total, len(topics), len(topics), 0, 0, len(groups), 0, 0)
            + struct.pack("<I", len(counts))
            + counts,
        )
    file += _record(2, struct.pack("<QQI", start, 0, 0)) + b"\x89MCAP0\r\n"
    path.write_bytes(file)
    return path


def _zstd() -> Any:
    import sys

    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _record(opcode: int, content: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(content)) + content


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text.encode())) + text.encode()


def _header(stamp: int) -> Any:
    seconds, nanoseconds = divmod(stamp, 10**9)
    time = TYPES.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    return TYPES.types["std_msgs/msg/Header"](stamp=time, frame_id="camera_optical_frame")
