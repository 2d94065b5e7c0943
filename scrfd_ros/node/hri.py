# SPDX-License-Identifier: Apache-2.0
"""Faces for ROS4HRI: the topics that REP-155 has below /humans/faces. Needs hri_msgs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from hri_msgs.msg import (
    FacialLandmarks,
    IdsList,
    NormalizedPointOfInterest2D,
    NormalizedRegionOfInterest2D,
)
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from scrfd_ros.faces import Faces
from scrfd_ros.node.clock import STEADY, stamp_now
from scrfd_ros.node.images import image_message
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.tracking.frame_clock import FrameTime

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks

_LANDMARKS = (
    FacialLandmarks.RIGHT_PUPIL,
    FacialLandmarks.LEFT_PUPIL,
    FacialLandmarks.NOSE,
    FacialLandmarks.MOUTH_OUTER_RIGHT,
    FacialLandmarks.MOUTH_OUTER_LEFT,
)
"""Where ours go, in the order of `scrfd_ros.faces.LANDMARK_NAMES`: REP-155 names sides as the
person does, so the eye on the image's left is the right one."""

_LANDMARK_COUNT = 70  # of dlib and OpenPose; those that are not known have the confidence 0
_QOS = QoSProfile(depth=10)
_LOOK_PERIOD = 0.5  # seconds between looks for cameras that fell silent
_LAST_WORD = Duration(seconds=1)


@dataclass
class _Face:
    """A face that is tracked, and its publishers.

    Attributes:
        camera: whose face it is.
        seen: time of the image that it was seen in last.
    """

    camera: str
    seen: FrameTime
    roi: Publisher
    landmarks: Publisher
    aligned: Publisher


class HumanFaces:
    """Publishes the tracked faces of all cameras of a node.

    A face has its topics from the image that it appears in until its track ends. They are created
    and removed in the thread that images are handled in, and in the executor's for cameras from
    which no more images come.

    Args:
        node: whose publishers these are.
        max_age: seconds a face may be missed and is tracked still; that of the trackers.
    """

    def __init__(self, node: Node, max_age: float) -> None:
        self._node = node
        self._max_age = max_age
        self._faces: dict[str, _Face] = {}
        self._arrivals: dict[str, float] = {}  # of each camera's newest image, monotonic seconds
        self._lock = threading.Lock()
        self._tracked = self._publisher(IdsList, "tracked")
        self._timer = node.create_timer(
            _LOOK_PERIOD, self._end_those_of_silent_cameras, clock=STEADY
        )

    @property
    def is_wanted(self) -> bool:
        """Whether anybody asks which faces there are."""
        return bool(self._tracked.get_subscription_count() > 0)

    def publish(
        self,
        camera: str,
        faces: Faces,
        image: NDArray[np.uint8],
        header: Header,
        frame_time: FrameTime,
    ) -> None:
        """Publish the faces of one image, and which are tracked in all cameras.

        Args:
            camera: its name; empty for one without.
            faces: tracked, in pixels of the image.
            image: uint8 [H, W, 3] BGR, in its full size.
            header: of the image.
            frame_time: when it was taken, as it was told to the tracker.
        """
        assert faces.ids is not None
        parts = f"{self._node.get_namespace()}/{camera}".split("/")
        # A name in ROS must not begin with a digit.
        place = "_".join(filter(None, parts)) or "face"
        height, width = image.shape[:2]
        boxes = np.clip(faces.boxes / (width, height, width, height), 0, 1).tolist()
        with self._lock:
            self._arrivals[camera] = time.monotonic()
            for row, number in enumerate(faces.ids):
                face = self._face(f"{place}_{number}", camera, frame_time)
                face.seen = frame_time
                score = faces.scores[row].item()
                xmin, ymin, xmax, ymax = boxes[row]
                face.roi.publish(
                    NormalizedRegionOfInterest2D(
                        header=header, xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax, c=score
                    )
                )
                if faces.landmarks is None:
                    continue
                points = faces.landmarks[row]
                if face.landmarks.get_subscription_count() > 0:  # a millisecond in Python
                    face.landmarks.publish(_landmarks(points, score, image, header))
                if face.aligned.get_subscription_count() > 0:
                    (crop,) = align_faces(image, points[None])
                    face.aligned.publish(image_message(crop, header))
            self._end(
                lambda face: (
                    face.camera == camera
                    and (
                        face.seen.epoch != frame_time.epoch
                        or frame_time.seconds - face.seen.seconds > self._max_age
                    )
                )
            )
            self._tracked.publish(IdsList(header=header, ids=list(self._faces)))

    def destroy(self) -> None:
        """Say that no face is tracked any more, and remove everything."""
        self._node.destroy_timer(self._timer)
        with self._lock:
            self._end(lambda _: True)
            self._publish_ids_now()
            self._tracked.wait_for_all_acked(_LAST_WORD)
            self._node.destroy_publisher(self._tracked)

    def _publisher(self, kind: type, topic: str) -> Publisher:
        # Without event callbacks the executor has nothing to do with a publisher, which thus can
        # come and go while it waits.
        return self._node.create_publisher(
            kind,
            f"/humans/faces/{topic}",
            _QOS,
            event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
        )

    def _face(self, name: str, camera: str, seen: FrameTime) -> _Face:
        if name not in self._faces:
            self._faces[name] = _Face(
                camera=camera,
                seen=seen,
                roi=self._publisher(NormalizedRegionOfInterest2D, f"{name}/roi"),
                landmarks=self._publisher(FacialLandmarks, f"{name}/landmarks"),
                aligned=self._publisher(Image, f"{name}/aligned"),
            )
        return self._faces[name]

    def _end(self, condition: Callable[[_Face], bool]) -> bool:
        """Remove the faces for which the condition holds; returns whether there are any."""
        ended = [name for name, face in self._faces.items() if condition(face)]
        for name in ended:
            face = self._faces.pop(name)
            for publisher in (face.roi, face.landmarks, face.aligned):
                self._node.destroy_publisher(publisher)
        return bool(ended)

    def _end_those_of_silent_cameras(self) -> None:
        stale_after = self._node.get_parameter("diagnostics.stale_after").value
        oldest = time.monotonic() - stale_after
        with self._lock:
            if self._end(lambda face: self._arrivals[face.camera] < oldest):
                self._publish_ids_now()

    def _publish_ids_now(self) -> None:
        header = Header(stamp=stamp_now(self._node))
        self._tracked.publish(IdsList(header=header, ids=list(self._faces)))


def _landmarks(
    points: NDArray[np.float32], score: float, image: NDArray[np.uint8], header: Header
) -> FacialLandmarks:
    """The landmarks of one face, float32 [5, 2], pixels of the image."""
    height, width = image.shape[:2]
    landmarks = [NormalizedPointOfInterest2D() for _ in range(_LANDMARK_COUNT)]
    places = np.clip(points / (width, height), 0, 1).tolist()
    for code, (x, y) in zip(_LANDMARKS, places, strict=True):
        landmarks[code] = NormalizedPointOfInterest2D(x=x, y=y, c=score)
    return FacialLandmarks(header=header, landmarks=landmarks, width=width, height=height)
