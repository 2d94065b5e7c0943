# SPDX-License-Identifier: Apache-2.0
"""Decoding equals a loop over all anchors, for any outputs of the network.

The outputs are made up: no real network answers with numbers right at the threshold, or with none
at all, when it is asked to.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_files import scrfd_outputs, write_detector
from pipelines import detector_of
from slow_detector import slow_decode, slow_nms

from scrfd_ros.detection.scrfd import BatchOutputs, Scrfd
from scrfd_ros.detection.views import plan_views
from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork

THRESHOLD = 0.4
BELOW = np.nextafter(np.float32(THRESHOLD), np.float32(0))
NOT_NUMBERS = (math.nan, math.inf, -math.inf)
LARGEST_FP16 = 65504.0

SIZES = [(32, 32), (96, 64), (64, 128), (128, 128)]
THREE, FIVE = (8, 16, 32), (8, 16, 32, 64, 128)
LAYOUTS = [
    *((size, THREE, landmarks) for size in SIZES for landmarks in (True, False)),
    *((SIZES[-1], FIVE, landmarks) for landmarks in (True, False)),
]

special_scores = st.sampled_from((np.float32(THRESHOLD), BELOW, 0.5, 1.0, *NOT_NUMBERS))
special_distances = st.sampled_from((0.0, -1.0, LARGEST_FP16, 3e38, *NOT_NUMBERS))


@st.composite
def specials(draw: st.DrawFn) -> tuple[str, float, int, float]:
    """Kind of an output, where in it (0 to 1), how many in a row, and the number to put there."""
    kind = draw(st.sampled_from(("score", "bbox", "kps")))
    value = draw(special_scores if kind == "score" else special_distances)
    return kind, draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(1, 4)), value


@pytest.fixture(scope="module")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A detector for a layout; the outputs of its network are not used."""
    folder: Path = tmp_path_factory.mktemp("detectors")

    @cache
    def detector(size: tuple[int, int], strides: tuple[int, ...], landmarks: bool) -> Scrfd:
        path = folder / f"{size[0]}x{size[1]}_{len(strides)}_{landmarks}.onnx"
        outputs = scrfd_outputs(*size, strides=strides, landmarks=landmarks)
        return detector_of(
            OnnxRuntimeNetwork(write_detector(path, outputs)), size, score_threshold=THRESHOLD
        )

    return detector


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numbers that are too large
@given(
    layout=st.sampled_from(LAYOUTS),
    rank=st.sampled_from((2, 3)),
    seed=st.integers(0, 2**32 - 1),
    faces=st.integers(0, 40),
    odd=st.lists(specials(), max_size=6),
    image=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    tiles=st.sampled_from(((1, 1), (2, 1), (2, 3))),
    large_faces=st.booleans(),
    nms_threshold=st.sampled_from((0.0, 0.4, 1.0)),
    max_faces=st.sampled_from((0, 0, 1, 5)),
)
def test_equals_a_loop_over_all_anchors(
    detectors: Any,
    layout: tuple[tuple[int, int], tuple[int, ...], bool],
    rank: int,
    seed: int,
    faces: int,
    odd: list[tuple[str, float, int, float]],
    image: tuple[int, int],
    tiles: tuple[int, int],
    large_faces: bool,
    nms_threshold: float,
    max_faces: int,
) -> None:
    size, strides, landmarks = layout
    detector: Scrfd = detectors(*layout)
    detector.config = replace(
        detector.config,
        tiles=tiles,
        large_faces=large_faces,
        nms_threshold=nms_threshold,
        max_faces=max_faces,
    )
    views = plan_views(*image, *size, tiles, large_faces).views

    random = np.random.default_rng(seed)
    outputs = []
    for number in range(views[-1].canvas + 1):
        arrays = scrfd_outputs(
            *size, strides=strides, landmarks=landmarks, rank=rank, seed=seed + number
        )
        scores = [array for name, array in arrays.items() if name.startswith("score")]
        for array in scores:
            array *= BELOW
        for _ in range(faces):
            array = scores[random.integers(len(scores))].reshape(-1)
            array[random.integers(len(array))] = random.random()
        outputs.append(arrays)
    for kind, where, count, value in odd:
        arrays = outputs[random.integers(len(outputs))]
        names = [name for name in arrays if name.startswith(kind)]
        if names:
            array = arrays[names[random.integers(len(names))]].reshape(-1)
            array[int(where * len(array)) :][:count] = value

    batches = detector.prepare([np.zeros((*image[::-1], 3), np.uint8)])
    (found,) = detector.decode(
        BatchOutputs(batch, (arrays,)) for batch, arrays in zip(batches, outputs, strict=True)
    )
    expected = slow_decode(outputs, views, size, score_threshold=THRESHOLD)
    kept = slow_nms([face.box for face in expected], nms_threshold)[: max_faces or None]
    best = [expected[row] for row in kept]
    assert found.scores.tolist() == [face.score for face in best]
    np.testing.assert_array_equal(found.boxes, np.reshape([face.box for face in best], (-1, 4)))
    assert (found.landmarks is not None) == landmarks
    if found.landmarks is not None:
        np.testing.assert_array_equal(
            found.landmarks, np.reshape([face.landmarks for face in best], (-1, 5, 2))
        )
