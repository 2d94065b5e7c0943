# SPDX-License-Identifier: Apache-2.0
"""`Faces` as vision_msgs/Detection2DArray and scrfd_ros/FaceArray, and back.

Messages are written as bytes: rclpy publishes them as they are, and bags hold them. So node and
bags share one function. It takes a fourth of the time of filling and serializing rclpy's message
objects (bench/messages.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.errors import MessageError
from scrfd_ros.faces import Faces, Identity, IdentityState, boxes_around, stacked_embeddings
from scrfd_ros.messages.cdr import CdrWriter, Header

if TYPE_CHECKING:
    from scrfd_ros.pipeline import FacePipeline

CLASS_ID = "face"
"""The class_id of every detection."""

_NOT_LOOKED_UP = Identity()


class ModelNames(NamedTuple):
    """Which models found and embedded the faces; empty where there is no recognizer."""

    detector: str
    detector_sha256: str
    recognizer: str = ""
    recognizer_sha256: str = ""

    @classmethod
    def of(cls, pipeline: FacePipeline) -> ModelNames:
        """The names and checksums of a pipeline's networks."""
        networks = pipeline.networks.values()
        return cls(*(text for network in networks for text in (network.name, network.sha256)))


def _identity_fields(identity: Identity) -> bytes:
    """The last five fields of a scrfd_ros/Face."""
    writer = CdrWriter()
    writer.text(identity.person_id)
    writer.text(identity.name)
    writer.numbers("ff", identity.similarity, identity.margin)
    writer.octet(identity.state)
    return writer.written


_NOT_LOOKED_UP_FIELDS = _identity_fields(_NOT_LOOKED_UP)


def detection_array(faces: Faces, header: Header) -> bytes:
    """A vision_msgs/Detection2DArray: boxes, scores and ids.

    Args:
        faces: in pixels of the image as it was sent.
        header: of the image; goes on the array and on each detection.

    Returns:
        CDR bytes, little-endian.
    """
    writer = CdrWriter()
    writer.header(header)
    writer.numbers("I", len(faces))
    for numbers, track_id in zip(_numbers(faces), _track_ids(faces), strict=True):
        _add_detection(writer, header, numbers, track_id)
    return writer.message()


def face_array(faces: Faces, header: Header, models: ModelNames) -> bytes:
    """A scrfd_ros/FaceArray: the detections in the same order, with all that `faces` has.

    A face has no landmarks if `faces` has none, and no embedding if it was not embedded. Without
    identities it has that of a face that was not looked up.

    Args:
        faces, header: see `detection_array`.

    Returns:
        CDR bytes, little-endian.
    """
    writer = CdrWriter()
    writer.header(header)
    for name in models:
        writer.text(name)
    writer.numbers("I", len(faces))
    embedded = faces.embedded
    for row, (numbers, track_id) in enumerate(zip(_numbers(faces), _track_ids(faces), strict=True)):
        _add_detection(writer, header, numbers, track_id)
        points = faces.boxes[:0] if faces.landmarks is None else faces.landmarks[row]
        writer.numbers("I", len(points))
        if len(points):
            writer.array(points, "<f8")
        if embedded[row] and faces.embeddings is not None and faces.embedding_norms is not None:
            writer.numbers("I", faces.embeddings.shape[1])
            writer.array(faces.embeddings[row], "<f4")
            writer.numbers("f", faces.embedding_norms[row])
        else:
            writer.numbers("If", 0, 0)
        if faces.identities is None:
            writer.fields(_NOT_LOOKED_UP_FIELDS)
        else:
            writer.fields(_identity_fields(faces.identities[row]))
    return writer.message()


def faces_of(message: Any) -> Faces:
    """The `Faces` in a scrfd_ros/FaceArray; the inverse of `face_array`.

    `identities` is None if no face was looked up.

    Args:
        message: any object with the message's fields, whichever library made it.

    Raises:
        MessageError: the message contradicts itself, such as with landmarks for some faces only.
    """
    faces = message.faces
    boxes = [face.detection.bbox for face in faces]
    centers = [(box.center.position.x, box.center.position.y) for box in boxes]
    sizes = [(box.size_x, box.size_y) for box in boxes]
    landmarks = [[(point.x, point.y) for point in face.landmarks] for face in faces]
    norms = np.array([face.embedding_norm for face in faces], np.float32)
    ids = [face.detection.id for face in faces]
    try:
        identities = tuple(
            Identity(
                IdentityState(face.identity_state),
                face.person_id,
                face.name,
                face.similarity,
                face.margin,
            )
            for face in faces
        )
        embeddings = stacked_embeddings([face.embedding for face in faces])
        if [len(face.embedding) > 0 for face in faces] != (norms > 0).tolist():
            raise ValueError("a norm without an embedding, or an embedding without a norm")
        return Faces(
            boxes=boxes_around(_pairs(centers), _pairs(sizes)),
            scores=np.array(
                [face.detection.results[0].hypothesis.score for face in faces], np.float32
            ),
            landmarks=np.array(landmarks, np.float32) if any(landmarks) else None,
            embeddings=embeddings,
            embedding_norms=None if embeddings is None else norms,
            ids=np.array([int(text) for text in ids], np.int64) if any(ids) else None,
            identities=identities if set(identities) - {_NOT_LOOKED_UP} else None,
        )
    except (IndexError, OverflowError, ValueError) as error:
        raise MessageError(f"the faces of a FaceArray contradict each other: {error}") from error


def _numbers(faces: Faces) -> NDArray[np.float64]:
    """The numbers between a detection's class_id and its id, float64 [N, 49].

    The score; the pose, which is not used, as ROS makes it: position (3), orientation (4, w = 1)
    and covariance (36); the box's center, angle and size.
    """
    numbers = np.zeros((len(faces), 49))
    numbers[:, 0] = faces.scores
    numbers[:, 7] = 1
    numbers[:, 44:46] = faces.centers
    numbers[:, 47:49] = faces.sizes
    return numbers


def _track_ids(faces: Faces) -> list[str]:
    if faces.ids is None:
        return [""] * len(faces)
    return [str(track_id) for track_id in faces.ids.tolist()]


def _add_detection(
    writer: CdrWriter, header: Header, numbers: NDArray[np.float64], track_id: str
) -> None:
    """Add a vision_msgs/Detection2D with one result."""
    writer.header(header)
    writer.numbers("I", 1)
    writer.text(CLASS_ID)
    writer.array(numbers, "<f8")
    writer.text(track_id)


def _pairs(values: list[tuple[float, float]]) -> NDArray[np.float64]:
    return np.array(values, np.float64).reshape(-1, 2)
