# SPDX-License-Identifier: Apache-2.0
"""From `Faces` to messages."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header
from vision_msgs.msg import (
    BoundingBox2D,
    Detection2D,
    Detection2DArray,
    LabelInfo,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
    Point2D,
    Pose2D,
    VisionClass,
    VisionInfo,
)

from scrfd_ros.faces import Faces, boxes_around, stacked_embeddings
from scrfd_ros.msg import Face, FaceArray
from scrfd_ros.pipeline import FacePipeline

CLASS_ID = "face"


def detection_array(faces: Faces, header: Header) -> Detection2DArray:
    """Boxes, scores and ids, with the image's header on the array and on each detection."""
    return Detection2DArray(header=header, detections=list(_detections(faces, header)))


def face_array(detections: Detection2DArray, faces: Faces, pipeline: FacePipeline) -> FaceArray:
    """The same faces in the same order, with landmarks, embeddings and the models' names."""
    detector = pipeline.detector.network
    message = FaceArray(
        header=detections.header,
        detector=detector.name,
        detector_sha256=detector.sha256,
    )
    if pipeline.recognizer is not None:
        recognizer = pipeline.recognizer.network
        message.recognizer = recognizer.name
        message.recognizer_sha256 = recognizer.sha256
    embedded = faces.embedded
    for row, detection in enumerate(detections.detections):
        face = Face(detection=detection)
        if faces.landmarks is not None:
            face.landmarks = [Point2D(x=x, y=y) for x, y in faces.landmarks[row].tolist()]
        if embedded[row] and faces.embeddings is not None and faces.embedding_norms is not None:
            # An array of the right type code is taken as it is; anything else value by value.
            face.embedding = array("f", faces.embeddings[row].tobytes())
            face.embedding_norm = faces.embedding_norms[row].item()
        message.faces.append(face)
    return message


def _detections(faces: Faces, header: Header) -> Iterator[Detection2D]:
    ids = [""] * len(faces) if faces.ids is None else [str(number) for number in faces.ids]
    centers, sizes = faces.centers.tolist(), faces.sizes.tolist()
    rows = zip(faces.scores.tolist(), centers, sizes, ids, strict=True)
    for score, (x, y), (width, height), name in rows:
        hypothesis = ObjectHypothesis(class_id=CLASS_ID, score=score)
        yield Detection2D(
            header=header,
            results=[ObjectHypothesisWithPose(hypothesis=hypothesis)],
            bbox=BoundingBox2D(
                center=Pose2D(position=Point2D(x=x, y=y)), size_x=width, size_y=height
            ),
            id=name,
        )


def vision_info(pipeline: FacePipeline, header: Header) -> VisionInfo:
    """Which networks the detections come from."""
    networks = [pipeline.detector.network]
    if pipeline.recognizer is not None:
        networks.append(pipeline.recognizer.network)
    return VisionInfo(
        header=header,
        method=" + ".join(f"{network.name} ({network.backend})" for network in networks),
        database_location="label_info",
    )


def label_info(pipeline: FacePipeline, header: Header) -> LabelInfo:
    """What the class ids of the detections mean."""
    return LabelInfo(
        header=header,
        class_map=[VisionClass(class_id=0, class_name=CLASS_ID)],
        threshold=pipeline.config.detector.score_threshold,
    )


def faces_of(message: FaceArray) -> Faces:
    """The `Faces` of a received message; the inverse of `face_array`."""
    faces = message.faces
    boxes = [face.detection.bbox for face in faces]
    embeddings = stacked_embeddings([face.embedding for face in faces])
    return Faces(
        boxes=boxes_around(
            _pairs([(box.center.position.x, box.center.position.y) for box in boxes]),
            _pairs([(box.size_x, box.size_y) for box in boxes]),
        ),
        scores=np.array([face.detection.results[0].hypothesis.score for face in faces], np.float32),
        landmarks=(
            np.array([[(p.x, p.y) for p in face.landmarks] for face in faces], np.float32)
            if faces and faces[0].landmarks
            else None
        ),
        embeddings=embeddings,
        embedding_norms=(
            None
            if embeddings is None
            else np.array([face.embedding_norm for face in faces], np.float32)
        ),
        ids=(
            np.array([int(face.detection.id) for face in faces], np.int64)
            if faces and faces[0].detection.id
            else None
        ),
    )


def _pairs(values: list[tuple[float, float]]) -> NDArray[np.float64]:
    return np.array(values, np.float64).reshape(-1, 2)
