# SPDX-License-Identifier: Apache-2.0
"""Every array that a user passes is checked, and the error says what was expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_files import write_recognizer
from pipelines import detector_of, pipeline_of
from spots import SpotNetwork, draw_spots

from scrfd_ros.arrays import MAX_SIDE, checked_image
from scrfd_ros.detection.nms import nms
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.faces import Faces, stacked_embeddings
from scrfd_ros.images.drawing import draw_faces
from scrfd_ros.images.files import write_image
from scrfd_ros.inference.load import load_network
from scrfd_ros.pipeline import Frame
from scrfd_ros.recognition.alignment import align_faces, similarity_transforms
from scrfd_ros.recognition.arcface import ArcFace
from scrfd_ros.recognition.quality import face_quality, face_sizes, pose, sharpness
from scrfd_ros.recognition.similarity import nearest_others
from scrfd_ros.recognition.super_resolution import SuperResolution

NO_FACES = Faces(np.empty((0, 4), np.float32), np.empty(0, np.float32))
LANDMARKS = np.arange(20, dtype=np.float32).reshape(2, 5, 2)
CROPS = np.zeros((2, 112, 112, 3), np.uint8)
SCORES = np.ones(2, np.float32)

BOX = [20.0, 10.0, 60.0, 50.0]
IMAGE = draw_spots((96, 64), [BOX])

IMAGES: list[Any] = [
    pytest.param(None, "got NoneType: cv2.imread returns None", id="None"),
    pytest.param([[[0, 0, 0]]], "got list; convert an image of PIL", id="a list"),
    pytest.param("t1.jpg", "got str", id="a path"),
    pytest.param(IMAGE[..., 0], r"got uint8 \[64, 96\]; convert gray with cv2.cvtColor", id="gray"),
    pytest.param(IMAGE[..., :1], r"uint8 \[64, 96, 1\]; convert gray", id="gray, three axes"),
    pytest.param(IMAGE[..., [0, 1, 2, 0]], r"\[64, 96, 4\]; drop alpha", id="BGRA"),
    pytest.param(IMAGE[..., :2], r"got uint8 \[64, 96, 2\]$", id="two channels"),
    pytest.param(IMAGE.transpose(2, 0, 1), r"\[3, 64, 96\]; put the channels last", id="planes"),
    pytest.param(IMAGE[None], r"\[1, 64, 96, 3\]; pass images one by one", id="a batch"),
    pytest.param(IMAGE.astype(np.uint16), "got uint16 .*; scale 16 bits", id="16 bits"),
    pytest.param(
        IMAGE.astype(np.int16), r"got int16 .*; convert 0 to 255 with .astype", id="int16"
    ),
    pytest.param(IMAGE / 255, "got float64 .*; scale 0 to 1", id="float64"),
    pytest.param(np.float32(IMAGE[..., 0]), "scale 0 to 1 .* and convert gray", id="gray floats"),
    pytest.param(IMAGE > 0, "got bool .*; scale it", id="bool"),
    pytest.param(IMAGE.astype(object), r"got object \[64, 96, 3\]", id="object"),
    pytest.param(IMAGE[:0], r"got uint8 \[0, 96, 3\]: it has no pixels", id="no rows"),
    pytest.param(IMAGE[:, :0], r"\[64, 0, 3\]: it has no pixels", id="no columns"),
    pytest.param(np.uint8(3), "got uint8", id="a number"),
    pytest.param(
        np.broadcast_to(np.uint8(0), (2, MAX_SIDE + 1, 3)), "at most 32766 pixels", id="too wide"
    ),
    pytest.param(
        np.broadcast_to(np.uint8(0), (2**40, 2, 3)), "at most 32766 pixels", id="too high"
    ),
]


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> ArcFace:
    path = tmp_path_factory.mktemp("models") / "recognizer.onnx"
    return ArcFace(load_network(write_recognizer(path)))


@pytest.fixture
def doors(tmp_path: Path, recognizer: ArcFace) -> list[Callable[[Any], object]]:
    """All functions that take an image."""
    detector = Scrfd(SpotNetwork())
    pipeline = pipeline_of(detector, recognizer)
    upscaler = SuperResolution.__new__(SuperResolution)  # refuses before it needs its network
    return [
        checked_image,
        pipeline,
        lambda image: pipeline.run([Frame(IMAGE), Frame(image)]),
        detector.detect,
        lambda image: detector.detect_all([IMAGE, image]),
        lambda image: detector.prepare([IMAGE, image]),
        lambda image: align_faces(image, LANDMARKS),
        lambda image: upscaler.align(image, LANDMARKS),
        lambda image: draw_faces(image, NO_FACES),
        lambda image: write_image(tmp_path / "image.png", image),
    ]


@pytest.mark.parametrize(("image", "message"), IMAGES)
def test_other_images_are_refused_at_every_door(
    doors: list[Callable[[Any], object]], tmp_path: Path, image: Any, message: str
) -> None:
    for door in doors:
        with pytest.raises(ValueError, match=message) as caught:
            door(image)
        assert r"must be a numpy array uint8 [H, W, 3] BGR, got " in str(caught.value)
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_the_image_before_is_not_looked_at_again() -> None:
    detector = Scrfd(SpotNetwork())
    assert len(detector.detect(IMAGE)) == 1
    for other in (np.zeros((64, 96), np.uint8), np.zeros((64, 96, 3), np.float32)):
        with pytest.raises(ValueError, match="must be"):
            detector.detect(other)  # type: ignore[arg-type]
    assert len(detector.detect(np.zeros_like(IMAGE))) == 0


def padded(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.pad(image, ((0, 0), (0, 9), (0, 0)))[:, : image.shape[1]]


LAYOUTS: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "as it is": lambda image: image,
    "padded rows": padded,
    "BGR of BGRA": lambda image: np.dstack((image, image[..., :1]))[..., :3],
    "channels turned": lambda image: np.ascontiguousarray(image[..., ::-1])[..., ::-1],
    "upside down": lambda image: np.ascontiguousarray(image[::-1])[::-1],
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1])[:, ::-1],
    "every second pixel": lambda image: np.repeat(np.repeat(image, 2, 0), 2, 1)[::2, ::2],
    "Fortran": np.asfortranarray,
    "planes": lambda image: np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0),
    "turned": lambda image: np.ascontiguousarray(image.transpose(1, 0, 2)).transpose(1, 0, 2),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("writeable", [True, False])
def test_however_the_pixels_lie(layout: str, writeable: bool, recognizer: ArcFace) -> None:
    image = LAYOUTS[layout](IMAGE.copy()).view()
    image.flags.writeable = writeable
    np.testing.assert_array_equal(image, IMAGE)
    pipeline = pipeline_of(detector_of(SpotNetwork(), tiles=(2, 1), large_faces=True), recognizer)
    expected = pipeline(IMAGE).faces
    pipeline(~IMAGE)
    found = pipeline(image).faces
    for name in ("boxes", "scores", "landmarks", "embeddings", "embedding_norms"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(draw_faces(image, found), draw_faces(IMAGE, expected))
    np.testing.assert_array_equal(image, IMAGE, "it is left as it was")


def test_what_opencv_takes_is_not_copied() -> None:
    for image in (IMAGE, padded(IMAGE), IMAGE[3:, 5:], np.dstack((IMAGE, IMAGE))[:1]):
        image = image[..., :3] if image.shape[2] > 3 else image
        checked = checked_image(image)
        assert (checked is image) == (image.strides[1:] == (3, 1))
    assert checked_image(IMAGE[..., ::-1]).flags.c_contiguous


def assert_refused(call: Callable[[Any], object], others: list[Any], expected: str) -> None:
    for other in others:
        with pytest.raises(ValueError, match=expected):
            call(other)


def test_landmarks(recognizer: ArcFace) -> None:
    others = [None, LANDMARKS.tolist(), LANDMARKS[0], LANDMARKS.reshape(2, 10), LANDMARKS[:, :4]]
    others += [LANDMARKS[..., [0, 1, 1]], LANDMARKS.astype(str), LANDMARKS * 1j]
    for call in (
        similarity_transforms,
        face_sizes,
        pose,
        lambda points: align_faces(IMAGE, points),
        lambda points: face_quality(SCORES, points, CROPS),
    ):
        assert_refused(call, others, r"landmarks must be real numbers \[any, 5, 2\], got |must be")
        for dtype in (np.float64, np.float16, np.int32):
            call(LANDMARKS.astype(dtype))
    with pytest.raises(ValueError, match="finite, got 1 of 20 numbers that are not"):
        align_faces(IMAGE, np.where(LANDMARKS == 3, np.nan, LANDMARKS))


def test_crops(recognizer: ArcFace) -> None:
    others = [None, CROPS.tolist(), CROPS[0], CROPS[..., 0], CROPS[:, :111], CROPS / 255]
    others += [CROPS.transpose(0, 3, 1, 2), CROPS[..., [0, 1, 2, 2]], CROPS.astype(np.int8)]
    for call in (recognizer.prepare, recognizer.embed, sharpness):
        assert_refused(call, others, r"crops must be uint8 \[any, 112, 112, 3\], got ")
        assert len(call(CROPS[:0])) in (0, 2)
    turned = np.random.default_rng(0).integers(0, 256, CROPS.shape, np.uint8)
    np.testing.assert_array_equal(
        recognizer.prepare(turned[::-1, :, ::-1, ::-1]),
        recognizer.prepare(turned[::-1, :, ::-1, ::-1].copy()),
    )


def test_numbers_of_faces_that_differ() -> None:
    with pytest.raises(ValueError, match="of the same faces, got 2, 2 and 1"):
        face_quality(SCORES, LANDMARKS, CROPS[:1])
    with pytest.raises(ValueError, match=r"scores must be real numbers \[any\], got NoneType"):
        face_quality(None, LANDMARKS, CROPS)  # type: ignore[arg-type]


def test_boxes() -> None:
    boxes = np.array([BOX, BOX], np.float32)
    others = [None, [BOX], boxes[0], boxes[:, :3], boxes.astype(str)]
    assert_refused(lambda other: nms(other, 0.4), others, r"boxes must be real numbers \[any, 4\]")
    for dtype in (np.float64, np.int64, np.float16):
        assert nms(boxes.astype(dtype), 0.4).tolist() == [0]


def test_embeddings() -> None:
    rows = np.eye(3, dtype=np.float32)
    others = [None, rows.tolist(), rows[0], rows.astype(np.float64)]
    assert_refused(nearest_others, others, r"embeddings must be float32 \[any, any\], got ")
    assert_refused(nearest_others, [rows[:1], rows[:0]], "at least 2 faces, got")
    assert_refused(stacked_embeddings, [[1.0, 2.0]], "for each face, got a number")


FIELDS: dict[str, NDArray[Any]] = {
    "boxes": np.array([BOX, BOX], np.float32),
    "scores": SCORES,
    "landmarks": LANDMARKS,
    "embeddings": np.eye(2, dtype=np.float32),
    "embedding_norms": SCORES,
    "ids": np.array([1, 2]),
}


@pytest.mark.parametrize("name", FIELDS)
def test_faces(name: str) -> None:
    right = FIELDS[name]
    others: list[Any] = [right.tolist(), right[:1], right[..., None], right.astype(np.float16)]
    others += [right.astype(str), 1.0, "boxes", right[0]]
    if name in ("boxes", "scores"):
        others.append(None)
    for other in others:
        with pytest.raises(ValueError, match=r"Faces\.\w+ must be .*, got "):
            Faces(**{**FIELDS, name: other})
    with pytest.raises(
        ValueError, match=rf"{name} must be .* got list; convert it with np.asarray"
    ):
        Faces(**{**FIELDS, name: right.tolist()})
    strided = np.repeat(right, 2, axis=0)[::-2]
    assert len(Faces(**{**FIELDS, name: strided})) == 2


def test_faces_that_are_not_finite_are_taken() -> None:
    boxes = np.full((1, 4), np.nan, np.float32)
    assert len(Faces(boxes, np.array([np.inf], np.float32))) == 1
