# SPDX-License-Identifier: Apache-2.0
"""Faces to messages: bytes written directly, and rclpy's message objects, filled and serialized.

    ./run.sh setup && . .venv/bin/activate && AMENT_PREFIX_PATH=$PWD/.venv python bench/messages.py

Prints processor time for both messages of an image, medians of turns in one process. With
ROS_PYTHON_CHECK_FIELDS=1 rclpy of Jazzy checks every field, as that of Humble always does.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.serialization import serialize_message
from std_msgs.msg import Header

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))

from message_objects import Rclpy, detection_array_object, face_array_object

from scrfd_ros.faces import Faces
from scrfd_ros.messages.faces import ModelNames, detection_array, face_array

MODELS = ModelNames("scrfd_2.5g_bnkps", "0" * 64, "w600k_mbf", "0" * 64)
HEADER = Header(stamp=Time(sec=1_700_000_000, nanosec=7), frame_id="camera_optical_frame")


def some_faces(count: int) -> Faces:
    """Tracked faces with landmarks and embeddings of 512 numbers."""
    random = np.random.default_rng(count)
    embeddings = random.normal(size=(count, 512)).astype(np.float32)
    return Faces(
        boxes=random.uniform(0, 1280, (count, 4)).astype(np.float32),
        scores=random.uniform(0, 1, count).astype(np.float32),
        landmarks=random.uniform(0, 1280, (count, 5, 2)).astype(np.float32),
        embeddings=embeddings,
        embedding_norms=np.linalg.norm(embeddings, axis=1),
        ids=np.arange(count, dtype=np.int64) + 1,
    )


def objects(faces: Faces) -> None:
    """Fill and serialize rclpy's message objects."""
    library = Rclpy()
    detections = detection_array_object(library, faces, HEADER)
    serialize_message(detections)
    serialize_message(face_array_object(library, faces, detections, MODELS))


def direct(faces: Faces) -> None:
    """Write the bytes."""
    detection_array(faces, HEADER)
    face_array(faces, HEADER, MODELS)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=300)
    turns = parser.parse_args().turns
    print("| faces | objects, ms | bytes, ms |\n|---:|---:|---:|")
    for count in (0, 1, 6, 30):
        faces = some_faces(count)
        times: dict[str, list[float]] = {"objects": [], "direct": []}
        for _ in range(turns):
            for way in (objects, direct):
                start = time.process_time()
                way(faces)
                times[way.__name__].append(1e3 * (time.process_time() - start))
        medians = (float(np.median(values)) for values in times.values())
        print(f"| {count} | " + " | ".join(f"{median:.2f}" for median in medians) + " |")


if __name__ == "__main__":
    main()
