# SPDX-License-Identifier: Apache-2.0
"""ArcFace returns a unit-length embedding for every face, in batches if the network takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from onnx_files import Recorded, scrfd_outputs, write_detector, write_recognizer

from scrfd_ros.errors import ModelError
from scrfd_ros.inference.network import Network
from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork
from scrfd_ros.recognition.arcface import ArcFace

CROPS = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), np.uint8)
# Smooth, so that the recognizers of onnx_files.py, which average, tell them apart.
CROPS = np.stack([cv2.GaussianBlur(crop, (0, 0), 20) for crop in CROPS])


@pytest.fixture(scope="module")
def mbf(recognizer_path: Callable[[str], Path]) -> OnnxRuntimeNetwork:
    return OnnxRuntimeNetwork(recognizer_path("w600k_mbf"))


def test_real_network_takes_faces_in_batches(mbf: OnnxRuntimeNetwork) -> None:
    network = Recorded(mbf)
    arcface = ArcFace(network)
    assert arcface.takes_batches and arcface.dimensions == 512
    network.shapes.clear()
    embeddings, norms = arcface.embed(CROPS)
    assert network.shapes == [(4, 3, 112, 112), (1, 3, 112, 112)]
    assert embeddings.shape == (5, 512) and embeddings.dtype == np.float32
    assert norms.shape == (5,) and norms.dtype == np.float32
    for row, crop in enumerate(CROPS):
        alone, norm = arcface.embed(crop[None])
        np.testing.assert_allclose(alone[0], embeddings[row], atol=1e-5)
        np.testing.assert_allclose(norm[0], norms[row], rtol=1e-5)


def test_embedding_times_norm_is_what_the_network_gave(mbf: OnnxRuntimeNetwork) -> None:
    embeddings, norms = ArcFace(mbf).embed(CROPS)
    np.testing.assert_allclose(np.linalg.norm(embeddings.astype(np.float64), axis=1), 1, atol=1e-6)
    blob = (CROPS[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5
    (raw,) = mbf({"input.1": blob}).values()
    np.testing.assert_allclose(embeddings * norms[:, None], raw, atol=1e-4)
    assert norms.min() > 1, "the network itself does not normalize"


@pytest.mark.parametrize(
    ("batch", "takes_batches"),
    [
        pytest.param("free", True, id="a row each, though it declares one"),
        pytest.param("fixed", False, id="declares one"),
        pytest.param("refuses", False, id="fails with more than one"),
        pytest.param("flattens", False, id="puts all into one row"),
        pytest.param("mixes", False, id="lets one face change another's embedding"),
    ],
)
def test_every_kind_of_batch_gives_the_same(
    tmp_path: Path, batch: str, takes_batches: bool
) -> None:
    network = Recorded(OnnxRuntimeNetwork(write_recognizer(tmp_path / "any.onnx", batch)))
    arcface = ArcFace(network)
    assert arcface.takes_batches == takes_batches
    network.shapes.clear()
    embeddings, norms = arcface.embed(CROPS)
    one, four = (1, 3, 112, 112), (4, 3, 112, 112)
    assert network.shapes == ([four, one] if takes_batches else [one] * 5)
    reference = ArcFace(OnnxRuntimeNetwork(write_recognizer(tmp_path / "free.onnx")))
    for row, crop in enumerate(CROPS):
        expected, norm = reference.embed(crop[None])
        np.testing.assert_allclose(embeddings[row], expected[0], atol=1e-6)
        np.testing.assert_allclose(norms[row], norm[0], rtol=1e-5)
    cosines = embeddings @ embeddings.T
    assert cosines[~np.eye(5, dtype=bool)].max() < 0.999, "the crops differ"


class Shifted(Recorded):
    """A network whose rows have these errors in a batch of two, relative to their length."""

    def __init__(self, network: Network, first: float, second: float) -> None:
        super().__init__(network)
        self._factors = np.array([[1 + first], [1 + second]], np.float32)

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        outputs = super().__call__(inputs)
        return {
            name: array * self._factors if len(array) == 2 else array
            for name, array in outputs.items()
        }


@pytest.mark.parametrize(
    ("first", "second", "takes_batches"),
    [
        pytest.param(0.009, 0.009, True, id="as half precision does"),
        pytest.param(0.019, 0.019, True, id="each within the tolerance"),
        pytest.param(0.021, 0.0, False, id="the first is not"),
        pytest.param(0.0, 0.021, False, id="the second is not"),
    ],
)
def test_batches_are_for_networks_that_give_nearly_the_same(
    tmp_path: Path, first: float, second: float, takes_batches: bool
) -> None:
    network = OnnxRuntimeNetwork(write_recognizer(tmp_path / "any.onnx"))
    assert ArcFace(Shifted(network, first, second)).takes_batches == takes_batches


@pytest.mark.parametrize("batch", ["free", "fixed"])
def test_network_that_normalizes_gets_raw_pixels(tmp_path: Path, batch: str) -> None:
    embeddings, norms = ArcFace(
        OnnxRuntimeNetwork(write_recognizer(tmp_path / "raw.onnx", batch, normalizes_input=True))
    ).embed(CROPS)
    expected, expected_norms = ArcFace(
        OnnxRuntimeNetwork(write_recognizer(tmp_path / "plain.onnx", batch))
    ).embed(CROPS)
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)
    np.testing.assert_allclose(norms, expected_norms, rtol=1e-4)


@pytest.mark.parametrize("batch", ["free", "fixed"])
def test_no_faces(tmp_path: Path, batch: str) -> None:
    network = Recorded(OnnxRuntimeNetwork(write_recognizer(tmp_path / "any.onnx", batch)))
    arcface = ArcFace(network)
    network.shapes.clear()
    embeddings, norms = arcface.embed(np.empty((0, 112, 112, 3), np.uint8))
    assert not network.shapes, "the network need not run"
    assert embeddings.shape == (0, 512) and embeddings.dtype == np.float32
    assert norms.shape == (0,) and norms.dtype == np.float32


def test_a_network_without_a_limit_gets_all_faces_at_once(tmp_path: Path) -> None:
    network = Recorded(OnnxRuntimeNetwork(write_recognizer(tmp_path / "any.onnx")))
    network.max_batch = None
    arcface = ArcFace(network)
    network.shapes.clear()
    assert arcface.embed(CROPS)[0].shape == (5, 512)
    assert arcface.embed(CROPS[:0])[0].shape == (0, 512)
    assert network.shapes == [(5, 3, 112, 112)]


def test_other_dimensions(tmp_path: Path) -> None:
    path = write_recognizer(tmp_path / "small.onnx", dimensions=128)
    embeddings, _ = ArcFace(OnnxRuntimeNetwork(path)).embed(CROPS)
    assert embeddings.shape == (5, 128)


def test_zero_from_the_network_stays_finite(tmp_path: Path) -> None:
    path = write_detector(
        tmp_path / "zero.onnx", {"516": np.zeros((1, 512), np.float32)}, (1, 3, 112, 112)
    )
    embeddings, norms = ArcFace(OnnxRuntimeNetwork(path)).embed(CROPS)
    assert not embeddings.any() and not norms.any()


def embedding(*shape: int) -> dict[str, NDArray[np.float32]]:
    return {"516": np.ones(shape, np.float32)}


@pytest.mark.parametrize(
    ("outputs", "input_shape", "message"),
    [
        pytest.param(
            scrfd_outputs(112, 112), (1, 3, 112, 112), r"found .* score_8 \[1,", id="a detector"
        ),
        pytest.param(
            embedding(1, 512),
            (1, 3, 128, 128),
            r"found inputs input\.1 \[1, 3, 128, 128\]; outputs 516 \[1, 512\]",
            id="another size",
        ),
        pytest.param(
            embedding(1, 512),
            (1, 112, 112, 3),
            r"found inputs .* \[1, 112, 112, 3\]",
            id="channels last",
        ),
        pytest.param(embedding(1, 512), (1, 37632), r"found inputs .* \[1, 37632\]", id="flat"),
        pytest.param(embedding(512), ("N", 3, 112, 112), r"outputs 516 \[512\]", id="rank 1"),
        pytest.param(
            embedding(1, 512, 7, 7),
            ("N", 3, 112, 112),
            r"outputs 516 \[1, 512, 7, 7\]",
            id="a feature map",
        ),
        pytest.param(
            {**embedding(1, 512), "logits": np.ones((1, 1000), np.float32)},
            (1, 3, 112, 112),
            r"outputs 516 \[1, 512\], logits \[1, 1000\]",
            id="a classifier with its embedding",
        ),
        pytest.param(embedding(1, 512), (8, 3, 112, 112), "takes 8 faces at once", id="batch of 8"),
    ],
)
def test_refuses_other_networks(
    tmp_path: Path,
    outputs: dict[str, NDArray[np.float32]],
    input_shape: tuple[int | str, ...],
    message: str,
) -> None:
    path = write_detector(tmp_path / "other.onnx", outputs, input_shape)
    with pytest.raises(ModelError, match=message) as caught:
        ArcFace(OnnxRuntimeNetwork(path))
    assert str(caught.value).startswith(f"{path}: ")


def test_real_detector_is_not_a_recognizer(detector_path: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match="an ArcFace network has one input"):
        ArcFace(OnnxRuntimeNetwork(detector_path("500m")))
