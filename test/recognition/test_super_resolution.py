# SPDX-License-Identifier: Apache-2.0
"""Small faces, and no others, are upscaled before they are aligned, and stay where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper
from onnx_files import Recorded, Shape, write_graph, write_recognizer
from pipelines import loaded

from scrfd_ros.config import SuperResolutionConfig
from scrfd_ros.errors import ModelError
from scrfd_ros.inference.load import load_network
from scrfd_ros.inference.network import Tensor
from scrfd_ros.models.catalogue import SUPER_RESOLUTION, load_catalogue
from scrfd_ros.models.download import ensure_model
from scrfd_ros.recognition.alignment import TEMPLATE, align_faces
from scrfd_ros.recognition.super_resolution import SuperResolution, window_size

FREE = ("N", 3, "height", "width")
ONE = (1, 3, "height", "width")
SMALL_FACE = ((TEMPLATE - 55.5) * 24 / 112 + 50).astype(np.float32)[None]
"""Landmarks of a face of 24 pixels in the middle of 100x100."""


def write_upscaler(
    path: Path,
    shape: Shape = FREE,
    factor: float = 4,
    *,
    height_factor: float | None = None,
    contrast: float = 1,
    outputs: int = 1,
) -> Path:
    """A network that upscales by linear interpolation, and changes contrast around gray."""
    constants = {
        "factors": np.array([1, 1, height_factor or factor, factor], np.float32),
        "contrast": np.array(contrast, np.float32),
        "brightness": np.array((1 - contrast) / 2, np.float32),
    }
    nodes = [
        helper.make_node("Resize", ["input.1", "", "factors"], ["large"], mode="linear"),
        helper.make_node("Mul", ["large", "contrast"], ["multiplied"]),
        *(
            helper.make_node("Add", ["multiplied", "brightness"], [f"output {number}"])
            for number in range(outputs)
        ),
    ]
    declared = {f"output {number}": ("N", 3, "y", "x") for number in range(outputs)}
    return write_graph(path, nodes, shape, declared, constants)


@pytest.fixture(scope="module")
def people(
    image: Callable[[str], NDArray[np.uint8]], detector_path: Callable[[str], Path]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Six faces of 26 to 35 pixels, and their landmarks."""
    pipeline = loaded(detector_path("500m"))
    large = image("t1.jpg")
    landmarks = pipeline(large).faces.landmarks
    assert landmarks is not None
    small = cv2.resize(large, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    return small, (landmarks + 0.5) / 4 - 0.5


def sizes(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sizes of faces, pixels, by the distance between the eyes."""
    eyes = np.linalg.norm(landmarks[:, 0] - landmarks[:, 1], axis=1)
    return 112 * eyes / (TEMPLATE[1, 0] - TEMPLATE[0, 0])


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_upscaled_faces_lie_where_the_others_do(
    factor: int, people: tuple[NDArray[np.uint8], NDArray[np.float32]], tmp_path: Path
) -> None:
    network = load_network(write_upscaler(tmp_path / "e.onnx", factor=factor))
    upscaler = SuperResolution(network, SuperResolutionConfig(max_size=60, max_faces=6))
    image, landmarks = people
    expected = align_faces(image, landmarks)
    found = upscaler.align(image, landmarks)
    assert (found != expected).any(axis=(1, 2, 3)).all(), "all six are upscaled"
    differences = [
        np.abs(found.astype(int) - np.roll(expected, shift, (1, 2))).mean()
        for shift in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
    ]
    assert differences[0] < 1.5
    assert differences[0] < 0.6 * min(differences[1:]), "a pixel more would be seen"


def test_a_turned_face_is_in_its_window_as_a_whole(tmp_path: Path) -> None:
    angle = np.radians(45)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = ((TEMPLATE - 55.5) @ turn.T * 31 / 112 + 50).astype(np.float32)[None]
    white = np.full((100, 100, 3), 255, np.uint8)
    network = load_network(write_upscaler(tmp_path / "e.onnx"))
    assert SuperResolution(network).align(white, landmarks).min() == 255


def test_what_is_beyond_the_image_is_black(
    people: tuple[NDArray[np.uint8], NDArray[np.float32]], tmp_path: Path
) -> None:
    image, landmarks = people
    left, top = landmarks[0].mean(axis=0).astype(int)
    cut = np.ascontiguousarray(image[top:, left:])
    upscaler = SuperResolution(
        load_network(write_upscaler(tmp_path / "e.onnx")), SuperResolutionConfig(max_size=60)
    )
    (found,) = upscaler.align(cut, (landmarks[:1] - (left, top)).astype(np.float32))
    assert not found[:40].any() and not found[:, :40].any()
    assert found[80:, 80:].any()


def test_only_small_faces_and_not_too_many(
    people: tuple[NDArray[np.uint8], NDArray[np.float32]], tmp_path: Path
) -> None:
    image, landmarks = people
    network = Recorded(load_network(write_upscaler(tmp_path / "e.onnx")))
    limit = round(float(np.median(sizes(landmarks))))
    upscaler = SuperResolution(network, SuperResolutionConfig(max_size=limit, max_faces=2))
    network.shapes.clear()
    changed = (upscaler.align(image, landmarks) != align_faces(image, landmarks)).any((1, 2, 3))
    assert network.shapes == [(2, 3, window_size(limit), window_size(limit))]
    assert changed.sum() == 2
    # The first of the small faces are upscaled.
    everyone = SuperResolution(network, SuperResolutionConfig(max_size=limit, max_faces=9))
    small = (everyone.align(image, landmarks) != align_faces(image, landmarks)).any((1, 2, 3))
    assert 2 < small.sum() < 6
    assert np.flatnonzero(changed).tolist() == np.flatnonzero(small)[:2].tolist()


@pytest.mark.parametrize(
    ("shape", "max_batch", "batches"),
    [(FREE, None, [6]), (FREE, 4, [4, 2]), (ONE, None, [1] * 6)],
    ids=["any batch", "four at most", "one at a time"],
)
def test_batches(
    shape: Shape,
    max_batch: int | None,
    batches: list[int],
    people: tuple[NDArray[np.uint8], NDArray[np.float32]],
    tmp_path: Path,
) -> None:
    one_by_one = load_network(write_upscaler(tmp_path / "one.onnx", ONE))
    all_small = SuperResolutionConfig(max_size=60, max_faces=9)
    expected = SuperResolution(one_by_one, all_small).align(*people)
    network = Recorded(load_network(write_upscaler(tmp_path / "e.onnx", shape)))
    network.max_batch = max_batch
    upscaler = SuperResolution(network, SuperResolutionConfig(max_size=60, max_faces=1))
    network.shapes.clear()
    upscaler.align(*people)
    assert [batch for batch, *_ in network.shapes] == [1]
    network.shapes.clear()
    upscaler.config = all_small
    np.testing.assert_array_equal(upscaler.align(*people), expected)
    assert [batch for batch, *_ in network.shapes] == batches


def test_nobody_and_landmarks_on_one_spot(tmp_path: Path) -> None:
    upscaler = SuperResolution(load_network(write_upscaler(tmp_path / "e.onnx")))
    image = np.full((40, 40, 3), 9, np.uint8)
    assert upscaler.align(image, np.zeros((0, 5, 2), np.float32)).shape == (0, 112, 112, 3)
    spot = np.full((1, 5, 2), 20, np.float32)
    np.testing.assert_array_equal(upscaler.align(image, spot), align_faces(image, spot))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: write_recognizer(path), "found input.1 .* and an output"),
        (lambda path: write_upscaler(path, (1, 3, 64, 64)), r"\[N, 3, 48, 48\] \(sizes may be fr"),
        (lambda path: write_upscaler(path, (2, 3, 48, 48)), r"found input.1 \[2, 3, 48, 48\]"),
        (lambda path: write_upscaler(path, ("N", 1, 48, 48)), r"found input.1 \[None, 1, 48, 48\]"),
        (lambda path: write_upscaler(path, outputs=2), r"one input .* and one output"),
        (lambda path: write_upscaler(path, factor=0.5), r"and an output \[1, 3, 24, 24\]$"),
        (
            lambda path: write_upscaler(path, height_factor=2),
            r"and an output \[1, 3, 96, 192\]$",
        ),
        (lambda path: write_upscaler(path, factor=1.5), r"and an output \[1, 3, 72, 72\]$"),
    ],
    ids=[
        "a recognizer",
        "another window",
        "a batch of two",
        "gray",
        "two outputs",
        "smaller",
        "wider",
        "by no whole number",
    ],
)
def test_other_networks_are_refused(
    write: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        SuperResolution(load_network(write(tmp_path / "other.onnx")))


def test_a_second_input_is_refused(tmp_path: Path) -> None:
    network = Recorded(load_network(write_upscaler(tmp_path / "e.onnx")))
    network.inputs = (*network.inputs, Tensor("scale", (1,)))
    with pytest.raises(ModelError, match=r"found input\.1 \[.*\], scale \[1\] and an output"):
        SuperResolution(network)


def test_a_network_of_the_right_window(tmp_path: Path) -> None:
    upscaler = SuperResolution(load_network(write_upscaler(tmp_path / "e.onnx", (1, 3, 48, 48))))
    assert (upscaler.config.max_size, upscaler.config.max_faces) == (32, 4)
    with pytest.raises(ValueError, match="cannot change to 40: load the network again"):
        upscaler.config = SuperResolutionConfig(max_size=40)


@pytest.mark.parametrize(
    ("max_size", "window"), [(8, 16), (22, 32), (23, 40), (32, 48), (33.9, 48), (34, 56)]
)
def test_the_window_holds_a_face_at_any_angle_in_steps_of_8(max_size: float, window: int) -> None:
    assert window_size(max_size) == window


@pytest.mark.parametrize("gray", [1, 200, 254])
@pytest.mark.parametrize("factor", [1, 2])
def test_gray_comes_back_as_it_was(tmp_path: Path, gray: int, factor: int) -> None:
    upscaler = SuperResolution(load_network(write_upscaler(tmp_path / "e.onnx", factor=factor)))
    image = np.full((100, 100, 3), gray, np.uint8)
    assert (upscaler.align(image, SMALL_FACE) == gray).all()


@pytest.mark.parametrize(("gray", "expected"), [(200, 255), (50, 0)])
def test_values_out_of_range_are_the_nearest(tmp_path: Path, gray: int, expected: int) -> None:
    upscaler = SuperResolution(load_network(write_upscaler(tmp_path / "e.onnx", contrast=3)))
    image = np.full((100, 100, 3), gray, np.uint8)
    assert (upscaler.align(image, SMALL_FACE) == expected).all()


def test_real_esrgan_shows_the_same_faces_sharper(
    people: tuple[NDArray[np.uint8], NDArray[np.float32]],
) -> None:
    entry = load_catalogue().find("realesrgan_x4plus", SUPER_RESOLUTION)
    upscaler = SuperResolution(
        load_network(ensure_model(entry)), SuperResolutionConfig(max_size=40, max_faces=2)
    )
    image, landmarks = people
    expected = align_faces(image, landmarks)[:2]
    found = upscaler.align(image, landmarks)[:2]
    for ours, blurred in zip(found, expected, strict=True):
        assert cv2.Laplacian(ours, cv2.CV_32F).std() > 2 * cv2.Laplacian(blurred, cv2.CV_32F).std()
        coarse = [
            cv2.resize(face, (8, 8), interpolation=cv2.INTER_AREA) for face in (ours, blurred)
        ]
        assert np.abs(coarse[0].astype(int) - coarse[1]).mean() < 12
