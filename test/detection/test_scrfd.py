# SPDX-License-Identifier: Apache-2.0
"""SCRFD's outputs are matched by shape in every export, and decoded as in the paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper
from onnx_files import Recorded, scrfd_outputs, write_detector, write_graph, write_recognizer
from pipelines import detector_of

from scrfd_ros.config import DetectorConfig
from scrfd_ros.detection.levels import match_outputs
from scrfd_ros.detection.scrfd import BatchOutputs, Scrfd
from scrfd_ros.detection.search import Search
from scrfd_ros.errors import ModelError, ScrfdError
from scrfd_ros.inference.network import Tensor
from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork

RANDOM = np.random.default_rng(0)
FIVE_STRIDES = (8, 16, 32, 64, 128)

LAYOUTS = [
    pytest.param({"landmarks": True}, id="9 outputs"),
    pytest.param({"landmarks": False}, id="6 outputs"),
    pytest.param({"strides": FIVE_STRIDES}, id="15 outputs"),
    pytest.param({"strides": FIVE_STRIDES, "landmarks": False}, id="10 outputs"),
]
SIZES = [(640, 640), (320, 320), (640, 384), (384, 640), (128, 1280)]


def shapes_of(outputs: Mapping[str, NDArray[np.float32]]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in outputs.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("numeric", [False, True], ids=["named", "numeric"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_recognizes_outputs(
    layout: dict[str, bool | Sequence[int]], rank: int, numeric: bool, width: int, height: int
) -> None:
    shapes = shapes_of(
        scrfd_outputs(width, height, rank=rank, numeric=numeric, **layout)  # type: ignore[arg-type]
    )
    # Exports list them by kind, then by stride.
    kinds = list(np.array(list(shapes)).reshape(-1, 5 if layout.get("strides") else 3))
    for _ in range(3):
        levels = match_outputs(shapes, width, height)
        assert [level.score for level in levels] == list(kinds[0])
        assert [level.box for level in levels] == list(kinds[1])
        landmarks = kinds[2] if layout.get("landmarks", True) else [None] * len(levels)
        assert [level.landmark for level in levels] == list(landmarks)
        assert [level.stride for level in levels] == list(FIVE_STRIDES[: len(levels)])
        assert {level.anchors for level in levels} == {1 if layout.get("strides") else 2}
        assert [level.columns for level in levels] == [width // level.stride for level in levels]
        # The order of the outputs does not matter.
        shapes = {name: shapes[name] for name in RANDOM.permutation(list(shapes)).tolist()}


NINE = shapes_of(scrfd_outputs(640, 640))


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        pytest.param({}, "0 score outputs", id="none"),
        pytest.param({"516": (1, 512)}, "cannot place output '516'", id="an embedding"),
        pytest.param(
            {**NINE, "score_8": (1, 12800, 2)},
            "cannot place output 'score_8'",
            id="two classes",
        ),
        pytest.param(
            {**NINE, "score_8": (1, 2, 80, 80)}, "cannot place output 'score_8'", id="rank 4"
        ),
        pytest.param({**NINE, "flag": ()}, "cannot place output 'flag'", id="a scalar"),
        pytest.param(
            {**NINE, "again": (12800, 1)}, "cannot place output 'again'", id="two of one kind"
        ),
        pytest.param(
            {name: shape for name, shape in NINE.items() if name != "score_16"},
            "2 score outputs",
            id="a score is missing",
        ),
        pytest.param(
            {name: shape for name, shape in NINE.items() if name != "bbox_16"},
            "stride 16 needs outputs of 3200 rows",
            id="a box is missing",
        ),
        pytest.param(
            {name: shape for name, shape in NINE.items() if name != "kps_32"},
            "stride 32 needs outputs of 800 rows",
            id="landmarks are missing",
        ),
        pytest.param(
            {**NINE, "bbox_64": (1, 200, 4)}, "outputs left over", id="a box more than scores"
        ),
        pytest.param(
            {**NINE, "kps_64": (1, 200, 10)}, "outputs left over", id="landmarks more than scores"
        ),
        pytest.param(
            shapes_of(scrfd_outputs(320, 320)),
            "stride 8 needs outputs of 12800 rows",
            id="of another input size",
        ),
        pytest.param(
            {name: (4, *shape[1:]) for name, shape in NINE.items()},
            "stride 32 needs outputs of 800 rows",
            id="a batch of four",
        ),
    ],
)
def test_refuses_other_outputs(shapes: dict[str, tuple[int, ...]], reason: str) -> None:
    with pytest.raises(ModelError) as caught:
        match_outputs(shapes, 640, 640)
    message = str(caught.value)
    assert f"at 640x640: {reason}." in message
    assert "Expected 6 or 9 outputs" in message
    for name, shape in shapes.items():
        assert f"{name} {list(shape)}" in message


def slow_decode(
    outputs: Mapping[str, NDArray[np.float32]],
    size: tuple[int, int],
    strides: Sequence[int],
    anchors: int,
    threshold: float,
    scale: float,
) -> list[tuple[float, list[float], list[float]]]:
    """Score, box and landmarks of every anchor, one by one, best first; outputs named."""
    faces = []
    for stride in strides:
        row = 0
        for y in range(0, size[1], stride):
            for x in range(0, size[0], stride):
                for _ in range(anchors):
                    score = outputs[f"score_{stride}"].reshape(-1)[row].item()
                    left, top, right, bottom = outputs[f"bbox_{stride}"].reshape(-1, 4)[row]
                    box = [x - left * stride, y - top * stride]
                    box += [x + right * stride, y + bottom * stride]
                    points = []
                    if f"kps_{stride}" in outputs:
                        offsets = outputs[f"kps_{stride}"].reshape(-1, 10)[row]
                        for point in range(5):
                            points.append(x + offsets[2 * point] * stride)
                            points.append(y + offsets[2 * point + 1] * stride)
                    row += 1
                    if score >= threshold:
                        box = [value.item() / scale for value in box]
                        points = [value.item() / scale for value in points]
                        faces.append((score, box, points))
        assert row == len(outputs[f"bbox_{stride}"].reshape(-1, 4))
    return sorted(faces, reverse=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize(
    ("size", "image_size", "scale"),
    [
        pytest.param((128, 128), (128, 128), 1.0, id="not scaled"),
        pytest.param((256, 128), (512, 200), 0.5, id="halved, landscape"),
        pytest.param((128, 256), (40, 128), 2.0, id="doubled, portrait"),
    ],
)
def test_decodes_every_anchor(
    tmp_path: Path,
    layout: dict[str, bool | Sequence[int]],
    rank: int,
    size: tuple[int, int],
    image_size: tuple[int, int],
    scale: float,
) -> None:
    outputs = scrfd_outputs(*size, rank=rank, **layout)  # type: ignore[arg-type]
    shuffled = {name: outputs[name] for name in RANDOM.permutation(list(outputs)).tolist()}
    network = OnnxRuntimeNetwork(write_detector(tmp_path / "detector.onnx", shuffled))
    # No IoU is greater than 1: nothing is suppressed.
    detector = detector_of(network, size, score_threshold=0.4, nms_threshold=1.0)
    faces = detector.detect(np.zeros((image_size[1], image_size[0], 3), np.uint8))

    five = "strides" in layout
    expected = slow_decode(
        outputs, size, FIVE_STRIDES if five else (8, 16, 32), 1 if five else 2, 0.4, scale
    )
    assert len(faces) == len(expected) > 50
    np.testing.assert_array_equal(faces.scores, np.array([s for s, _, _ in expected], np.float32))
    np.testing.assert_allclose(faces.boxes, [box for _, box, _ in expected], atol=1e-3)
    assert detector.has_landmarks == (faces.landmarks is not None) == layout.get("landmarks", True)
    if faces.landmarks is not None:
        np.testing.assert_allclose(
            faces.landmarks.reshape(-1, 10), [points for _, _, points in expected], atol=1e-3
        )


BLACK = np.zeros((32, 32, 3), np.uint8)

Detector = Callable[..., Scrfd]


@pytest.fixture
def detector(tmp_path: Path) -> Detector:
    """A detector at 32x32 that finds these scores at stride 8, two boxes of 8x8 per location."""

    def make(scores: Sequence[float], **options: float) -> Scrfd:
        outputs = scrfd_outputs(32, 32)
        for name, array in outputs.items():
            array[:] = 0 if name.startswith("score") else 0.5
        outputs["score_8"][0, : len(scores), 0] = scores
        path = write_detector(tmp_path / "detector.onnx", outputs)
        return detector_of(OnnxRuntimeNetwork(path), (32, 32), **options)  # type: ignore[arg-type]

    return make


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_score_threshold_is_inclusive(detector: Detector, threshold: float) -> None:
    exactly = np.float32(threshold)
    below = np.nextafter(exactly, np.float32(0))
    found = detector([exactly, 0, below, 0], score_threshold=threshold).detect(BLACK)
    assert found.scores.tolist() == [exactly]


def test_best_first_and_at_most_max_faces(detector: Detector) -> None:
    scores = [0.6, 0, 0.9, 0, 0.7, 0, 0.8, 0]
    scrfd = detector(scores, max_faces=3)
    np.testing.assert_allclose(scrfd.detect(BLACK).scores, [0.9, 0.8, 0.7])
    np.testing.assert_array_equal(scrfd.detect(BLACK).boxes[0], [4, -4, 12, 4])
    scrfd.config = replace(scrfd.config, max_faces=0)
    np.testing.assert_allclose(scrfd.detect(BLACK).scores, [0.9, 0.8, 0.7, 0.6])


def test_max_faces_counts_after_suppression(detector: Detector) -> None:
    # Both anchors of a location have the same box.
    scores = [0.9, 0.8, 0.7, 0.6]
    np.testing.assert_allclose(detector(scores, max_faces=2).detect(BLACK).scores, [0.9, 0.7])


def test_thresholds_can_change_between_calls(detector: Detector) -> None:
    scrfd = detector([0.9, 0.8, 0.3])
    assert len(scrfd.detect(BLACK)) == 1
    scrfd.config = replace(scrfd.config, nms_threshold=1.0)
    assert len(scrfd.detect(BLACK)) == 2
    scrfd.config = replace(scrfd.config, score_threshold=0.2)
    assert len(scrfd.detect(BLACK)) == 3


def test_equal_scores_keep_their_order(detector: Detector) -> None:
    found = detector([0.5, 0] * 16).detect(BLACK)
    x = np.arange(0, 32, 8)
    np.testing.assert_array_equal(found.centers, [(at, row) for row in x for at in x])
    # More than an insertion sort handles, which is stable anyway.
    found = detector([0.5, 0.6] * 16, nms_threshold=1.0).detect(BLACK)
    np.testing.assert_array_equal(found.centers, [(at, row) for row in x for at in x] * 2)


@pytest.mark.parametrize(
    ("output", "value"), [("score_8", np.inf), ("bbox_8", np.inf), ("kps_8", np.nan)]
)
def test_only_faces_that_are_not_finite_are_left_out(
    tmp_path: Path, output: str, value: float
) -> None:
    outputs = scrfd_outputs(32, 32)
    for name, array in outputs.items():
        array[:] = 0 if name.startswith("score") else 0.5
    outputs["score_8"][0, [0, 2, 4], 0] = [0.7, 0.8, 0.9]
    outputs[output][0, 2, 0] = value
    network = OnnxRuntimeNetwork(write_detector(tmp_path / "half.onnx", outputs))
    found = detector_of(network, (32, 32)).detect(BLACK)
    np.testing.assert_allclose(found.scores, [0.9, 0.7])
    assert found.boxes[:, 0].tolist() == [12, -4]


def test_nothing_found(detector: Detector) -> None:
    faces = detector([0.49]).detect(BLACK)
    assert len(faces) == 0
    assert faces.boxes.shape == (0, 4)
    assert faces.landmarks is not None and faces.landmarks.shape == (0, 5, 2)


def test_result_outlives_the_next_call(detector: Detector) -> None:
    scrfd = detector([0.9])
    first = scrfd.detect(BLACK)
    before = first.boxes.copy()
    scrfd.detect(np.zeros((64, 64, 3), np.uint8))
    np.testing.assert_array_equal(first.boxes, before)


def test_a_batch_is_decoded_by_what_it_was_prepared_by(detector: Detector) -> None:
    scrfd = detector([0.9, 0.8, 0.3])
    wide = np.zeros((32, 64, 3), np.uint8)
    batches = scrfd.prepare([BLACK, wide], replace(scrfd.config, max_faces=1, tiles=(2, 1)))
    answers = []

    def inferred() -> Iterator[BatchOutputs]:
        for batch in batches:
            scrfd.config = replace(scrfd.config, score_threshold=1.0)
            answers.append(scrfd.infer(batch))
            yield answers[-1]

    found = scrfd.decode(inferred())
    assert [faces.scores.tolist() for faces in found] == [[np.float32(0.9)]] * 2
    assert [answer.batch.images for answer in answers] == [(0,)] * 3 + [(1,)] * 3
    with pytest.raises(ValueError, match="a later batch has overwritten this one"):
        scrfd.decode(answers)
    with pytest.raises(ValueError, match="a later batch has overwritten this one"):
        scrfd.infer(answers[0].batch)
    own = answers[0].batch.with_blob(np.zeros((1, 3, 32, 32), np.float32))
    scrfd.detect(wide)
    (faces,) = scrfd.decode([scrfd.infer(own)])
    assert len(faces) == 1
    with pytest.raises(ValueError, match="cannot change to"):
        scrfd.prepare([wide], DetectorConfig(input_size=(64, 64)))
    assert scrfd.decode([]) == scrfd.detect_all([]) == []


@pytest.mark.parametrize("normalizes_input", [False, True])
def test_network_gets_the_pixels_it_expects(tmp_path: Path, normalizes_input: bool) -> None:
    outputs = scrfd_outputs(32, 32)
    for array in outputs.values():
        array[:] = 0
    # Every score at stride 8 is the mean of the normalized input, the rest is 0.
    del outputs["score_8"]
    nodes = []
    constants = {f"{name} value": array for name, array in outputs.items()}
    planes = "input.1"
    if normalizes_input:
        nodes += [
            helper.make_node("Sub", [planes, "mean"], ["centerd"]),
            helper.make_node("Mul", ["centerd", "factor"], ["scaled"]),
        ]
        constants["mean"] = np.array(127.5, np.float32)
        constants["factor"] = np.array(1 / 128, np.float32)
        planes = "scaled"
    nodes += [
        helper.make_node("ReduceMean", [planes], ["mean of all"], keepdims=0),
        helper.make_node("Expand", ["mean of all", "shape"], ["score_8"]),
        *(helper.make_node("Identity", [f"{name} value"], [name]) for name in outputs),
    ]
    path = write_graph(
        tmp_path / "detector.onnx",
        nodes,
        (1, 3, 32, 32),
        {"score_8": (32, 1), **shapes_of(outputs)},
        {**constants, "shape": np.array([32, 1], np.int64)},
    )
    network = OnnxRuntimeNetwork(path)
    assert network.normalizes_input == normalizes_input
    scrfd = detector_of(network, (32, 32))
    assert len(scrfd.detect(np.full((32, 32, 3), 128, np.uint8))) == 0
    scores = scrfd.detect(np.full((32, 32, 3), 255, np.uint8)).scores
    np.testing.assert_allclose(scores, [(255 - 127.5) / 128] * 16, rtol=1e-5)


@pytest.mark.parametrize(
    "size",
    [(640, 600), (600, 640), (0, 640), (640, 0), (-32, 640), (16, 16)],
    ids=lambda size: f"{size[0]}x{size[1]}",
)
def test_refuses_input_sizes_off_the_grid(tmp_path: Path, size: tuple[int, int]) -> None:
    network = OnnxRuntimeNetwork(write_detector(tmp_path / "any.onnx", scrfd_outputs(32, 32)))
    with pytest.raises(ScrfdError, match=r"detector\.input_size: \[.* multiples of 32"):
        detector_of(network, size)


def test_the_input_size_stays(detector: Detector) -> None:
    scrfd = detector([0.9])
    with pytest.raises(ValueError, match=r"cannot change to 64x32: load the detector again"):
        scrfd.config = replace(scrfd.config, input_size=(64, 32))
    assert len(scrfd.detect(BLACK)) == 1


@pytest.mark.parametrize(
    ("input_shape", "message"),
    [
        pytest.param(
            (1, 3, 640, 640),
            r"takes images of 640x640 only, not 320x320; .* to \[640, 640\]",
            id="fixed to another size",
        ),
        pytest.param(
            ("N", 3, 320, 640),
            r"takes images of 640x320 only, not 320x320; .* to \[640, 320\]",
            id="fixed to another width",
        ),
        pytest.param(
            (1, 3, 640, 320),
            r"takes images of 320x640 only, not 320x320; .* to \[320, 640\]",
            id="fixed to another height",
        ),
        pytest.param((4, 3, 320, 320), "takes 4 images at once", id="a batch of four"),
        pytest.param(
            (1, 320, 320, 3),
            r"one input \[1, 3, height, width\]; found input\.1 \[1, 320, 320, 3\]",
            id="channels last",
        ),
        pytest.param((1, 1, 320, 320), r"found input\.1 \[1, 1, 320, 320\]", id="gray"),
        pytest.param(("N", 320), r"found input\.1 \[None, 320\]", id="not images"),
    ],
)
def test_refuses_inputs(tmp_path: Path, input_shape: tuple[int | str, ...], message: str) -> None:
    path = write_detector(tmp_path / "other.onnx", scrfd_outputs(320, 320), input_shape)
    with pytest.raises(ModelError, match=message) as caught:
        detector_of(OnnxRuntimeNetwork(path), (320, 320))
    assert str(caught.value).startswith(f"{path}: ")


def test_refuses_a_second_input(tmp_path: Path) -> None:
    network = Recorded(
        OnnxRuntimeNetwork(write_detector(tmp_path / "two.onnx", scrfd_outputs(32, 32)))
    )
    network.inputs = (*network.inputs, Tensor("sizes", (1, 2)))
    with pytest.raises(ModelError, match=r"found input\.1 \[1, 3, None, None\], sizes \[1, 2\]$"):
        detector_of(network, (32, 32))


@pytest.mark.parametrize(
    "input_shape",
    [
        pytest.param((1, 3, 64, 32), id="all fixed"),
        pytest.param((1, 3, "height", "width"), id="batch of 1, free size"),
        pytest.param(("N", 3, 64, 32), id="free batch, fixed size"),
        pytest.param(("N", "C", "height", "width"), id="all free"),
    ],
)
def test_takes_fixed_and_free_inputs(tmp_path: Path, input_shape: tuple[int | str, ...]) -> None:
    outputs = scrfd_outputs(32, 64)
    path = write_detector(tmp_path / "detector.onnx", outputs, input_shape)
    scrfd = detector_of(OnnxRuntimeNetwork(path), (32, 64), score_threshold=0.0, nms_threshold=1.0)
    anchors = math.prod((4, 8, 2)) + math.prod((2, 4, 2)) + math.prod((1, 2, 2))
    assert len(scrfd.detect(BLACK)) == anchors


@pytest.mark.parametrize(
    "declared",
    [
        pytest.param(("rows", "columns"), id="free"),
        # det_500m declares the rows of 640x640 at any input size.
        pytest.param((12800, 1), id="wrong"),
    ],
)
def test_declared_output_shapes_do_not_matter(
    tmp_path: Path, declared: tuple[int | str, ...]
) -> None:
    outputs = scrfd_outputs(32, 32, rank=2)
    path = write_detector(
        tmp_path / "detector.onnx", outputs, declared={name: declared for name in outputs}
    )
    assert detector_of(OnnxRuntimeNetwork(path), (32, 32)).has_landmarks


def test_a_recognizer_is_not_a_detector(tmp_path: Path) -> None:
    path = write_recognizer(tmp_path / "w600k_mbf.onnx")
    message = "not those of an SCRFD network at 640x320: their number is 1. .* 516 \\[1, 512\\]$"
    with pytest.raises(ModelError, match=message) as caught:
        detector_of(OnnxRuntimeNetwork(path), (640, 320))
    assert str(caught.value).startswith(f"{path}: ")


def test_another_network_is_not_a_detector(tmp_path: Path) -> None:
    # Six outputs, as an SCRFD network can have, but of other shapes.
    outputs = {f"feature_{row}": np.zeros((1, 255, 8, 8), np.float32) for row in range(6)}
    path = write_detector(tmp_path / "yolo.onnx", outputs)
    with pytest.raises(ModelError, match="cannot place output 'feature_0'") as caught:
        Scrfd(OnnxRuntimeNetwork(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "feature_5 [1, 255, 8, 8]" in str(caught.value)


@pytest.mark.parametrize("is_free", [True, False])
def test_a_network_of_free_size_is_tried_with_a_small_input(
    detector_path: Callable[[str], Path], is_free: bool
) -> None:
    network = Recorded(OnnxRuntimeNetwork(detector_path("500m" if is_free else "2.5g")))
    detector = detector_of(network, (640, 640))
    assert network.shapes == [(1, 3, 64, 64) if is_free else (1, 3, 640, 640)]
    assert [level.columns for level in detector.levels] == [80, 40, 20]


@pytest.mark.parametrize("change", [-1, 1])
def test_scores_of_another_number_are_refused(tmp_path: Path, change: int) -> None:
    path = write_detector(tmp_path / "any.onnx", scrfd_outputs(64, 32), (1, 3, 32, 64))
    search = Search(OnnxRuntimeNetwork(path), (64, 32))
    (score, *_) = (level.score for level in search.levels)
    outputs = scrfd_outputs(64, 32)
    outputs[score] = np.resize(outputs[score], (64 + change, 1))
    with pytest.raises(
        ModelError, match=rf"{64 + change} scores of stride 8 at 64x32, expected 64"
    ):
        search.chosen(outputs, 0.5)
