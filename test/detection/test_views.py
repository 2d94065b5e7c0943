# SPDX-License-Identifier: Apache-2.0
"""Views: where parts of an image lie on the network's inputs, and the faces found in them."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_files import scrfd_outputs, write_detector
from pipelines import detector_of
from spots import SpotNetwork, draw_spots

from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.detection.views import View, fitted_size, plan_views
from scrfd_ros.errors import ModelError
from scrfd_ros.faces import Faces, ious
from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork

Images = Callable[[str], NDArray[np.uint8]]
Paths = Callable[[str], Path]

# width, height of the image; of the input; of the image on it
SIZES = [
    pytest.param((1280, 886), (640, 640), (640, 443), id="landscape"),
    pytest.param((886, 1280), (640, 640), (443, 640), id="portrait"),
    pytest.param((640, 640), (640, 640), (640, 640), id="fits"),
    pytest.param((904, 1000), (640, 640), (578, 640), id="truncated, not rounded: 578.56"),
    pytest.param((1000, 701), (640, 640), (640, 448), id="truncated, not rounded: 448.64"),
    pytest.param((13, 7), (640, 640), (640, 344), id="tiny, enlarged"),
    pytest.param((2, 1), (640, 640), (640, 320), id="two pixels"),
    pytest.param((9000, 10), (640, 640), (640, 1), id="very wide: at least one row"),
    pytest.param((10, 9000), (640, 640), (1, 640), id="very tall: at least one column"),
    pytest.param((1280, 720), (640, 384), (640, 360), id="landscape on landscape"),
    pytest.param((720, 1280), (640, 384), (216, 384), id="portrait on landscape"),
    pytest.param((1000, 700), (640, 384), (548, 384), id="landscape on a wider landscape"),
    pytest.param((500, 800), (320, 640), (320, 512), id="portrait on a taller portrait"),
    pytest.param((1280, 720), (320, 640), (320, 180), id="landscape on portrait"),
    pytest.param((1000, 600), (640, 384), (640, 384), id="same aspect"),
    pytest.param((7680, 4320), (640, 640), (640, 360), id="8K"),
]


@pytest.mark.parametrize(("image_size", "input_size", "expected"), SIZES)
def test_the_whole_image_in_the_corner(
    image_size: tuple[int, int], input_size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert fitted_size(*image_size, *input_size) == expected
    (whole,) = plan_views(*image_size, *input_size).views
    assert whole == View(0, (0, 0, *image_size), (0, 0, *expected))
    assert whole.scales == tuple(np.array(expected) / image_size)


@pytest.mark.parametrize(
    ("image_size", "input_size", "canvas", "target"),
    [
        pytest.param((1280, 720), (640, 640), 0, (0, 384, 160, 90), id="16:9, below"),
        pytest.param((640, 480), (640, 640), 0, (0, 512, 160, 120), id="4:3, below"),
        pytest.param((1280, 1024), (640, 640), 0, (0, 544, 106, 85), id="5:4, below, smaller"),
        pytest.param((480, 640), (640, 640), 0, (512, 0, 120, 160), id="portrait, beside"),
        pytest.param((700, 700), (640, 640), 1, (0, 0, 160, 160), id="square, on its own"),
        pytest.param((1280, 768), (640, 384), 1, (0, 0, 160, 96), id="no room"),
        pytest.param((320, 240), (320, 320), 0, (0, 256, 80, 60), id="a smaller input"),
        pytest.param((1920, 1152), (640, 480), 0, (0, 416, 106, 64), id="just fits below"),
        pytest.param((1484, 1920), (256, 256), 0, (224, 0, 32, 42), id="just fits beside"),
        pytest.param((9000, 10), (640, 640), 0, (0, 32, 160, 1), id="very wide"),
        pytest.param((20, 2000), (640, 640), 0, (32, 0, 1, 160), id="very tall"),
        pytest.param((2000, 20), (640, 32), 1, (0, 0, 160, 1), id="very wide, no room"),
        pytest.param((20, 2000), (32, 640), 1, (0, 0, 1, 160), id="very tall, no room"),
    ],
)
def test_second_look(
    image_size: tuple[int, int],
    input_size: tuple[int, int],
    canvas: int,
    target: tuple[int, int, int, int],
) -> None:
    whole, second = plan_views(*image_size, *input_size, large_faces=True).views
    assert (second.canvas, second.target) == (canvas, target)
    assert second.source == whole.source
    assert second.scales == tuple(np.array(target[2:]) / image_size)
    # In pixels of the first input.
    sides = np.array(second.smallest) * whole.scales
    np.testing.assert_allclose(sides, max(input_size) / 2)


@pytest.mark.parametrize("size", [(3000, 2171), (640, 480), (4000, 300), (97, 1001), (7680, 4320)])
@pytest.mark.parametrize("tiles", [(2, 1), (1, 2), (3, 2), (7, 5)])
def test_tiles_cover_the_image_and_overlap(size: tuple[int, int], tiles: tuple[int, int]) -> None:
    whole, *views = plan_views(*size, 640, 640, tiles).views
    assert whole.source == (0, 0, *size)
    assert [view.canvas for view in views] == list(range(1, tiles[0] * tiles[1] + 1))
    for axis in (0, 1):
        spans = sorted({(view.source[axis], view.source[axis + 2]) for view in views})
        assert len(spans) == tiles[axis]
        assert spans[0][0] == 0 and sum(spans[-1]) == size[axis]
        for (begin, length), (following, _) in pairwise(spans):
            assert 0.2 * length <= begin + length - following <= 0.3 * length + 1
    for view in views:
        x, y, width, height = view.source
        low, high = view.bounds[:2], view.bounds[2:]
        assert [math.isfinite(value) for value in low] == [x > 0, y > 0]
        assert [math.isfinite(value) for value in high] == [
            x + width < size[0],
            y + height < size[1],
        ]
        # A box within four pixels of the input from the tile's edge is that of a face cut off.
        edges = zip(view.bounds, (x, y, x + width, y + height), view.scales * 2, strict=True)
        for bound, edge, scale in edges:
            inwards = 4 / scale * (1 if bound in low else -1)
            assert math.isinf(bound) or bound == pytest.approx(edge + inwards)


@pytest.fixture(scope="module")
def light(detector_path: Paths) -> OnnxRuntimeNetwork:
    return OnnxRuntimeNetwork(detector_path("500m"))


def reduced(photograph: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    small = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8)


def face_in_the_middle(
    image: NDArray[np.uint8], box: NDArray[np.float32], size: tuple[int, int], part: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """An image of a face whose box has this part of the longer side, and that box [1, 4]."""
    center, face = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    scale = part * max(size) / face.max()
    shift = np.array(size) / 2 - scale * center
    warped = cv2.warpAffine(
        image,
        np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]),
        size,
        borderMode=cv2.BORDER_REPLICATE,
    )
    corners = np.stack((box[:2], box[2:])) * scale + shift
    return warped.astype(np.uint8), corners.reshape(1, 4).astype(np.float32)


@pytest.mark.parametrize("size", [(960, 720), (720, 720), (600, 800)], ids=["4:3", "1:1", "3:4"])
@pytest.mark.parametrize("name", ["obama.jpg", "obama3.jpg", "biden.jpg"])
def test_large_faces(
    light: OnnxRuntimeNetwork, image: Images, name: str, size: tuple[int, int]
) -> None:
    photograph = image(name)
    without, with_second = Scrfd(light), detector_of(light, large_faces=True)
    (box,) = without.detect(photograph).boxes
    missed = 0
    for part in (0.1, 0.3, 0.5, 0.7, 0.9, 1.1):
        large, expected = face_in_the_middle(photograph, box, size, part)
        found = with_second.detect(large)
        assert len(found) == 1, part
        assert ious(found.boxes, expected).item() > 0.6, part
        missed += not len(without.detect(large))
    assert missed >= 2, "what the second look is for"


@pytest.mark.parametrize(
    "name", ["t1.jpg", "solvay_conference_1927.jpg", "players.jpg", "gdp.jpg", "obama2.jpg"]
)
def test_second_look_leaves_other_faces_alone(
    light: OnnxRuntimeNetwork, image: Images, name: str
) -> None:
    expected = Scrfd(light).detect(image(name))
    found = detector_of(light, large_faces=True).detect(image(name))
    assert len(found) == len(expected) > 0
    assert ious(found.boxes, expected.boxes).max(axis=1).min() > 0.99
    np.testing.assert_allclose(found.scores, expected.scores, atol=0.005)


def test_second_look_begins_and_ends_where_it_is_drawn(tmp_path: Path) -> None:
    # 96x48 on 96x96: the second look is at x 0 to 24, y 64 to 76, at a quarter of the size.
    outputs = scrfd_outputs(96, 96)
    for name, array in outputs.items():
        array[:] = 0 if name.startswith("score") else 0.5
    rows = {(x, y): (y // 8 * 12 + x // 8) * 2 for x, y in ((0, 64), (8, 72), (24, 64))}
    outputs["score_8"][0, list(rows.values()), 0] = [0.9, 0.8, 0.7]
    outputs["bbox_8"][0, rows[0, 64]] = 0.75  # 48 pixels, half of the input: counts
    network = OnnxRuntimeNetwork(write_detector(tmp_path / "detector.onnx", outputs))
    found = detector_of(network, (96, 96), large_faces=True).detect(np.zeros((48, 96, 3), np.uint8))
    np.testing.assert_allclose(found.scores, [0.9, 0.7])
    np.testing.assert_array_equal(found.boxes, [[-24, -24, 24, 24], [20, 60, 28, 68]])


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("tiles", [(2, 1), (3, 2), (4, 3)])
def test_tiles_merge_without_duplicates(
    light: OnnxRuntimeNetwork, image: Images, tiles: tuple[int, int], scale: float
) -> None:
    photograph = cv2.resize(
        image("solvay_conference_1927.jpg"),
        None,
        fx=scale,
        fy=scale,
        interpolation=cv2.INTER_AREA,
    ).astype(np.uint8)
    found = detector_of(light, tiles=tiles).detect(photograph)
    assert len(found) == 29
    expected = Scrfd(light).detect(photograph)
    assert ious(found.boxes, expected.boxes).max(axis=1).min() > 0.6


def test_a_crowd_of_small_faces(light: OnnxRuntimeNetwork, image: Images) -> None:
    small = cv2.resize(
        image("solvay_conference_1927.jpg"), (420, 304), interpolation=cv2.INTER_AREA
    )
    crowd = np.zeros((2160, 3840, 3), np.uint8)  # 4K
    crowd[:2128] = np.tile(small, (7, 10, 1))[:, :3840]
    people = 7 * 9 * 29  # whole photographs
    assert len(Scrfd(light).detect(crowd)) < 0.01 * people
    found = detector_of(light, tiles=(8, 5)).detect(crowd)
    whole = found.boxes[:, 2] < 9 * 420
    assert 0.98 * people < whole.sum() <= people
    overlaps = ious(found.boxes, found.boxes) - np.eye(len(found))
    assert overlaps.max() < 0.4
    assert np.median(found.sizes.max(axis=1)) < 18


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (20, 20), (2000, 20), (20, 2000), (7680, 4320)])
@pytest.mark.parametrize("tiles", [(1, 1), (2, 2)])
@pytest.mark.parametrize("large_faces", [False, True])
def test_any_size_of_image(
    light: OnnxRuntimeNetwork, size: tuple[int, int], tiles: tuple[int, int], large_faces: bool
) -> None:
    detector = detector_of(light, (64, 64), tiles=tiles, large_faces=large_faces)
    found = detector.detect(np.zeros((*size[::-1], 3), np.uint8))
    assert np.isfinite(found.boxes).all()


@pytest.mark.parametrize("turned", [False, True], ids=["wide", "tall"])
def test_long_images(light: OnnxRuntimeNetwork, image: Images, turned: bool) -> None:
    row = cv2.resize(image("t1.jpg"), (640, 443), interpolation=cv2.INTER_AREA)
    panorama = np.concatenate([row] * 6, axis=0 if turned else 1).astype(np.uint8)
    tiles = (1, 6) if turned else (6, 1)
    found = detector_of(light, tiles=tiles).detect(panorama)
    assert len(found) == 36
    assert (ious(found.boxes, found.boxes) - np.eye(36)).max() < 0.4


class Batches(OnnxRuntimeNetwork):
    """Prefers batches, as on a GPU, and records their sizes."""

    def __init__(self, path: Path, max_batch: int | None, on_gpu: bool = True) -> None:
        super().__init__(path)
        self.on_gpu = on_gpu
        self.max_batch = max_batch
        self.sizes: list[int] = []

    def __call__(self, inputs):  # type: ignore[no-untyped-def]
        self.sizes.append(len(inputs["input.1"]))
        return super().__call__(inputs)


def equal(found: Faces, expected: Faces) -> None:
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)


@pytest.mark.parametrize(
    ("max_batch", "on_gpu", "sizes"),
    [
        (None, True, [8, 2]),
        (8, True, [8, 2]),
        (4, True, [4, 4, 2]),
        (2, True, [2] * 5),
        (1, True, [1] * 10),
        (4, False, [1] * 10),
    ],
)
def test_several_images_in_batches(
    light: OnnxRuntimeNetwork,
    detector_path: Paths,
    image: Images,
    max_batch: int | None,
    on_gpu: bool,
    sizes: list[int],
) -> None:
    photographs = [image(name) for name in ("t1.jpg", "obama.jpg", "gdp.jpg")]
    network = Batches(detector_path("500m"), max_batch, on_gpu)
    # Two images, each as a whole and in 4 tiles.
    detector = detector_of(network, (320, 320), tiles=(2, 2))
    network.sizes.clear()
    found = detector.detect_all(photographs[:2])
    assert network.sizes == sizes
    alone = detector_of(light, (320, 320), tiles=(2, 2))
    for photograph, faces in zip(photographs, found, strict=False):
        equal(faces, alone.detect(photograph))
    for each in (detector, alone):  # fewer inputs than before
        each.config = replace(each.config, tiles=(1, 1))
    equal(detector.detect(photographs[2]), alone.detect(photographs[2]))


def test_a_network_that_flattens_its_batch_runs_one_by_one(tmp_path: Path) -> None:
    # It declares a free batch, but always returns the rows of one image.
    path = write_detector(
        tmp_path / "flat.onnx", scrfd_outputs(32, 32, rank=2), ("N", 3, "height", "width")
    )
    network = Batches(path, None)
    detector = detector_of(network, (32, 32), tiles=(2, 1))
    network.sizes.clear()
    detector.detect(np.zeros((32, 64, 3), np.uint8))
    assert network.sizes == [1, 1, 1]


def test_a_network_that_refuses_its_batch_runs_one_by_one(tmp_path: Path) -> None:
    class Refuses(Batches):
        def __call__(self, inputs):  # type: ignore[no-untyped-def]
            if len(inputs["input.1"]) > 1:
                raise ModelError("one at a time")
            return super().__call__(inputs)

    path = write_detector(
        tmp_path / "free.onnx", scrfd_outputs(32, 32, rank=2), ("N", 3, "height", "width")
    )
    network = Refuses(path, None)
    detector = detector_of(network, (32, 32), tiles=(2, 1))
    network.sizes.clear()
    detector.detect(np.zeros((32, 64, 3), np.uint8))
    assert network.sizes == [1, 1, 1]


@pytest.mark.parametrize(("on_gpu", "batch"), [(False, 1), (True, 8)])
def test_memory_does_not_grow_with_the_tiles(on_gpu: bool, batch: int) -> None:
    """Only one batch of inputs is held at a time."""
    network = SpotNetwork(on_gpu)
    detector = detector_of(network, (320, 320), nms_threshold=1)
    box = [30.0, 20.0, 70.0, 60.0]
    spot = draw_spots((800, 600), [box])
    peaks = []
    for tiles in ((2, 1), (4, 4), (8, 8)):
        detector.config = replace(detector.config, tiles=tiles)
        network.batches.clear()
        tracemalloc.start()
        found = detector.detect(spot)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        inputs = 1 + tiles[0] * tiles[1]
        assert network.batches == [*[batch] * (inputs // batch), *filter(None, [inputs % batch])]
        assert len(found) >= 1
        assert np.abs(found.boxes - box).max() < 1
    blob = 3 * 320 * 320 * 4
    assert max(peaks) < (1.5 * blob + 4_000_000) * batch
    held = [len(detector._first._letterboxes), len(detector._first._blob)]
    assert held == [batch, batch]
