# SPDX-License-Identifier: Apache-2.0
"""Faces come back from messages and JSON as they went in, whatever they are."""

from __future__ import annotations

import json

import numpy as np
from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from message_objects import Rclpy, Rosbags, detection_array_object, face_array_object
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from scrfd_ros.bags.message_types import FACE_ARRAY, deserialize
from scrfd_ros.faces import Faces, Identity, IdentityState
from scrfd_ros.images.encodings import bgr_from_image
from scrfd_ros.messages.faces import CLASS_ID, ModelNames, detection_array, face_array, faces_of
from scrfd_ros.msg import FaceArray
from scrfd_ros.node.images import image_message

# Including points far outside of any image, and tiny numbers.
coordinates = st.one_of(
    st.integers(-100, 4000).map(float), st.floats(-1e6, 1e6, width=32), st.floats(-1, 1, width=32)
)
unit = st.floats(0, 1, width=32)
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9)
models = st.builds(ModelNames, text, text, text, text)
headers = st.builds(
    Header,
    stamp=st.builds(Time, sec=st.integers(-(2**31), 2**31 - 1), nanosec=st.integers(0, 10**9 - 1)),
    frame_id=text,
)

identities = st.builds(
    Identity,
    st.sampled_from(IdentityState),
    text,
    text,
    st.floats(-1, 1, width=32),
    st.floats(0, 2, width=32),
)


@st.composite
def all_faces(draw: st.DrawFn) -> Faces:
    count = draw(st.integers(0, 6))
    embeddings = norms = None
    if draw(st.booleans()):
        dimensions = draw(st.sampled_from((1, 8, 512)))
        random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        embeddings = random.standard_normal((count, dimensions)).astype(np.float32)
        norms = np.linalg.norm(embeddings, axis=1)
        embeddings /= norms[:, None]
        for row in range(count):
            if draw(st.booleans()):
                embeddings[row] = norms[row] = 0  # not embedded
    ids = draw(
        st.none() | st.lists(st.integers(1, 2**63 - 1), min_size=count, max_size=count, unique=True)
    )
    return Faces(
        boxes=draw(arrays(np.float32, (count, 4), elements=coordinates)),
        scores=draw(arrays(np.float32, count, elements=unit)),
        landmarks=draw(st.none() | arrays(np.float32, (count, 5, 2), elements=coordinates)),
        embeddings=embeddings,
        embedding_norms=norms,
        ids=None if ids is None else np.array(ids, np.int64),
        identities=draw(
            st.none() | st.lists(identities, min_size=count, max_size=count).map(tuple)
        ),
    )


def same(found: NDArray[np.float32] | None, expected: NDArray[np.float32] | None) -> None:
    """Equal. An array without rows may be None: no face in the message shows it."""
    if expected is None or not len(expected):
        assert found is None or not len(found)
    else:
        assert found is not None and found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@given(all_faces(), headers, models)
def test_the_bytes_are_those_of_rosbags_and_the_fields_those_of_rclpy(
    faces: Faces, header: Header, models: ModelNames
) -> None:
    """Every field of both messages, filled by hand with the classes of both libraries."""
    ours = detection_array(faces, header), face_array(faces, header, models)
    rclpy, rosbags = Rclpy(), Rosbags()
    bag_header = rosbags.header(header.stamp.sec, header.stamp.nanosec, header.frame_id)
    sent = detection_array_object(rclpy, faces, header)
    recorded = detection_array_object(rosbags, faces, bag_header)
    for own, in_ros, in_bag in (
        (ours[0], sent, recorded),
        (
            ours[1],
            face_array_object(rclpy, faces, sent, models),
            face_array_object(rosbags, faces, recorded, models),
        ),
    ):
        assert own == rosbags.bytes_of(in_bag)
        assert deserialize_message(own, type(in_ros)) == in_ros
        # Fast DDS leaves in the bytes that pad fields whatever was in memory; ours are 0.
        assert len(serialize_message(in_ros)) == len(own)
    # The header of a bag's image gives the same.
    assert ours == (detection_array(faces, bag_header), face_array(faces, bag_header, models))


@given(all_faces(), headers, models)
def test_faces_come_back_from_messages(faces: Faces, header: Header, models: ModelNames) -> None:
    data = face_array(faces, header, models)
    for message in (deserialize_message(data, FaceArray), deserialize(data, FACE_ARRAY)):
        assert (message.header.frame_id, message.header.stamp.sec) == (
            header.frame_id,
            header.stamp.sec,
        )
        assert tuple(getattr(message, name) for name in ModelNames._fields) == models
        back = faces_of(message)
        # A message holds the center and size of a box: doubles, exact but for the last bits.
        largest = np.abs(faces.boxes).max(axis=1, initial=1, keepdims=True)
        assert (np.abs(back.boxes - faces.boxes.astype(np.float64)) <= 1e-7 * largest).all()
        same(back.scores, faces.scores)
        same(back.landmarks, faces.landmarks)
        assert back.embedded.tolist() == faces.embedded.tolist()
        if faces.embedded.any():
            same(back.embeddings, faces.embeddings)
            same(back.embedding_norms, faces.embedding_norms)
        else:
            assert back.embeddings is None
        assert (back.ids is None) == (faces.ids is None or not len(faces))
        if back.ids is not None and faces.ids is not None:
            assert back.ids.tolist() == faces.ids.tolist()
        looked_up = any(identity != Identity() for identity in faces.identities or ())
        assert back.identities == (faces.identities if looked_up else None)


@given(all_faces(), headers)
def test_each_detection_is_one_face(faces: Faces, header: Header) -> None:
    message = deserialize_message(detection_array(faces, header), Detection2DArray)
    assert message.header == header and len(message.detections) == len(faces)
    for row, detection in enumerate(message.detections):
        assert detection.header == header
        assert detection.id == ("" if faces.ids is None else str(faces.ids[row]))
        (result,) = detection.results
        assert result.hypothesis.class_id == CLASS_ID
        assert result.hypothesis.score == faces.scores[row]
        x1, y1, x2, y2 = faces.boxes[row].tolist()
        middle, box = detection.bbox.center.position, detection.bbox
        assert (middle.x, middle.y) == ((x1 + x2) / 2, (y1 + y2) / 2)
        assert (box.size_x, box.size_y, box.center.theta) == (x2 - x1, y2 - y1, 0)


@given(all_faces())
def test_faces_come_back_from_json(faces: Faces) -> None:
    rows = json.loads(json.dumps(faces.as_json(), allow_nan=False))
    assert len(rows) == len(faces)
    for number, row in enumerate(rows):
        same(np.array(row["box"], np.float32), faces.boxes[number])
        assert np.float32(row["score"]) == faces.scores[number]
        assert row.get("id") == (None if faces.ids is None else faces.ids[number])
        marks = None if faces.landmarks is None else faces.landmarks[number]
        same(np.array(row["landmarks"], np.float32), marks)
        if faces.embeddings is not None and faces.embedded[number]:
            same(np.array(row["embedding"], np.float32), faces.embeddings[number])
        else:
            assert row["embedding"] == []


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 2**32 - 1),
    steps=st.tuples(st.sampled_from((1, 2, -1)), st.sampled_from((1, 3, -1))),
    header=headers,
)
def test_images_come_back_from_messages(
    size: tuple[int, int], seed: int, steps: tuple[int, int], header: Header
) -> None:
    """Parts and mirror images of an image, whose rows and pixels are not one after the other."""
    whole = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    image = whole[:: steps[0], :: steps[1]]
    message = image_message(image, header)
    assert message.header == header
    np.testing.assert_array_equal(bgr_from_image(message), image)
