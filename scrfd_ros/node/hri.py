# SPDX-License-Identifier: Apache-2.0
"""Faces for ROS4HRI, and who they are: topics of REP-155 below /humans. Needs hri_msgs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from hri_msgs.msg import (
    FacialLandmarks,
    IdsList,
    IdsMatch,
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

from scrfd_ros.faces import Faces, Identity, IdentityState
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
"""For each of `scrfd_ros.faces.LANDMARK_NAMES` the landmark of REP-155. Its left and right are the
person's, so the eye on the left side of the image is the right eye."""

_LANDMARK_COUNT = 70  # of dlib and OpenPose; unknown ones have the confidence 0
_QOS = QoSProfile(depth=10)
_LOOK_PERIOD = 0.5  # seconds between looks for silent cameras
_MATCH_PERIOD = 1.0  # seconds after which who a face is is told again, for those who come later
_ACK_TIMEOUT = Duration(seconds=1)  # for the last message of a topic


@dataclass
class _Face:
    """A tracked face and its publishers.

    Attributes:
        camera: that the face is tracked in.
        seen: time of the last image with the face.
        person: id of the person who the face was last said to be; "" for nobody.
        told: when that was said, monotonic seconds.
    """

    camera: str
    seen: FrameTime
    roi: Publisher
    landmarks: Publisher
    aligned: Publisher
    person: str = ""
    told: float = 0.0


class HumanFaces:
    """Publishes the tracked faces of all cameras of a node.

    A face has topics from its first image until its track ends. The thread that handles images
    creates and removes them; the executor's thread removes those of silent cameras.

    Args:
        node: whose publishers these are.
        max_age: seconds that a face may be missed and keep its track; the same as the trackers'.
        has_gallery: also publish who the faces are.
    """

    def __init__(self, node: Node, max_age: float, *, has_gallery: bool = False) -> None:
        self._node = node
        self._max_age = max_age
        self._faces: dict[str, _Face] = {}
        self._arrivals: dict[str, float] = {}  # of each camera's newest image, monotonic seconds
        self._lock = threading.Lock()
        self._tracked = self._publisher(IdsList, "faces/tracked")
        self._matches = self._publisher(IdsMatch, "candidate_matches") if has_gallery else None
        self._timer = node.create_timer(
            _LOOK_PERIOD, self._end_faces_of_silent_cameras, clock=STEADY
        )

    @property
    def is_wanted(self) -> bool:
        """Whether anybody subscribes to the list of faces, or to who they are."""
        publishers = (self._tracked, self._matches)
        return any(each is not None and each.get_subscription_count() > 0 for each in publishers)

    def publish(
        self,
        camera: str,
        faces: Faces,
        image: NDArray[np.uint8],
        header: Header,
        frame_time: FrameTime,
    ) -> None:
        """Publish the faces of one image and who they are, and the ids of all cameras' faces.

        Args:
            camera: name of the camera; may be empty.
            faces: tracked, in pixels of the image.
            image: uint8 [H, W, 3] BGR, in full size.
            header: of the image.
            frame_time: when the image was taken, as the tracker knows it.
        """
        assert faces.ids is not None
        parts = f"{self._node.get_namespace()}/{camera}".split("/")
        # Names in ROS must not begin with a digit.
        prefix = "_".join(filter(None, parts)) or "face"
        height, width = image.shape[:2]
        boxes = np.clip(faces.boxes / (width, height, width, height), 0, 1).tolist()
        with self._lock:
            self._arrivals[camera] = time.monotonic()
            for row, track_id in enumerate(faces.ids):
                name = f"{prefix}_{track_id}"
                face = self._face(name, camera, frame_time)
                face.seen = frame_time
                if faces.identities is not None:
                    self._tell(name, face, faces.identities[row])
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
        """Publish that no face is tracked or matched any more, and remove all publishers."""
        self._node.destroy_timer(self._timer)
        with self._lock:
            self._end(lambda _: True)
            self._publish_ids_now()
            for publisher in (self._tracked, self._matches):
                if publisher is not None:
                    publisher.wait_for_all_acked(_ACK_TIMEOUT)
                    self._node.destroy_publisher(publisher)

    def _publisher(self, kind: type, topic: str) -> Publisher:
        # Without event callbacks, the executor does not wait for a publisher's events, so that
        # publishers can be created and destroyed while it waits.
        return self._node.create_publisher(
            kind,
            f"/humans/{topic}",
            _QOS,
            event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
        )

    def _face(self, name: str, camera: str, seen: FrameTime) -> _Face:
        if name not in self._faces:
            self._faces[name] = _Face(
                camera=camera,
                seen=seen,
                roi=self._publisher(NormalizedRegionOfInterest2D, f"faces/{name}/roi"),
                landmarks=self._publisher(FacialLandmarks, f"faces/{name}/landmarks"),
                aligned=self._publisher(Image, f"faces/{name}/aligned"),
            )
        return self._faces[name]

    def _tell(self, name: str, face: _Face, identity: Identity) -> None:
        """Publish which person a face is: when that changes, and again every second."""
        person = ""
        if identity.state is IdentityState.KNOWN:
            # Names in ROS must not begin with a digit, nor contain a hyphen.
            person = f"person_{identity.person_id.replace('-', '')}"
        now = time.monotonic()
        if face.person and face.person != person:
            self._match(name, face.person, 0.0)
        if person and (face.person != person or now - face.told >= _MATCH_PERIOD):
            self._match(name, person, min(max((1 + identity.similarity) / 2, 0.5), 1.0))
            face.told = now
        face.person = person

    def _match(self, face: str, person: str, confidence: float) -> None:
        """Publish that a face is a person; with the confidence 0, that it is not, or no longer."""
        if self._matches is not None:
            self._matches.publish(
                IdsMatch(
                    id1=face,
                    id1_type=IdsMatch.FACE,
                    id2=person,
                    id2_type=IdsMatch.PERSON,
                    confidence=confidence,
                )
            )

    def _end(self, condition: Callable[[_Face], bool]) -> bool:
        """Remove the faces for which the condition holds; returns whether there were any."""
        ended = [name for name, face in self._faces.items() if condition(face)]
        for name in ended:
            face = self._faces.pop(name)
            if face.person:
                self._match(name, face.person, 0.0)
            for publisher in (face.roi, face.landmarks, face.aligned):
                self._node.destroy_publisher(publisher)
        return bool(ended)

    def _end_faces_of_silent_cameras(self) -> None:
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
    """The message about the landmarks of one face, float32 [5, 2], pixels of the image."""
    height, width = image.shape[:2]
    landmarks = [NormalizedPointOfInterest2D() for _ in range(_LANDMARK_COUNT)]
    places = np.clip(points / (width, height), 0, 1).tolist()
    for code, (x, y) in zip(_LANDMARKS, places, strict=True):
        landmarks[code] = NormalizedPointOfInterest2D(x=x, y=y, c=score)
    return FacialLandmarks(header=header, landmarks=landmarks, width=width, height=height)
