# SPDX-License-Identifier: Apache-2.0
"""Faces of cameras mounted on their side: found upright, reported in the image as it was sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pipelines import loaded

from scrfd_ros.faces import Faces
from scrfd_ros.images.decoded import DecodedImage, WholeImage
from scrfd_ros.images.encodings import ENCODINGS
from scrfd_ros.images.message import decode_message
from scrfd_ros.images.orientation import ROTATIONS, size_before_turn, turn
from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.recognition.alignment import align_faces

TURNED = ROTATIONS[1:]
QUARTERS = {rotation: rotation // 90 for rotation in ROTATIONS}


def lying(image: NDArray[np.uint8], rotation: int) -> NDArray[np.uint8]:
    """The image that a camera with this rotation sends of an upright scene; without OpenCV."""
    return np.ascontiguousarray(np.rot90(image, QUARTERS[rotation]))


def of_size(width: int, height: int) -> NDArray[np.uint8]:
    """An image that takes no memory."""
    return np.broadcast_to(np.zeros(3, np.uint8), (height, width, 3))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (62, 48), (63, 47)])
@pytest.mark.parametrize("rotation", ROTATIONS)
def test_upright_turns_back(rotation: int, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    sent = lying(image, rotation)
    found = turn(sent, rotation)
    assert np.array_equal(found, image) and found.flags.c_contiguous
    assert size_before_turn(size, rotation) == sent.shape[1::-1]


sides = st.integers(1, 3000)


@settings(deadline=None)  # which an emulated processor does not keep
@given(st.data(), sides, sides, st.sampled_from(ROTATIONS), st.sampled_from((1, 2, 4, 8)))
def test_every_pixel_is_found_where_it_was_sent(
    data: st.DataObject, width: int, height: int, rotation: int, reduction: int
) -> None:
    """A box around one pixel of the upright image is the box around that pixel as sent."""
    column, row = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    boxes = np.array([[column, row, column + 1, row + 1]], np.float32)
    points = np.tile(boxes.reshape(-1, 2, 2).mean(axis=1, keepdims=True), (1, 5, 1))
    faces = Faces(boxes, np.ones(1, np.float32), points)
    cuts = data.draw(st.tuples(*[st.integers(0, reduction - 1)] * 2))
    reduced = size_before_turn((width, height), rotation)
    # Sizes of reduced images are rounded up: the last pixel is of the whole image only in part.
    sent = tuple(reduction * side - cut for side, cut in zip(reduced, cuts, strict=True))
    decoded = DecodedImage(
        of_size(*reduced),
        reduction,
        rotation=rotation,
        source=None if reduction == 1 else WholeImage(sent, lambda: of_size(*sent)),
    )
    found = decoded.restore(decoded.enlarge(faces))
    assert (decoded.size, decoded.whole.shape[1::-1]) == (sent, sent)
    # Column and row numbers, turned like the pixels of an image.
    columns, rows = np.meshgrid(np.arange(width), np.arange(height), sparse=True)
    marked = lying((columns == column) & (rows == row), rotation)
    ((y, x),) = np.argwhere(marked)
    assert found.boxes.tolist() == [[reduction * v for v in (x, y, x + 1, y + 1)]]
    assert found.landmarks is not None
    assert found.landmarks.tolist() == [[[reduction * (x + 0.5), reduction * (y + 0.5)]] * 5]


@given(st.lists(st.floats(-4000, 4000, width=32), min_size=4, max_size=4), st.sampled_from(TURNED))
def test_corners_stay_in_order(values: list[float], rotation: int) -> None:
    (x1, x2), (y1, y2) = sorted(values[:2]), sorted(values[2:])
    faces = Faces(np.array([[x1, y1, x2, y2]], np.float32), np.ones(1, np.float32))
    found = DecodedImage(of_size(640, 480), rotation=rotation).restore(faces)
    assert found.landmarks is None and (found.sizes >= 0).all()


@pytest.fixture(scope="module")
def pipeline(
    detector_path: Callable[[str], Path], recognizer_path: Callable[[str], Path]
) -> FacePipeline:
    return loaded(detector_path("2.5g"), recognizer_path("w600k_mbf"), backend="onnxruntime")


@pytest.fixture(scope="module")
def people(image: Callable[[str], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Six people, 1279x885: odd, so that nothing fits by chance."""
    return np.ascontiguousarray(image("t1.jpg")[:-1, :-1])


@pytest.mark.parametrize("rotation", TURNED)
def test_people_are_found_as_if_the_camera_stood_upright(
    pipeline: FacePipeline, people: NDArray[np.uint8], rotation: int
) -> None:
    expected = pipeline(people).faces
    sent = lying(people, rotation)
    decoded = DecodedImage(sent, rotation=rotation)
    found = pipeline(decoded.upright).faces
    told = decoded.restore(found)
    assert np.array_equal(found.boxes, expected.boxes) and len(told) == 6
    assert told.landmarks is not None and expected.landmarks is not None
    assert told.embeddings is not None and expected.embeddings is not None
    assert np.array_equal(told.embeddings, expected.embeddings)
    # The same pixels are under the landmarks, and in the boxes.
    at, where = (np.floor(marks).astype(int) for marks in (told.landmarks, expected.landmarks))
    assert np.array_equal(sent[at[..., 1], at[..., 0]], people[where[..., 1], where[..., 0]])
    inside = (told.landmarks > told.boxes[:, None, :2]) & (told.landmarks < told.boxes[:, None, 2:])
    assert inside.all()
    sides = expected.sizes if rotation == 180 else expected.sizes[:, ::-1]
    np.testing.assert_allclose(told.sizes, sides, atol=1e-3)


@pytest.mark.parametrize("rotation", TURNED)
def test_faces_are_cut_upright_out_of_the_image_as_sent(
    pipeline: FacePipeline, people: NDArray[np.uint8], rotation: int
) -> None:
    """As for ROS4HRI's aligned faces: only the order of the landmarks shows the upright direction.

    Not to the last pixel: the alignment takes the origin half a pixel further in than `Faces`, as
    the reference does, which a turn makes a pixel.
    """
    faces = pipeline(people).faces
    sent = lying(people, rotation)
    told = DecodedImage(sent, rotation=rotation).restore(faces)
    assert told.landmarks is not None and pipeline.recognizer is not None
    embeddings, _ = pipeline.recognizer.embed(align_faces(sent, told.landmarks))
    assert faces.embeddings is not None
    assert ((embeddings * faces.embeddings).sum(axis=1) > 0.97).all()


@pytest.mark.parametrize("rotation", TURNED)
def test_a_reduced_jpeg_that_is_turned(
    pipeline: FacePipeline, people: NDArray[np.uint8], rotation: int
) -> None:
    sent = lying(people, rotation)
    message = SimpleNamespace(format="jpeg", data=cv2.imencode(".jpg", sent)[1].tobytes())
    decoded = decode_message(message, rotation, (640, 448))
    assert decoded.reduction == 1, "1279 columns are one too few"
    decoded = decode_message(message, rotation, (639, 442))
    assert decoded.reduction == 2
    told = decoded.restore(decoded.enlarge(pipeline.detector.detect(decoded.upright)))
    whole = DecodedImage(sent, rotation=rotation).restore(pipeline(people).faces)
    assert len(told) == len(whole) == 6
    assert np.abs(np.sort(told.boxes, axis=0) - np.sort(whole.boxes, axis=0)).max() < 6


def test_a_view_of_a_message_can_be_turned() -> None:
    assert "bgr8" in ENCODINGS  # read-only, and with padded rows
    values = np.arange(2 * 20, dtype=np.uint8).reshape(2, 20)[:, :18].reshape(2, 6, 3)
    values.flags.writeable = False
    for rotation in ROTATIONS:
        assert np.array_equal(lying(turn(values, rotation), rotation), values)
