# SPDX-License-Identifier: Apache-2.0
"""The networks of layer_plans.py are the published ones, and everything here runs them.

500m, 2.5g and mbf are compared with the real files, layer by layer; the others with published
sizes: of the files, or those in the table of detection/scrfd/README.md in
https://github.com/deepinsight/insightface, to all printed digits. That table counts trainable
parameters, including landmarks and two for each channel of a BatchNorm, one of which disappears
where it is folded into a convolution. It has two more detectors without landmarks, 2.5g and 10g. It
lists 0.57 M for 500m with and without landmarks, which is correct without: the real file with
landmarks has 0.63 M. Its multiply-adds are those of convolutions, BatchNorm and ReLU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from layer_plans import DETECTORS, RECOGNIZERS, DetectorPlan, write_arcface, write_scrfd
from onnx import TensorProto, helper, shape_inference
from pipelines import detector_of, loaded

from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork
from scrfd_ros.models.catalogue import DETECTOR, load_catalogue
from scrfd_ros.recognition.arcface import ArcFace

SIZE = WIDTH, HEIGHT = 320, 256
NOISE = np.random.default_rng(1).integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
BLOB = ((NOISE - 127.5) / 128).transpose(0, 3, 1, 2).astype(np.float32)
CROPS = np.random.default_rng(2).integers(0, 256, (2, 112, 112, 3), np.uint8)

# Operators that compute shapes, which differ between exports with free and with fixed sizes.
PLUMBING = ("Shape", "Gather", "Slice", "Unsqueeze", "Concat", "Cast", "Constant")

ModelPath = Callable[[str], Path]


@pytest.fixture(scope="module", params=DETECTORS)
def detector(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """Each detector: its name and its file, which takes any size."""
    path = tmp_path_factory.mktemp("detector") / f"scrfd_{request.param}.onnx"
    return request.param, write_scrfd(path, request.param)


@pytest.fixture(scope="module", params=RECOGNIZERS)
def recognizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """Each recognizer: its name and its file, which takes any batch."""
    path = tmp_path_factory.mktemp("recognizer") / f"{request.param}.onnx"
    yield request.param, write_arcface(path, request.param)
    path.unlink()  # pytest would keep 450 MB for the next three runs


@pytest.fixture(scope="module")
def mbf_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arcface(tmp_path_factory.mktemp("mbf") / "mbf.onnx", "mbf")


# --- Layer plans --------------------------------------------------------------


def layers(path: Path) -> list[tuple[str, dict[str, Any], list[Any]]]:
    """Operator and attributes of each node, with its inputs: nodes by number, weights by shape."""
    graph = onnx.load(path).graph
    inputs: dict[str, Any] = {
        tensor.name: tuple(tensor.dims)
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and 0 not in tensor.dims
    }
    nodes = [node for node in graph.node if node.op_type not in PLUMBING]
    inputs |= {node.output[0]: number for number, node in enumerate(nodes)}
    return [
        (
            node.op_type,
            {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute},
            [inputs[name] for name in node.input if name in inputs],
        )
        for node in nodes
    ]


@pytest.mark.parametrize("name", ["500m", "2.5g"])
def test_detectors_have_the_layers_of_the_real_files(
    tmp_path: Path, detector_path: ModelPath, name: str
) -> None:
    assert layers(write_scrfd(tmp_path / "ours.onnx", name)) == layers(detector_path(name))


def test_mbf_has_the_layers_of_the_real_file(tmp_path: Path, recognizer_path: ModelPath) -> None:
    ours = write_arcface(tmp_path / "ours.onnx", "mbf")
    assert layers(ours) == layers(recognizer_path("w600k_mbf"))


def parameters(model: onnx.ModelProto) -> int:
    """Number of trainable parameters."""
    count = 0
    for tensor in model.graph.initializer:
        layer, _, part = tensor.name.rpartition(".")
        if layer and not part.startswith("running_"):
            folded = layer.isdigit() and part == "bias"  # into a convolution: see onnx_layers.py
            count += math.prod(tensor.dims) * (2 if folded else 1)
    return count


def operations(model: onnx.ModelProto) -> int:
    """Multiply-adds of convolutions, 2 for each value of a BatchNorm, 1 for each of a ReLU."""
    graph = shape_inference.infer_shapes(model).graph
    sizes = {
        value.name: math.prod(size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output)
    }
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    count = 0
    for node in graph.node:
        each = 0
        if node.op_type == "Conv":
            layer = node.input[1].rpartition(".")[0]
            each = math.prod(weights[node.input[1]][1:]) + (2 if layer.isdigit() else 0)
        elif node.op_type == "Relu":
            each = 1
        count += each * sizes[node.output[0]]
    return count


def without_landmarks(name: str) -> DetectorPlan:
    return replace(DETECTORS[name], group_norm=16, scaled=True)


@pytest.mark.parametrize(
    ("plan", "millions", "billions", "tolerance"),
    [
        pytest.param(without_landmarks("500m"), 0.57, 0.508, 2e-3, id="500m without landmarks"),
        pytest.param(without_landmarks("2.5g"), 0.67, 2.53, 2e-3, id="2.5g without landmarks"),
        pytest.param(without_landmarks("10g"), 3.86, 9.98, 2e-3, id="10g without landmarks"),
        pytest.param(DETECTORS["34g"], 9.80, 34.13, 2e-3, id="34g"),
        # For these only the rounded multiply-adds in the name are published.
        pytest.param(DETECTORS["1g"], 0.64, 1, 0.05, id="1g"),
        pytest.param(DETECTORS["2.5g"], 0.82, 2.5, 0.05, id="2.5g"),
        pytest.param(DETECTORS["10g"], 4.23, 10, 0.05, id="10g"),
    ],
)
def test_detectors_have_the_published_size(
    tmp_path: Path, plan: DetectorPlan, millions: float, billions: float, tolerance: float
) -> None:
    model = onnx.load(write_scrfd(tmp_path / "vga.onnx", plan, batch=1, height=480, width=640))
    assert round(parameters(model) / 1e6, 2) == millions
    assert operations(model) / 1e9 == pytest.approx(billions, rel=tolerance)


def test_recognizers_are_as_large_as_the_real_files(recognizer: tuple[str, Path]) -> None:
    name, path = recognizer
    real = {"mbf": 13_616_099, "r50": 174_383_860, "r100": 260_665_334}
    # Only names and remarks in the file may differ.
    assert path.stat().st_size == pytest.approx(real[name], rel=3e-4)


# --- Use ----------------------------------------------------------------------


def test_detectors_find_faces(detector: tuple[str, Path]) -> None:
    name, path = detector
    scrfd = detector_of(OnnxRuntimeNetwork(path), SIZE)
    assert scrfd.has_landmarks == load_catalogue().find(name, DETECTOR).landmarks
    found = [scrfd.detect(image) for image in NOISE]
    for faces in found:
        assert len(faces) > 20
        assert faces.scores.max() > 0.9 and faces.scores.min() < 0.6
        assert (faces.sizes > 0).all()
        points = [faces.boxes.reshape(-1, 2)]
        if faces.landmarks is not None:
            points.append(faces.landmarks.reshape(-1, 2))
        # Within one image size around the image; false if not finite.
        assert (np.abs(np.vstack(points) / SIZE - 0.5) < 1.5).all()
    assert not np.array_equal(found[0].boxes[:20], found[1].boxes[:20]), "the images differ"


def test_detectors_take_batches(detector: tuple[str, Path]) -> None:
    network = OnnxRuntimeNetwork(detector[1])
    together = network({"input.1": BLOB})
    for row in range(len(BLOB)):
        for name, alone in network({"input.1": BLOB[row : row + 1]}).items():
            np.testing.assert_allclose(together[name][row : row + 1], alone, atol=1e-4)


@pytest.mark.parametrize("name", ["2.5g", "1g"])
def test_fixed_sizes_make_the_same_network(tmp_path: Path, name: str) -> None:
    free = OnnxRuntimeNetwork(write_scrfd(tmp_path / "free.onnx", name))
    path = write_scrfd(tmp_path / "fixed.onnx", name, batch=2, height=HEIGHT, width=WIDTH)
    fixed = OnnxRuntimeNetwork(path)
    assert "Shape" not in {node.op_type for node in onnx.load(path).graph.node}
    assert free.inputs[0].shape == (None, 3, None, None)
    assert fixed.inputs[0].shape == BLOB.shape
    expected, outputs = free({"input.1": BLOB}), fixed({"input.1": BLOB})
    assert list(outputs) == list(expected)
    for tensor in fixed.outputs:
        assert outputs[tensor.name].shape == tensor.shape
        np.testing.assert_allclose(outputs[tensor.name], expected[tensor.name], atol=1e-4)


def test_seed_decides_the_weights(tmp_path: Path) -> None:
    first, again, other = (
        write_scrfd(tmp_path / f"{number}.onnx", "500m", seed=seed).read_bytes()
        for number, seed in enumerate((1, 1, 2))
    )
    assert first == again and first != other


def test_recognizers_embed_faces(recognizer: tuple[str, Path]) -> None:
    arcface = ArcFace(OnnxRuntimeNetwork(recognizer[1]))
    assert arcface.dimensions == 512 and arcface.takes_batches
    embeddings, norms = arcface.embed(CROPS)
    assert ((norms > 1) & (norms < 1000)).all()
    assert embeddings[0] @ embeddings[1] < 0.95, "the faces differ"
    for row, crop in enumerate(CROPS):
        alone, norm = arcface.embed(crop[None])
        np.testing.assert_allclose(alone[0], embeddings[row], atol=1e-5)
        np.testing.assert_allclose(norm[0], norms[row], rtol=1e-5)


def test_recognizer_of_a_fixed_batch(tmp_path: Path) -> None:
    arcface = ArcFace(OnnxRuntimeNetwork(write_arcface(tmp_path / "one.onnx", "mbf", batch=1)))
    assert not arcface.takes_batches
    assert arcface.embed(CROPS)[0].shape == (2, 512)


def test_pipeline_embeds_where_there_are_landmarks(
    detector: tuple[str, Path], mbf_path: Path
) -> None:
    name, path = detector
    pipeline = loaded(path, mbf_path, input_size=SIZE, max_faces=3)
    faces = pipeline(NOISE[0]).faces
    assert len(faces) == 3
    if load_catalogue().find(name, DETECTOR).landmarks:
        assert pipeline.warning == ""
        assert faces.embeddings is not None and np.isfinite(faces.embeddings).all()
    else:
        assert f"scrfd_{name}.onnx finds no landmarks" in pipeline.warning
        assert faces.embeddings is None
