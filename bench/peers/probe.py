# SPDX-License-Identifier: Apache-2.0
"""Run a node, and record when images arrive, how long they take, and when it publishes.

    python bench/peers/probe.py face_node|plain_node RECORD --ros-args ...

Both nodes are observed at the same three places: where rclpy delivers images, around the call that
finds the faces, and where rclpy publishes detections.
"""

from __future__ import annotations

import inspect
import json
import struct
import sys
import time
from pathlib import Path
from typing import Any

import rclpy.node
import rclpy.publisher
from memory import peak_memory
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

_arrivals: dict[int, int] = {}
_pipeline_milliseconds = [0.0]
_records: list[dict[str, float]] = []


def stamp_of(message: Any) -> int:
    """Stamp, nanoseconds, of a message that begins with a header, also of a serialized one."""
    if isinstance(message, (bytes, bytearray, memoryview)):
        seconds, nanoseconds = struct.unpack_from("<iI", message, 4)
        return int(10**9 * seconds + nanoseconds)
    stamp = message.header.stamp
    return int(10**9 * stamp.sec + stamp.nanosec)


def watch_images() -> None:
    """Record when the middleware received each image."""
    create = rclpy.node.Node.create_subscription

    def create_subscription(
        node: Any, kind: type, topic: str, callback: Any, *args: Any, **kw: Any
    ):
        if kind is not Image:
            return create(node, kind, topic, callback, *args, **kw)
        takes_info = len(inspect.signature(callback).parameters) == 2

        def noted(message: Any, info: dict[str, Any]) -> None:
            _arrivals[stamp_of(message)] = info["received_timestamp"]
            callback(message, info) if takes_info else callback(message)

        return create(node, kind, topic, noted, *args, **kw)

    rclpy.node.Node.create_subscription = create_subscription


def watch_pipeline(owner: type, name: str) -> None:
    """Time a method, which runs once for an image."""
    run = getattr(owner, name)

    def timed(*args: Any, **keywords: Any) -> Any:
        start = time.perf_counter()
        result = run(*args, **keywords)
        _pipeline_milliseconds[0] = 1e3 * (time.perf_counter() - start)
        return result

    setattr(owner, name, timed)


def watch_detections() -> None:
    publish = rclpy.publisher.Publisher.publish

    def noted(publisher: Any, message: Any) -> None:
        publish(publisher, message)
        if publisher.msg_type is Detection2DArray:
            published = time.time_ns()
            stamp = stamp_of(message)
            arrival = _arrivals.pop(stamp)
            _records.append(
                {
                    "stamp": stamp,
                    "published": published,
                    "age": (published - stamp) / 1e6,
                    "in_node": (published - arrival) / 1e6,
                    "pipeline": _pipeline_milliseconds[0],
                }
            )

    rclpy.publisher.Publisher.publish = noted


def main() -> None:
    name, record = sys.argv[1:3]
    watch_images()
    watch_detections()
    if name == "face_node":
        from scrfd_ros.node.start import main as run
        from scrfd_ros.pipeline import FacePipeline

        watch_pipeline(FacePipeline, "run")
    else:
        from insightface.app import FaceAnalysis
        from plain_node import main as run

        watch_pipeline(FaceAnalysis, "get")
    try:
        run()
    finally:
        result = {"images": _records, "peak_memory": peak_memory()}
        Path(record).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
