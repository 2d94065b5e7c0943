# SPDX-License-Identifier: Apache-2.0
"""Inputs as large as images need: sizes, networks of each size, and what is kept of them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_files import scrfd_outputs, write_detector
from spots import SpotNetwork, draw_spots

from scrfd_ros.config import DetectorConfig, InputSize
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.detection.views import plan_views
from scrfd_ros.errors import ModelError
from scrfd_ros.faces import Faces
from scrfd_ros.inference.load import load_network
from scrfd_ros.inference.network import Network, Tensor

Images = Callable[[str], NDArray[np.uint8]]
Paths = Callable[[str], Path]
Size = tuple[int, int]


def fitting(network: Network, input_size: InputSize = "auto", **options: object) -> Scrfd:
    return Scrfd(network, DetectorConfig(input_size=input_size, **options))  # type: ignore[arg-type]


def sizes_of(detector: Scrfd, *images: Size) -> list[Size]:
    """Width and height of the input of each batch for images of these sizes."""
    black = [np.zeros((height, width, 3), np.uint8) for width, height in images]
    return [batch.blob.shape[:1:-1] for batch in detector.prepare(black)]


class FixedNetwork(SpotNetwork):
    """Takes one size of input, as an engine does. Counts its runs."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__()
        self.inputs = (Tensor("input.1", (1, 3, height, width)),)
        self.runs = 0

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        assert inputs["input.1"].shape == self.inputs[0].shape
        self.runs += 1
        return super().__call__(inputs)


@pytest.mark.parametrize(
    ("input_size", "image", "expected"),
    [
        ("auto", (1280, 720), (640, 384)),
        ("auto", (640, 480), (640, 480)),
        ("auto", (480, 640), (480, 640)),
        ("auto", (1920, 1080), (640, 384)),
        ("auto", (3440, 1440), (640, 288)),
        ("auto", (640, 640), (640, 640)),
        ("auto", (1, 1), (640, 640)),
        ("auto", (64, 48), (640, 480)),
        ("auto", (1300, 1), (640, 32)),
        ("auto", (1, 1300), (32, 640)),
        (320, (1280, 720), (320, 192)),
        (960, (1280, 720), (960, 544)),
        (32, (1280, 720), (32, 32)),
        ((640, 640), (1280, 720), (640, 640)),
        ((640, 480), (1280, 720), (640, 480)),
    ],
)
def test_an_input_is_as_large_as_the_image_needs(
    input_size: InputSize, image: Size, expected: Size
) -> None:
    assert sizes_of(fitting(SpotNetwork(), input_size), image) == [expected]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param((1280, 720), [(640, 480)], id="below"),
        pytest.param((720, 1280), [(480, 640)], id="beside"),
        pytest.param((640, 480), [(640, 640)], id="just below"),
        pytest.param((640, 640), [(640, 640)] * 2, id="on an input of its own"),
    ],
)
def test_the_second_look_has_room(image: Size, expected: list[Size]) -> None:
    assert sizes_of(fitting(SpotNetwork(), large_faces=True), image) == expected


def test_all_tiles_have_inputs_of_one_size() -> None:
    """A tile of a wide image is nearly square."""
    assert sizes_of(fitting(SpotNetwork(), tiles=(2, 1)), (1280, 720)) == [(640, 640)] * 3
    assert sizes_of(fitting(SpotNetwork(), tiles=(2, 2)), (1280, 720)) == [(640, 384)] * 5


class FiveStridesNetwork(SpotNetwork):
    """Answers every size of input with outputs of five strides."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs = tuple(Tensor(name, ()) for name in self._of(128, 128))

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        *_, height, width = inputs["input.1"].shape
        return self._of(width, height)

    def _of(self, width: int, height: int) -> dict[str, NDArray[np.float32]]:
        return scrfd_outputs(width, height, strides=(8, 16, 32, 64, 128))


def test_networks_of_five_strides_get_steps_of_the_coarsest() -> None:
    detector = fitting(FiveStridesNetwork())
    assert detector.takes_all_sizes and detector.size == (640, 512)
    assert sizes_of(detector, (640, 480), (1280, 720)) == [(640, 512), (640, 384)]


def test_images_of_several_sizes_in_one_call(image: Images, detector_path: Paths) -> None:
    detector = fitting(load_network(detector_path("500m")))
    whole = image("t1.jpg")
    images = [whole, whole[:500], whole[:, :600], whole, whole[::2, ::2], whole[:1], whole[:500]]
    images = [np.ascontiguousarray(each) for each in images]
    together = detector.detect_all(images)
    for faces, alone in zip(together, map(detector.detect, images), strict=True):
        assert_same(faces, alone)
    assert [len(faces) > 0 for faces in together] == [True] * 5 + [False, True]


def assert_same(faces: Faces, others: Faces) -> None:
    for name in ("boxes", "scores", "landmarks"):
        np.testing.assert_array_equal(getattr(faces, name), getattr(others, name))


@pytest.mark.parametrize("large_faces", [False, True])
def test_the_same_faces_as_on_a_square_input(
    large_faces: bool, image: Images, detector_path: Paths
) -> None:
    """Where the input ends, the network sees zeros instead of black; most in faces near there."""
    network = load_network(detector_path("500m"))
    square = fitting(network, (640, 640), large_faces=large_faces)
    auto = fitting(network, large_faces=large_faces)
    picture = np.ascontiguousarray(image("t1.jpg")[:720])
    assert picture.shape == (720, 1280, 3)
    expected, found = square.detect(picture), auto.detect(picture)
    assert len(found) == len(expected) == 6
    assert np.abs(found.boxes - expected.boxes).max() < 0.05
    assert found.landmarks is not None and expected.landmarks is not None
    assert np.abs(found.landmarks - expected.landmarks).max() < 0.05


def test_a_camera_that_changes_its_size_costs_no_memory() -> None:
    network = SpotNetwork()
    detector = fitting(network)
    wide = [(640, 32 * number) for number in range(1, 21)]
    sizes = [*wide, *((height, width) for width, height in wide)]
    spot = draw_spots((32, 32), [[6.0, 8.0, 26.0, 28.0]])

    def show_all() -> int:
        for width, height in sizes:
            image = np.zeros((height, width, 3), np.uint8)
            image[:32, :32] = spot
            assert len(detector.detect(image)) >= 1
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    once = show_all()
    more = [show_all() for _ in range(2)]
    tracemalloc.stop()
    assert max(more) < once + 1_000_000
    every_size = sum(3 * (4 + 1) * width * height for width, height in sizes)
    assert once < 0.6 * every_size, "some of them are kept, not all"


def test_a_network_for_each_size() -> None:
    """Where each size takes a network of its own, the first one serves until there is another."""
    square, wide = FixedNetwork(640, 640), FixedNetwork(640, 384)
    there: dict[Size, Network] = {}
    asked: list[Size] = []

    def sized(size: Size) -> Network | None:
        asked.append(size)
        return there.get(size)

    detector = Scrfd(square, DetectorConfig(input_size="auto"), sized)
    assert not detector.takes_all_sizes
    box = [400.0, 300.0, 460.0, 360.0]
    spot = draw_spots((1280, 720), [box])
    first = detector.detect(spot)
    assert asked == [(640, 384)]
    there[640, 384] = wide
    runs = square.runs
    found = detector.detect(spot)
    assert asked == [(640, 384)] * 2 and wide.runs >= 1 and square.runs == runs
    detector.detect(spot)
    assert len(asked) == 2, "it is kept"
    assert len(first) == len(found)
    np.testing.assert_allclose(found.boxes, first.boxes)
    detector.detect(np.zeros((640, 640, 3), np.uint8))
    assert len(asked) == 2, "that is the first network's size"


@pytest.mark.parametrize("input_size", ["auto", 640, (640, 480)])
def test_a_network_of_one_size_runs_at_its_own(input_size: InputSize) -> None:
    detector = fitting(FixedNetwork(640, 480), input_size)
    assert sizes_of(detector, (1280, 720), (100, 100)) == [(640, 480)] * 2


def test_a_network_of_another_size_is_refused() -> None:
    with pytest.raises(ModelError, match=r"640x640 only, not 960x960; set .* \[640, 640\] or auto"):
        fitting(FixedNetwork(640, 640), 960)


def test_a_network_that_is_fixed_inside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It says that it takes every size, and answers as if its input were of one."""
    path = write_detector(tmp_path / "fixed.onnx", scrfd_outputs(640, 640))
    detector = fitting(load_network(path))
    assert not detector.takes_all_sizes
    assert sizes_of(detector, (1280, 720), (100, 100)) == [(640, 640)] * 2
    assert len(detector.detect(np.zeros((720, 1280, 3), np.uint8))) > 0
    (record,) = caplog.records
    assert "fixed.onnx: every image is scaled to 640x640, as other sizes" in record.getMessage()
    other = load_network(write_detector(tmp_path / "other.onnx", scrfd_outputs(640, 480)))
    with pytest.raises(ModelError, match=r"other\.onnx: the outputs are not .* at 640x640: stride"):
        fitting(other)
    assert fitting(other, (640, 480)).size == (640, 480)
    assert len(caplog.records) == 1


def test_plans_of_others(image: Images, detector_path: Paths) -> None:
    detector = fitting(load_network(detector_path("500m")))
    picture = image("t1.jpg")
    height, width = picture.shape[:2]
    own = plan_views(width, height, 320, 320, step=32)
    assert own.size == (320, 224)
    (faces,) = detector.detect_all([picture], plans=[own])
    expected = fitting(detector.network, 320).detect(picture)
    assert_same(faces, expected)
    assert not np.array_equal(faces.scores, detector.detect(picture).scores)
