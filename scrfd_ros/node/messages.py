# SPDX-License-Identifier: Apache-2.0
"""Messages that tell what the detections mean; those with faces are in `scrfd_ros.messages`."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from rclpy.serialization import deserialize_message
from std_msgs.msg import Header
from vision_msgs.msg import LabelInfo, VisionClass, VisionInfo

from scrfd_ros.errors import ScrfdError
from scrfd_ros.faces import Faces, Identity, IdentityState
from scrfd_ros.messages.faces import CLASS_ID, ModelNames, face_array, faces_of
from scrfd_ros.msg import FaceArray
from scrfd_ros.pipeline import FacePipeline


def vision_info(pipeline: FacePipeline, header: Header) -> VisionInfo:
    """Which networks the detections come from, and on which backends they run."""
    networks = pipeline.networks.values()
    return VisionInfo(
        header=header,
        method=" + ".join(f"{network.name} ({network.backend})" for network in networks),
        database_location="label_info",
    )


def label_info(pipeline: FacePipeline, header: Header) -> LabelInfo:
    """The names of the detections' class ids, and the score threshold."""
    return LabelInfo(
        header=header,
        class_map=[VisionClass(class_id=0, class_name=CLASS_ID)],
        threshold=pipeline.config.detector.score_threshold,
    )


def check_definitions() -> None:
    """Check that the installed messages have the fields that `scrfd_ros.messages.faces` writes.

    Raises:
        ScrfdError: they have others; subscribers would misread every message.
    """
    faces = Faces(
        boxes=np.array([[1, 2, 4, 8]], np.float32),
        scores=np.ones(1, np.float32),
        landmarks=np.arange(10, dtype=np.float32).reshape(1, 5, 2),
        embeddings=np.ones((1, 1), np.float32),
        embedding_norms=np.ones(1, np.float32),
        ids=np.ones(1, np.int64),
        identities=(Identity(IdentityState.KNOWN, "id", "name", 0.75, 0.25),),
    )
    data = face_array(faces, Header(frame_id="camera"), ModelNames("detector", ""))
    reason = "the values differ"
    try:
        back = faces_of(deserialize_message(data, FaceArray))
        if all(
            np.array_equal(getattr(back, each.name), getattr(faces, each.name))
            for each in fields(faces)
        ):
            return
    except Exception as error:  # the type depends on the ROS middleware
        reason = str(error)
    raise ScrfdError(
        f"the installed messages are of another version than this package: a FaceArray cannot be "
        f"read back ({reason}); build this package again, and install vision_msgs 4"
    )
