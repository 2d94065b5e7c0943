# SPDX-License-Identifier: Apache-2.0
"""Messages in bags, with the package rosbags: what scrfd_ros/node/messages.py is for the node.

The same `Faces` give the same bytes as the node's messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.errors import ScrfdError
from scrfd_ros.faces import Faces, boxes_around, stacked_embeddings
from scrfd_ros.pipeline import FacePipeline

try:
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    from rosbags.typesys.store import Typestore
except ImportError as error:
    raise ScrfdError(
        f"bags are read and written with the Python package rosbags, which cannot be imported "
        f"({error}): pip install rosbags"
    ) from error

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
DETECTION_ARRAY = "vision_msgs/msg/Detection2DArray"
FACE_ARRAY = "scrfd_ros/msg/FaceArray"

CLASS_ID = "face"


class MessageError(ScrfdError):
    """The bytes of a message are damaged."""


def decoded(data: bytes | memoryview, kind: str) -> Any:
    """The message of the type `kind` in CDR bytes.

    Raises:
        MessageError: the bytes are not those of such a message.
    """
    try:
        return TYPES.deserialize_cdr(data, kind)
    except Exception as error:  # which one, depends on the version of rosbags
        raise MessageError(f"not a whole {kind}: {error}") from error


def encoded(message: Any, kind: str) -> memoryview:
    """The CDR bytes, little-endian, of a message of the type `kind`."""
    return TYPES.serialize_cdr(message, kind, little_endian=True)


def detection_array(faces: Faces, header: Any) -> Any:
    """Boxes, scores and ids, with the image's header on the array and on each detection."""
    return _message(DETECTION_ARRAY, header=header, detections=list(_detections(faces, header)))


def face_array(detections: Any, faces: Faces, pipeline: FacePipeline) -> Any:
    """The same faces in the same order, with landmarks, embeddings and the models' names."""
    detector, recognizer = pipeline.detector.network, pipeline.recognizer
    return _message(
        FACE_ARRAY,
        header=detections.header,
        detector=detector.name,
        detector_sha256=detector.sha256,
        recognizer=recognizer.network.name if recognizer else "",
        recognizer_sha256=recognizer.network.sha256 if recognizer else "",
        faces=[_face(detection, faces, row) for row, detection in enumerate(detections.detections)],
    )


def faces_of(message: Any) -> Faces:
    """The `Faces` in a scrfd_ros/msg/FaceArray; the inverse of `face_array`.

    Raises:
        MessageError: the message contradicts itself.
    """
    faces = message.faces
    boxes = [face.detection.bbox for face in faces]
    centers = [(box.center.position.x, box.center.position.y) for box in boxes]
    landmarks = [[(point.x, point.y) for point in face.landmarks] for face in faces]
    try:
        embeddings = stacked_embeddings([face.embedding for face in faces])
        return Faces(
            boxes=boxes_around(
                _pairs(centers), _pairs([(box.size_x, box.size_y) for box in boxes])
            ),
            scores=np.array(
                [face.detection.results[0].hypothesis.score for face in faces], np.float32
            ),
            landmarks=np.array(landmarks, np.float32) if any(landmarks) else None,
            embeddings=embeddings,
            embedding_norms=(
                None
                if embeddings is None
                else np.array([face.embedding_norm for face in faces], np.float32)
            ),
        )
    except (IndexError, ValueError) as error:
        raise MessageError(f"not faces of one kind: {error}") from error


def _face(detection: Any, faces: Faces, row: int) -> Any:
    points = [] if faces.landmarks is None else faces.landmarks[row].tolist()
    embedding, norm = np.zeros(0, np.float32), 0.0
    if (
        faces.embeddings is not None
        and faces.embedding_norms is not None
        and faces.embedding_norms[row] > 0
    ):
        embedding, norm = faces.embeddings[row], faces.embedding_norms[row].item()
    return _message(
        "scrfd_ros/msg/Face",
        detection=detection,
        landmarks=[_message("vision_msgs/msg/Point2D", x=x, y=y) for x, y in points],
        embedding=embedding,
        embedding_norm=norm,
    )


def _detections(faces: Faces, header: Any) -> Iterator[Any]:
    ids = [""] * len(faces) if faces.ids is None else [str(number) for number in faces.ids]
    centers, sizes = faces.centers.tolist(), faces.sizes.tolist()
    rows = zip(faces.scores.tolist(), centers, sizes, ids, strict=True)
    for score, (x, y), (width, height), name in rows:
        hypothesis = _message("vision_msgs/msg/ObjectHypothesis", class_id=CLASS_ID, score=score)
        position = _message("vision_msgs/msg/Point2D", x=x, y=y)
        yield _message(
            "vision_msgs/msg/Detection2D",
            header=header,
            results=[
                _message(
                    "vision_msgs/msg/ObjectHypothesisWithPose",
                    hypothesis=hypothesis,
                    pose=_no_pose(),
                )
            ],
            bbox=_message(
                "vision_msgs/msg/BoundingBox2D",
                center=_message("vision_msgs/msg/Pose2D", position=position, theta=0.0),
                size_x=width,
                size_y=height,
            ),
            id=name,
        )


def _no_pose() -> Any:
    """A geometry_msgs/PoseWithCovariance as ROS makes it."""
    return _message(
        "geometry_msgs/msg/PoseWithCovariance",
        pose=_message(
            "geometry_msgs/msg/Pose",
            position=_message("geometry_msgs/msg/Point", x=0.0, y=0.0, z=0.0),
            orientation=_message("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
        ),
        covariance=np.zeros(36),
    )


def _message(kind: str, **fields: Any) -> Any:
    return TYPES.types[kind](**fields)


def _pairs(values: list[tuple[float, float]]) -> NDArray[np.float64]:
    return np.array(values, np.float64).reshape(-1, 2)


def _typestore() -> Typestore:
    """The standard messages, vision_msgs and this package's own."""
    folder = _definitions()
    types = get_typestore(Stores.ROS2_HUMBLE)
    known = {}
    for package, path in (
        ("vision_msgs", folder / "resource" / "vision_msgs" / "msg"),
        ("scrfd_ros", folder / "msg"),
    ):
        for file in sorted(path.glob("*.msg")):
            text = file.read_text(encoding="utf-8")
            known.update(get_types_from_msg(text, f"{package}/msg/{file.stem}"))
    types.register(known)
    return types


def _definitions() -> Path:
    """The folder of the message definitions: the source tree, or share/scrfd_ros above us."""
    here = Path(__file__).resolve()
    for folder in (here.parents[2], *(above / "share" / "scrfd_ros" for above in here.parents)):
        if (folder / "msg" / "FaceArray.msg").is_file():
            return folder
    raise ScrfdError(
        f"share/scrfd_ros/msg/FaceArray.msg is in no folder above {here}: the installation of "
        f"scrfd_ros is incomplete; install it again"
    )


TYPES = _typestore()
"""What messages look like, for `Writer.add_connection` of rosbags."""
