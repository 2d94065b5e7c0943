# SPDX-License-Identifier: Apache-2.0
"""Networks with the errors that engines can have are refused, correct ones are accepted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.engines.agreement import (
    LIMITS,
    Agreement,
    compare_detectors,
    compare_outputs,
    compare_recognizers,
)
from scrfd_ros.inference.network import Network
from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork
from scrfd_ros.recognition.alignment import align_faces

Outputs = dict[str, NDArray[np.float32]]


class Altered:
    """Wraps a network and changes its outputs."""

    def __init__(self, network: Network, alter: Callable[[Outputs], Outputs]) -> None:
        self._network = network
        self._alter = alter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> Outputs:
        return self._alter(self._network(inputs))


@pytest.fixture(scope="module")
def detector(detector_path: Callable[[str], Path]) -> Network:
    return OnnxRuntimeNetwork(detector_path("500m"))


@pytest.fixture(scope="module")
def recognizer(recognizer_path: Callable[[str], Path]) -> Network:
    return OnnxRuntimeNetwork(recognizer_path("w600k_mbf"))


@pytest.fixture(scope="module")
def people(image: Callable[[str], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return image("t1.jpg")


@pytest.fixture(scope="module")
def crops(detector: Network, people: NDArray[np.uint8]) -> NDArray[np.uint8]:
    landmarks = Scrfd(detector).detect(people).landmarks
    assert landmarks is not None
    return align_faces(people, landmarks)


def change(part: str, function: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Any:
    """Change the outputs whose name begins with `part`."""

    def alter(outputs: Outputs) -> Outputs:
        return {
            name: function(array.copy()) if name.startswith(part) else array
            for name, array in outputs.items()
        }

    return alter


def one_nan(array: NDArray[np.float32]) -> NDArray[np.float32]:
    array.flat[5] = np.nan
    return array


def loud(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """A face where there is none."""
    array.flat[0] = 0.9
    return array


def two_pixels_off(outputs: Outputs) -> Outputs:
    """All boxes moved to the right by two pixels of the network's input; faces are 50 wide."""
    result = dict(outputs)
    for stride in (8, 16, 32):
        move = np.array([-2, 0, 2, 0], np.float32) / stride
        result[f"bbox_{stride}"] = outputs[f"bbox_{stride}"] + move
    return result


def half_missing(outputs: Outputs) -> Outputs:
    """Faces in the left half of the image, a square, score 0."""
    result = dict(outputs)
    for stride in (8, 16, 32):
        scores = outputs[f"score_{stride}"]
        side = math.isqrt(scores.size // 2)
        grid = scores.reshape(side, side, 2).copy()
        grid[:, : side // 2] = 0
        result[f"score_{stride}"] = grid.reshape(1, -1, 1)
    return result


def strides_swapped(outputs: Outputs) -> Outputs:
    """Each kind's values in the tensors of the next stride, repeated or cut to fit."""
    following = {"8": "16", "16": "32", "32": "8"}
    result = {}
    for name, array in outputs.items():
        kind, _, stride = name.partition("_")
        result[name] = np.resize(outputs[f"{kind}_{following[stride]}"], array.shape)
    return result


def renamed(outputs: Outputs) -> Outputs:
    """Names in another order, as TensorRT may list them; shapes tell which is which."""
    return dict(zip(outputs, reversed(outputs.values()), strict=True))


def slightly(outputs: Outputs) -> Outputs:
    """Values rounded to float16."""
    return {name: array.astype(np.float16).astype(np.float32) for name, array in outputs.items()}


def failed(agreement: Agreement) -> set[str]:
    """The figures named in failures."""
    json.dumps(agreement.figures, allow_nan=False)
    assert agreement.accepted == (not agreement.failures)
    return {failure.partition(":")[0] for failure in agreement.failures}


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize(
    "alter", [pytest.param(dict, id="itself"), slightly, renamed], ids=lambda alter: alter.__name__
)
def test_accepted_detectors(
    alter: Callable[[Outputs], Outputs],
    precision: str,
    detector: Network,
    people: NDArray[np.uint8],
) -> None:
    candidate = Altered(detector, alter)
    agreement = compare_detectors(candidate, detector, [people], precision=precision)
    assert not failed(agreement)
    assert agreement.figures["faces"] == 6
    assert agreement.figures["min_iou"] > 0.99


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize(
    ("alter", "failures"),
    [
        pytest.param(change("bbox_32", one_nan), {"non finite values"}, id="one NaN"),
        pytest.param(change("", np.zeros_like), {"missed faces"}, id="zeros"),
        pytest.param(change("score", loud), {"extra faces"}, id="a face too many"),
        pytest.param(half_missing, {"missed faces"}, id="half of the faces missing"),
        pytest.param(
            change("score", lambda array: array * 0.8), {"max score difference"}, id="scores"
        ),
        pytest.param(
            change("kps", lambda array: array + 0.5), {"max landmark distance"}, id="landmarks"
        ),
        pytest.param(
            change("", lambda array: array[:, ::-1]),
            {"missed faces", "extra faces"},
            id="rows reversed",
        ),
        pytest.param(strides_swapped, {"missed faces", "extra faces"}, id="strides swapped"),
    ],
)
def test_refused_detectors(
    alter: Callable[[Outputs], Outputs],
    failures: set[str],
    precision: str,
    detector: Network,
    people: NDArray[np.uint8],
) -> None:
    agreement = compare_detectors(Altered(detector, alter), detector, [people], precision=precision)
    assert failed(agreement) == failures


def test_boxes_two_pixels_off(detector: Network, people: NDArray[np.uint8]) -> None:
    candidate = Altered(detector, two_pixels_off)
    for precision in ("fp32", "fp16"):
        agreement = compare_detectors(candidate, detector, [people], precision=precision)
        assert failed(agreement) == {"min iou"}
        (sentence,) = agreement.failures
        assert sentence == f"min iou: {agreement.figures['min_iou']:.4g}, expected at least 0.98"


def test_face_on_the_threshold(detector: Network, people: NDArray[np.uint8]) -> None:
    lowest = Scrfd(detector).detect(people).scores.min()

    def scoring(score: float) -> Network:
        return Altered(detector, change("score", lambda array: array * (score / lowest)))

    above, below = scoring(0.501), scoring(0.499)
    for candidate, reference, faces in ((below, above, 6), (above, below, 5)):
        agreement = compare_detectors(candidate, reference, [people], precision="fp16")
        assert not failed(agreement)
        assert agreement.figures["faces"] == faces
        assert agreement.figures["max_score_difference"] == pytest.approx(0.002, abs=2e-4)


def test_image_without_faces_tells_nothing(detector: Network) -> None:
    nobody = np.zeros((480, 640, 3), np.uint8)
    assert failed(compare_detectors(detector, detector, [nobody])) == {"faces"}


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize(
    ("function", "failures"),
    [
        pytest.param(np.copy, set(), id="itself"),
        pytest.param(one_nan, {"non finite values"}, id="one NaN"),
        pytest.param(np.zeros_like, {"min cosine", "max norm difference"}, id="zeros"),
        pytest.param(lambda array: array * 2, {"max norm difference"}, id="too long"),
        pytest.param(
            # The first batch has four of six faces; the noise that ArcFace tries has two rows.
            lambda array: np.roll(array, 1, axis=0) if len(array) == 4 else array,
            {"min cosine"},
            id="embeddings of other faces",
        ),
    ],
)
def test_recognizers(
    function: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    failures: set[str],
    precision: str,
    recognizer: Network,
    crops: NDArray[np.uint8],
) -> None:
    candidate = Altered(recognizer, change("", function))
    agreement = compare_recognizers(candidate, recognizer, crops, precision)
    assert failures <= failed(agreement) <= failures | {"max norm difference"}
    assert agreement.accepted == (not failures)


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize(
    ("alter", "failures"),
    [
        pytest.param(dict, set(), id="itself"),
        pytest.param(slightly, set(), id="slightly"),
        pytest.param(change("516", one_nan), {"non finite values"}, id="one NaN"),
        pytest.param(change("516", np.zeros_like), {"min cosine"}, id="zeros"),
        pytest.param(
            change("516", lambda array: array[::-1]), {"min cosine"}, id="rows of a batch swapped"
        ),
    ],
)
def test_outputs(
    alter: Callable[[Outputs], Outputs], failures: set[str], precision: str, recognizer: Network
) -> None:
    noise = np.random.default_rng(0).standard_normal((2, 3, 112, 112)).astype(np.float32)
    candidate = Altered(recognizer, alter)
    agreement = compare_outputs(candidate, recognizer, {"input.1": noise}, precision)
    assert failures <= failed(agreement) <= failures | {"max relative difference"}
    assert agreement.accepted == (not failures)


@pytest.mark.parametrize(
    "alter",
    [
        pytest.param(lambda outputs: {"517": outputs["516"]}, id="another name"),
        pytest.param(lambda outputs: {"516": outputs["516"][:1]}, id="another shape"),
    ],
)
def test_other_outputs(alter: Callable[[Outputs], Outputs], recognizer: Network) -> None:
    noise = np.zeros((2, 3, 112, 112), np.float32)
    agreement = compare_outputs(Altered(recognizer, alter), recognizer, {"input.1": noise})
    assert not agreement.accepted
    assert agreement.failures[0].endswith("expected {'516': (2, 512)}")
