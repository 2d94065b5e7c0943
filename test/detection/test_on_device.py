# SPDX-License-Identifier: Apache-2.0
"""What the device draws and chooses is what the processor draws and chooses, on a simulated GPU.

The kernels run from their source, compiled for the processor. Engines answer with given outputs,
or run the real models.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from canvases import Canvas
from numpy.typing import NDArray
from onnx_files import scrfd_outputs, write_graph
from pipelines import detector_of
from tqdm import tqdm

from scrfd_ros.detection import letterbox, on_device
from scrfd_ros.detection.levels import ChosenAnchors
from scrfd_ros.detection.on_device import DeviceSearch
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.detection.views import View, plan_views
from scrfd_ros.engines.build import build_engine
from scrfd_ros.errors import ModelError
from scrfd_ros.faces import Faces
from scrfd_ros.inference.engine_file import ShapeRange
from scrfd_ros.inference.load import load_network
from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork

pytestmark = pytest.mark.usefixtures("simulated_gpu")

Image = NDArray[np.uint8]
Outputs = Mapping[str, NDArray[np.float32]]

# Sizes of images, width and height: of cameras, the smallest, the longest, and some at random.
SIZES = [
    *((640, 480), (1280, 720), (1920, 1080), (641, 481)),
    *((1, 1), (1, 700), (700, 1), (2, 3), (700, 700), (320, 180)),
    *map(tuple, np.random.default_rng(0).integers(1, 701, (20, 2)).tolist()),
]


# Pixels of 255, between the device and the processor: on aarch64 OpenCV may round otherwise.
TOLERANCE = 0 if platform.machine() == "x86_64" else 1

NOISE = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3)).astype(np.uint8)


def noise(width: int, height: int) -> Image:
    return NOISE[-height:, -width:]


def assert_same_pixels(drawn: NDArray[np.float32], canvas: Canvas) -> None:
    np.testing.assert_allclose(drawn, canvas.planes, rtol=0, atol=TOLERANCE)


def write_engine(path: Path, model: Path, size: tuple[int, int], batch: int = 1) -> Path:
    """An engine for batches up to this one. Nothing is known about it, as of trtexec's."""
    import tensorrt

    low, high = ((count, 3, size[1], size[0]) for count in (1, batch))
    plan = build_engine(tensorrt, model.read_bytes(), ShapeRange(low, high, high), "fp32")
    path.write_bytes(plan)
    return path


def made_up_engine(path: Path, outputs: Outputs, size: tuple[int, int], batch: int = 1) -> Path:
    """An engine that answers with the first of these outputs, as many as it gets inputs."""
    nodes = [
        onnx.helper.make_node("Shape", ["input.1"], ["shape"]),
        onnx.helper.make_node("Slice", ["shape", "zero", "one"], ["count"]),
        *(
            onnx.helper.make_node("Slice", [f"{name} value", "zero", "count"], [name])
            for name in outputs
        ),
    ]
    constants: dict[str, NDArray[Any]] = {f"{name} value": outputs[name] for name in outputs}
    constants |= {"zero": np.array([0]), "one": np.array([1])}
    shapes = {name: ("N", *array.shape[1:]) for name, array in outputs.items()}
    model = path.with_suffix(".onnx")
    write_graph(model, nodes, ("N", 3, size[1], size[0]), shapes, constants)
    return write_engine(path, model, size, batch)


@pytest.fixture
def detector(tmp_path: Path) -> Callable[..., Scrfd]:
    """A detector on an engine with made-up outputs."""

    def make(
        size: tuple[int, int],
        outputs: Outputs | None = None,
        cuda_graph: bool = False,
        **options: Any,
    ) -> Scrfd:
        path = made_up_engine(tmp_path / "made_up.engine", outputs or scrfd_outputs(*size), size)
        return detector_of(load_network(path, cuda_graph=cuda_graph), size, **options)

    return make


def search_of(detector: Scrfd) -> DeviceSearch:
    assert detector._first.device is not None
    return detector._first.device


def on_input(views: Sequence[View], number: int = 0) -> tuple[View, ...]:
    return tuple(view for view in views if view.canvas == number)


@pytest.mark.parametrize("size", [(64, 64), (160, 96), (640, 640)], ids=str)
def test_draws_the_pixels_of_the_letterbox(
    detector: Callable[..., Scrfd], size: tuple[int, int]
) -> None:
    """With SCRFD_EVERY_SIZE=1, and pytest's option -s, every size from 1 to 700 is tried."""
    every = "SCRFD_EVERY_SIZE" in os.environ
    sizes = SIZES[:: 1 if size < (640, 640) else 3]
    if every:
        sizes = list(itertools.product(range(1, 701), repeat=2))
    search, canvas = search_of(detector(size)), Canvas(*size)
    largest, different = 0.0, 0
    for width, height in tqdm(sizes, disable=not every):
        image = noise(width, height)
        views = on_input(plan_views(width, height, *size, large_faces=True).views)
        list(search.search({0: image}, [[(0, views)]], 2.0))
        canvas(image, views)
        (planes,) = drawn(search, 1)
        differences = np.abs(planes * 128 + 127.5 - canvas.planes)
        largest, different = max(largest, differences.max()), different + (differences > 0).sum()
    print(f"{len(sizes)} sizes: {different} values differ, by {largest:g} of 255 at most")
    assert largest <= TOLERANCE


@pytest.mark.parametrize("shape", [(700, 500), (300, 900), (1920, 1080)], ids=str)
def test_draws_tiles_and_the_second_look(
    detector: Callable[..., Scrfd], shape: tuple[int, int]
) -> None:
    search, canvas = search_of(detector((96, 96))), Canvas(96, 96)
    image = noise(*shape)
    views = plan_views(*shape, 96, 96, (3, 2), large_faces=True).views
    for number in range(views[-1].canvas + 1):
        planes, _, _ = search.trial(image, on_input(views, number))
        canvas(image, on_input(views, number))
        assert_same_pixels(planes * 128 + 127.5, canvas)


def test_rows_may_have_gaps_or_run_backwards(detector: Callable[..., Scrfd]) -> None:
    search = search_of(detector((64, 64)))
    whole = noise(200, 90)
    for image in (whole[10:60, 20:120], whole[::-1], whole[:, ::-1, ::-1], whole[::2, ::3]):
        views = plan_views(*image.shape[1::-1], 64, 64).views
        expected, _, _ = search.trial(np.ascontiguousarray(image), views)
        planes, _, _ = search.trial(image, views)
        np.testing.assert_array_equal(planes, expected)


def test_nothing_outside_of_an_image_is_read(detector: Callable[..., Scrfd]) -> None:
    """What lies around an image in memory, here the images before and after, does not count."""
    search = search_of(detector((64, 64)))
    image = noise(77, 51)
    views = on_input(plan_views(77, 51, 64, 64, large_faces=True).views)
    planes = []
    for value in (0, 255):
        around = np.full((31, 41, 3), value, np.uint8)
        list(search.search(dict(enumerate([around, image, around])), [[(1, views)]], 0.5))
        planes.append(drawn(search, 1)[0])
    expected, _, _ = search.trial(image, views)
    np.testing.assert_array_equal(planes, [expected] * 2)


def drawn(search: DeviceSearch, count: int) -> NDArray[np.float32]:
    """The inputs as they were drawn last, float32 [count, 3, H, W]."""
    cuda, device = search._cuda, search._device
    width, height = search._size
    with cuda.current():
        planes = cuda.pinned((count, 3, height, width), np.float32)
        prepared = device.prepare(planes.shape)
        cuda.copy_out(planes, prepared.address("input.1"), device.stream)
        cuda.synchronize(device.stream)
    return planes.copy()


def test_a_batch_of_several_images(tmp_path: Path) -> None:
    size = 96, 64
    outputs = {
        name: np.concatenate([array, array[:, ::-1], array / 2])
        for name, array in scrfd_outputs(*size).items()
    }
    path = made_up_engine(tmp_path / "batch.engine", outputs, size, 3)
    detector = detector_of(load_network(path), size)
    images = [noise(300, 120), noise(50, 80), noise(640, 480)]
    batch = [
        (number, on_input(plan_views(*image.shape[1::-1], *size, large_faces=True).views))
        for number, image in enumerate(images)
    ]
    search = search_of(detector)
    (chosen,) = search.search(dict(enumerate(images)), [batch], 0.9)
    canvas = Canvas(*size)
    for planes, (number, views) in zip(drawn(search, 3), batch, strict=True):
        canvas(images[number], views)
        assert_same_pixels(planes * 128 + 127.5, canvas)
    for number, found in enumerate(chosen):
        row = {name: array[number] for name, array in outputs.items()}
        assert_same(found, detector._first.chosen(row, 0.9))


def assert_same(found: ChosenAnchors, expected: ChosenAnchors) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_raw_pixels_for_a_network_that_normalizes(detector: Callable[..., Scrfd]) -> None:
    network = detector((64, 64)).network
    network.normalizes_input = True
    search, canvas = search_of(detector_of(network, (64, 64))), Canvas(64, 64)
    image = noise(80, 60)
    views = on_input(plan_views(80, 60, 64, 64).views)
    planes, _, _ = search.trial(image, views)
    canvas(image, views)
    assert_same_pixels(planes, canvas)


THRESHOLD = 0.4
BELOW = np.nextafter(np.float32(THRESHOLD), np.float32(0))
LAYOUTS = [
    ((64, 64), (8, 16, 32), True),
    ((64, 64), (8, 16, 32), False),
    ((128, 128), (8, 16, 32, 64, 128), True),
    ((128, 128), (8, 16, 32, 64, 128), False),
    ((320, 320), (8, 16, 32), True),
]


def none_of(scores: NDArray[np.float32]) -> None:
    scores *= BELOW


def some_of(scores: NDArray[np.float32]) -> None:
    scores[scores < np.quantile(scores, 0.9)] *= BELOW


def at_the_threshold(scores: NDArray[np.float32]) -> None:
    scores *= BELOW
    scores[..., ::2, 0] = THRESHOLD


def all_of(scores: NDArray[np.float32]) -> None:
    scores += 1


def not_numbers(scores: NDArray[np.float32]) -> None:
    none_of(scores)
    flat, odd = scores.reshape(-1), [math.nan, math.inf, -math.inf, 65504, 0.5, -0.0]
    flat[: len(odd)] = odd[: len(flat)]


def in_half_precision(scores: NDArray[np.float32]) -> None:
    scores[:] = scores.astype(np.float16)


@pytest.mark.parametrize(
    "change", [none_of, some_of, at_the_threshold, all_of, not_numbers, in_half_precision]
)
@pytest.mark.parametrize(("size", "strides", "landmarks"), LAYOUTS, ids=str)
def test_chooses_the_candidates_of_the_processor(
    size: tuple[int, int],
    strides: tuple[int, ...],
    landmarks: bool,
    change: Callable[[NDArray[np.float32]], None],
    detector: Callable[..., Scrfd],
) -> None:
    outputs = scrfd_outputs(*size, strides=strides, landmarks=landmarks)
    for name, array in outputs.items():
        if name.startswith("score"):
            change(array)
        elif change is not_numbers:
            array.reshape(-1)[:3] = math.nan, math.inf, -math.inf
    made_up = detector(size, outputs)
    image = noise(*size)
    inputs = [(0, plan_views(*size, *size).views)]
    ((found,),) = search_of(made_up).search({0: image}, [inputs], THRESHOLD)
    expected = made_up._first.chosen(outputs, THRESHOLD)
    assert_same(found, expected)
    if change is all_of and size == (320, 320):
        assert len(found.rows) == 4200 > on_device._FIRST, "more than come back at once"
    assert (len(found.rows) == 0) == (change is none_of)


@pytest.mark.parametrize(
    ("name", "cuda_graph", "library"),
    [
        ("500m", False, "cuda-python"),
        ("500m", True, "pycuda"),
        ("2.5g", True, "cuda-python"),
    ],
    ids=str,
)
def test_faces_are_those_of_the_processor(
    name: str,
    cuda_graph: bool,
    library: str,
    detector_path: Callable[[str], Path],
    image: Callable[[str], Image],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if library == "pycuda":
        monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    else:
        pytest.importorskip("cuda.bindings.driver")
    model = detector_path(name)
    size, batch = ((320, 320), 2) if name == "500m" else ((640, 640), 1)
    path = write_engine(tmp_path / "real.engine", model, size, batch)
    device = detector_of(load_network(path, cuda_graph=cuda_graph), size)
    processor = detector_of(OnnxRuntimeNetwork(model), size)
    assert device.batch == batch and search_of(device)._cuda.name.startswith(library)
    photograph = image("t1.jpg")
    turns: list[tuple[list[Image], dict[str, Any]]] = [
        ([photograph], {}),
        ([photograph[::2, ::2]], {"score_threshold": 0.3}),  # a graph serves every image's size
        ([photograph, photograph[:300]], {"large_faces": True}),
        ([photograph], {"tiles": (2, 1), "large_faces": True}),
    ]
    for images, options in turns[: 2 if name == "2.5g" else None]:
        for each in (device, processor):
            each.config = replace(each.config, **options)
        for found, expected in zip(
            device.detect_all(images), processor.detect_all(images), strict=True
        ):
            assert_same_faces(found, expected)
    assert len(found) >= 6
    parts = ["copy_in", "network", "copy_out"]
    if not cuda_graph:
        parts = ["copy_in", "draw", "network", "candidates", "copy_out"]
    assert list(device.device_milliseconds()) == parts


def assert_same_faces(found: Faces, expected: Faces) -> None:
    # Batches of another size may be added up in another order.
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert found.landmarks is not None and expected.landmarks is not None
    np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=0.01)


def test_images_go_to_the_device_once(
    detector: Callable[..., Scrfd], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up = detector((64, 64), tiles=(2, 2))
    cuda = search_of(made_up)._cuda
    sizes = []
    copy_in = cuda.copy_in
    monkeypatch.setattr(
        cuda,
        "copy_in",
        lambda to, array, stream: sizes.append(array.nbytes) or copy_in(to, array, stream),
    )
    images = [noise(100, 80), noise(60, 70)]
    made_up.detect_all(images)
    pixels = sum(image.size for image in images)
    table = on_device._HEAD.itemsize + on_device._INPUT.itemsize
    assert sizes == [pixels, *[table] * 10]


def test_one_graph_for_each_number_of_inputs(tmp_path: Path) -> None:
    size = 64, 64
    outputs = {name: np.repeat(array, 3, axis=0) for name, array in scrfd_outputs(*size).items()}
    path = made_up_engine(tmp_path / "batch.engine", outputs, size, 3)
    made_up = detector_of(load_network(path, cuda_graph=True), size)
    search = search_of(made_up)
    for count in (2, 2, 1, 2, 1):
        made_up.detect_all([noise(90, 70)] * count)
    assert set(search._graphs) == {1, 2}
    graphs = dict(search._graphs)
    made_up.detect_all([noise(900, 700)] * 2)
    assert search._graphs == graphs, "images of another size need no other graph"


def test_graph_that_cannot_be_recorded(
    detector: Callable[..., Scrfd],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = detector((64, 64)).detect(noise(80, 60))
    monkeypatch.setenv("SIMULATED_CUDA", "cuStreamEndCapture 901")
    made_up = detector((64, 64), cuda_graph=True)
    for _ in range(2):
        np.testing.assert_array_equal(made_up.detect(noise(80, 60)).boxes, expected.boxes)
    assert "made_up.engine runs without a CUDA graph: the work cannot be recorded" in caplog.text


@pytest.mark.parametrize("fault", ["cuModuleLoadData 222", "cuModuleGetFunction 500"])
def test_kernels_that_the_driver_refuses(
    fault: str,
    detector: Callable[..., Scrfd],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = detector((64, 64)).detect(noise(80, 60))
    monkeypatch.setenv("SIMULATED_CUDA", fault)
    with caplog.at_level(logging.WARNING):
        made_up = detector((64, 64))
    function, code = fault.split()
    assert made_up._first.device is None
    assert "the processor draws its input and looks for candidates" in caplog.text
    assert f"{function} failed with {code}" in caplog.text
    np.testing.assert_array_equal(made_up.detect(noise(80, 60)).boxes, expected.boxes)
    assert list(made_up.device_milliseconds()) == ["copy_in", "network", "copy_out"]


def test_kernels_that_are_not_installed(
    detector: Callable[..., Scrfd],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(on_device, "_PTX", tmp_path / "kernels.ptx")
    assert detector((64, 64))._first.device is None
    assert f"No such file or directory: '{tmp_path}/kernels.ptx'" in caplog.text


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            lambda planes, outputs, chosen: (planes + 5 / 128, outputs, chosen),
            "differ by up to 5 of",
        ),
        (
            lambda planes, outputs, chosen: (np.roll(planes, 1, axis=2), outputs, chosen),
            "differ by up to 2",
        ),
        (lambda planes, outputs, chosen: (planes * np.nan, outputs, chosen), "differ by up to nan"),
        (
            lambda planes, outputs, chosen: (
                planes,
                outputs,
                chosen._replace(scores=chosen.scores[::-1]),
            ),
            "chooses 168 candidates",
        ),
    ],
    ids=["pixels", "shifted pixels", "no pixels", "candidates"],
)
def test_device_that_differs_from_the_processor(
    changed: Callable[..., Any],
    reason: str,
    detector: Callable[..., Scrfd],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Stands for a GPU or driver that runs the kernels wrongly."""
    trial = DeviceSearch.trial
    monkeypatch.setattr(DeviceSearch, "trial", lambda *arguments: changed(*trial(*arguments)))
    made_up = detector((64, 64))
    assert made_up._first.device is None
    assert reason in caplog.text


@pytest.mark.parametrize("weight_bits", [6, 7, 8, 16])
def test_processor_with_another_arithmetic(
    weight_bits: int,
    detector: Callable[..., Scrfd],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Stands for an OpenCV that scales with other weights, as builds for some processors do."""

    def places(source: int, target: int) -> tuple[Any, ...]:
        at = (np.arange(target) + 0.5) * source / target - 0.5
        first = np.floor(at)
        weight = np.rint((at - first) * 2**weight_bits) / 2**weight_bits
        both = np.clip([first, first + 1], 0, source - 1).astype(int)
        return *both, weight

    def scaled(image: Image, target: Image) -> None:
        (height, width), (source_height, source_width) = target.shape[:2], image.shape[:2]
        left, right, across = places(source_width, width)
        upper, lower, down = places(source_height, height)
        across, down = across[:, None], down[:, None, None]
        rows = image[:, left] * (1 - across) + image[:, right] * across
        target[:] = np.rint(rows[upper] * (1 - down) + rows[lower] * down)

    monkeypatch.setattr(letterbox, "scale_linear", scaled)
    assert detector((320, 320))._first.device is not None, caplog.text


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("cuMemAlloc_v2 2", "out of memory"),
        ("cuMemHostAlloc 2", "out of memory"),
        ("cuLaunchKernel 700", "illegal memory access"),
        ("cuMemcpyHtoDAsync_v2 700", "illegal memory access"),
        ("cuStreamSynchronize 700", "illegal memory access"),
    ],
)
def test_failure_while_it_runs(
    fault: str,
    message: str,
    detector: Callable[..., Scrfd],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_up = detector((64, 64))
    image = noise(1000, 1000)  # larger than any before, so memory is needed
    (expected,) = made_up.decode(map(made_up.infer, made_up.prepare([image])))
    monkeypatch.setenv("SIMULATED_CUDA", fault)
    with pytest.raises(ModelError, match=rf"made_up\.engine: .*{message}"):
        made_up.detect(image)
    monkeypatch.delenv("SIMULATED_CUDA")
    np.testing.assert_array_equal(made_up.detect(image).boxes, expected.boxes)


def test_candidates_do_not_depend_on_their_order(
    detector: Callable[..., Scrfd], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real device threads count candidates in any order; here in that of their numbers."""
    outputs = scrfd_outputs(64, 64)
    made_up = detector((64, 64), outputs)
    search = search_of(made_up)
    copy_out = search._copy_out

    def shuffled(begin: int, end: int) -> int:
        total = copy_out(begin, end)
        np.random.default_rng(0).shuffle(search._candidates[:total])
        return total

    monkeypatch.setattr(search, "_copy_out", shuffled)
    ((found,),) = search.search({0: noise(64, 64)}, [[(0, plan_views(64, 64, 64, 64).views)]], 0.5)
    assert_same(found, made_up._first.chosen(outputs, 0.5))
