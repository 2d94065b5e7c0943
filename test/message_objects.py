# SPDX-License-Identifier: Apache-2.0
"""Messages with faces, filled field by field with the classes of rclpy or of rosbags."""

from __future__ import annotations

from array import array
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from scrfd_ros.bags.message_types import DETECTION_ARRAY, FACE_ARRAY, TYPES
from scrfd_ros.faces import Faces, Identity
from scrfd_ros.messages.faces import ModelNames


class Rosbags:
    """Fills the classes of rosbags, whose fields have no defaults."""

    floats = staticmethod(np.array)

    def make(self, kind: str, **fields: Any) -> Any:
        if kind == "vision_msgs/msg/ObjectHypothesisWithPose":
            fields["pose"] = self.pose()
        return TYPES.types[kind](**fields)

    def header(self, sec: int, nanosec: int, frame_id: str) -> Any:
        stamp = self.make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
        return self.make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def pose(self) -> Any:
        """A geometry_msgs/PoseWithCovariance as ROS makes it."""
        position = self.make("geometry_msgs/msg/Point", x=0.0, y=0.0, z=0.0)
        orientation = self.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
        pose = self.make("geometry_msgs/msg/Pose", position=position, orientation=orientation)
        kind = "geometry_msgs/msg/PoseWithCovariance"
        return self.make(kind, pose=pose, covariance=np.zeros(36))

    def bytes_of(self, message: Any) -> bytes:
        return bytes(TYPES.serialize_cdr(message, message.__msgtype__, little_endian=True))


class Rclpy:
    """Fills the classes of rclpy."""

    def floats(self, values: Any) -> Any:
        # The setter takes only this type as it is.
        return array("f", np.asarray(values, np.float32).tobytes())

    def make(self, kind: str, **fields: Any) -> Any:
        return _rclpy_class(kind)(**fields)


@cache
def _rclpy_class(kind: str) -> type:
    package, _, name = kind.split("/")
    found: type = getattr(import_module(f"{package}.msg"), name)
    return found


def detection_array_object(library: Rclpy | Rosbags, faces: Faces, header: Any) -> Any:
    """A vision_msgs/Detection2DArray."""
    detections = [_detection(library, faces, row, header) for row in range(len(faces))]
    return library.make(DETECTION_ARRAY, header=header, detections=detections)


def face_array_object(
    library: Rclpy | Rosbags, faces: Faces, detections: Any, models: ModelNames
) -> Any:
    """A scrfd_ros/FaceArray with these detections, a vision_msgs/Detection2DArray."""
    found = []
    for row, detection in enumerate(detections.detections):
        points = [] if faces.landmarks is None else faces.landmarks[row].tolist()
        embedding, norm = library.floats([]), 0.0
        if faces.embedded[row]:
            assert faces.embeddings is not None and faces.embedding_norms is not None
            embedding = library.floats(faces.embeddings[row])
            norm = faces.embedding_norms[row].item()
        identity = Identity() if faces.identities is None else faces.identities[row]
        found.append(
            library.make(
                "scrfd_ros/msg/Face",
                detection=detection,
                landmarks=[library.make("vision_msgs/msg/Point2D", x=x, y=y) for x, y in points],
                embedding=embedding,
                embedding_norm=norm,
                person_id=identity.person_id,
                name=identity.name,
                similarity=identity.similarity,
                margin=identity.margin,
                identity_state=int(identity.state),
            )
        )
    return library.make(FACE_ARRAY, header=detections.header, **models._asdict(), faces=found)


def _detection(library: Rclpy | Rosbags, faces: Faces, row: int, header: Any) -> Any:
    x1, y1, x2, y2 = faces.boxes[row].tolist()
    make = library.make
    hypothesis = make(
        "vision_msgs/msg/ObjectHypothesis", class_id="face", score=faces.scores[row].item()
    )
    position = make("vision_msgs/msg/Point2D", x=(x1 + x2) / 2, y=(y1 + y2) / 2)
    center = make("vision_msgs/msg/Pose2D", position=position, theta=0.0)
    return make(
        "vision_msgs/msg/Detection2D",
        header=header,
        results=[make("vision_msgs/msg/ObjectHypothesisWithPose", hypothesis=hypothesis)],
        bbox=make("vision_msgs/msg/BoundingBox2D", center=center, size_x=x2 - x1, size_y=y2 - y1),
        id="" if faces.ids is None else str(faces.ids[row].item()),
    )
