"""Bags with images, as cameras would have filled them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
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


def raw(topic: str, stamp: int, picture: NDArray[np.uint8], **fields: Any) -> Entry:
    """A sensor_msgs/Image; fields replace its own."""
    height, width = picture.shape[:2]
    parts = {
        "header": _header(stamp),
        "height": height,
        "width": width,
        "encoding": "bgr8",
        "is_bigendian": 0,
        "step": 3 * width,
        "data": np.ascontiguousarray(picture).reshape(-1),
    }
    message = TYPES.types[IMAGE](**(parts | fields))
    return Entry(topic, IMAGE, stamp, bytes(TYPES.serialize_cdr(message, IMAGE)))


def jpeg(topic: str, stamp: int, picture: NDArray[np.uint8], keep: float = 1) -> Entry:
    """A sensor_msgs/CompressedImage, or the first part of one."""
    content = cv2.imencode(".jpg", picture)[1].reshape(-1)
    message = TYPES.types[COMPRESSED_IMAGE](
        header=_header(stamp),
        format="bgr8; jpeg compressed bgr8",
        data=content[: int(keep * content.size)],
    )
    data = TYPES.serialize_cdr(message, COMPRESSED_IMAGE)
    return Entry(topic, COMPRESSED_IMAGE, stamp, bytes(data))


def text(topic: str, stamp: int) -> Entry:
    """A std_msgs/String, which is no image."""
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


def _header(stamp: int) -> Any:
    seconds, nanoseconds = divmod(stamp, 10**9)
    time = TYPES.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    return TYPES.types["std_msgs/msg/Header"](stamp=time, frame_id="camera_optical_frame")
