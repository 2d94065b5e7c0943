# SPDX-License-Identifier: Apache-2.0
"""Detectors of one input size get a free one where their graphs allow it, and find the same."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

import fixed_detectors
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper
from onnx_files import scrfd_outputs, write_detector, write_graph, write_recognizer

from scrfd_ros.config import DetectorConfig
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.engines import free_size
from scrfd_ros.engines.free_size import FREE_SIZE, fixed_size, load_for_size, with_free_size
from scrfd_ros.engines.open import open_network
from scrfd_ros.errors import ModelError
from scrfd_ros.inference.load import load_network

Change = Callable[[onnx.ModelProto], None]


@pytest.fixture
def model(detector_path: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """Writes a detector of the size `fixed_detectors.SIZE` in one of its forms."""

    def write(change: Change = lambda model: None) -> Path:
        made = fixed_detectors.fixed(detector_path("2.5g"))
        change(made)
        path = tmp_path / "any.onnx"
        onnx.save(made, str(path))
        return path

    return write


def test_the_published_file_changes_in_what_is_fixed_only(
    detector_path: Callable[[str], Path],
) -> None:
    content = detector_path("2.5g").read_bytes()
    original, changed = map(onnx.load_from_string, (content, with_free_size(content)))
    onnx.checker.check_model(changed, full_check=True)
    assert [size.dim_value for size in changed.graph.input[0].type.tensor_type.shape.dim] == [
        1,
        3,
        0,
        0,
    ]
    assert changed.graph.initializer == original.graph.initializer
    others = [node for node in changed.graph.node if node.op_type != "Constant"]
    different = [
        (ours, theirs)
        for ours, theirs in zip(others, original.graph.node, strict=True)
        if ours != theirs
    ]
    assert [ours.op_type for ours, _ in different] == ["Resize", "Resize"]
    constants = {node.output[0]: node for node in changed.graph.node if node.op_type == "Constant"}
    for ours, theirs in different:
        assert ours.input[:2] == theirs.input[:2] and ours.attribute == theirs.attribute
        tensor = constants[ours.input[2]].attribute[0].t
        assert onnx.numpy_helper.to_array(tensor).tolist() == [1, 1, 2, 2]
    assert with_free_size(content) == with_free_size(content)
    assert (fixed_size(content), fixed_size(with_free_size(content))) == ((640, 640), None)


@pytest.mark.parametrize(
    "form",
    [
        lambda model: None,
        fixed_detectors.not_simplified,
        fixed_detectors.weights_among_inputs,
    ],
    ids=["simplified", "not simplified", "weights among inputs"],
)
def test_forms_that_are_changed(
    form: Change, model: Callable[..., Path], image: Callable[[str], NDArray[np.uint8]]
) -> None:
    path = model(form)
    assert fixed_size(path.read_bytes()) == fixed_detectors.SIZE
    network = load_for_size(path, (640, 384))
    assert network.inputs[0].shape == (1, 3, None, None)
    photograph = image("t1.jpg")[:720]
    found = Scrfd(network, DetectorConfig(input_size=(640, 384))).detect(photograph)
    assert len(found) == 6


def test_the_same_faces_as_the_published_file(
    detector_path: Callable[[str], Path],
    image: Callable[[str], NDArray[np.uint8]],
    tmp_path: Path,
) -> None:
    path = tmp_path / "scrfd.onnx"
    path.symlink_to(detector_path("2.5g"))
    photograph = image("t1.jpg")[:720]
    expected = Scrfd(load_network(path)).detect(photograph)
    network = load_for_size(path, (640, 384))
    found = Scrfd(network, DetectorConfig(input_size=(640, 384))).detect(photograph)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.02)
    np.testing.assert_allclose(found.scores, expected.scores, atol=2e-4)
    # What users are told of the model is what they know.
    assert (network.name, network.sha256) == ("scrfd", load_network(path).sha256)
    assert network.path == tmp_path / "adapted" / "free_size" / "scrfd.onnx"


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        pytest.param(
            fixed_detectors.fixed_rows,
            r"its graph is fixed to 320x256: .*reshape.*\{1,2560,4\}",
            id="rows",
        ),
        pytest.param(
            fixed_detectors.fixed_crop,
            r"its graph is fixed to 320x256: .* of stride 8 at 384x\d+, expected",
            id="crop",
        ),
        pytest.param(
            fixed_detectors.shifted,
            r"with a free size it finds other faces at 384x\d+: missed faces: \d",
            id="shift",
        ),
    ],
)
def test_forms_that_are_refused(
    form: Change, reason: str, model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = model(form)
    free_size._log_own_size.cache_clear()
    limited = r"takes images of 320x256 only, not 640x384; set the detector's input size to .* "
    with pytest.raises(ModelError, match=limited + "It cannot be given a free size: " + reason):
        load_for_size(path, (640, 384))
    with caplog.at_level(logging.WARNING):
        networks = [open_network(path, "onnxruntime", any_size=True) for _ in range(2)]
    assert [network.path for network in networks] == [path, path]
    (record,) = caplog.records
    own_size = r"every image is scaled to its own size, 320x256, as it cannot be given a free one: "
    assert re.search(own_size + reason, record.getMessage())
    # Nothing is left that could be taken later.
    assert not list((path.parent / "adapted" / "free_size").iterdir())


def test_a_file_that_fits_is_loaded_as_it_is(model: Callable[..., Path]) -> None:
    path = model()
    assert load_for_size(path, fixed_detectors.SIZE).path == path
    assert load_for_size(path, None).path == path
    assert load_for_size(path, fixed_detectors.SIZE, any_size=True).path != path


def test_other_files_are_left_alone(detector_path: Callable[[str], Path], tmp_path: Path) -> None:
    recognizer = write_recognizer(tmp_path / "recognizer.onnx", "fixed")
    assert fixed_size(recognizer.read_bytes()) is None
    assert load_for_size(recognizer, (640, 640), any_size=True).path == recognizer
    assert fixed_size(detector_path("500m").read_bytes()) is None
    assert fixed_size(detector_path("det_500m").read_bytes()) is None
    assert fixed_size(b"no model") is None


def test_a_detector_that_finds_no_drawn_faces_is_not_trusted(tmp_path: Path) -> None:
    path = write_detector(
        tmp_path / "blind.onnx",
        {
            name: array * np.float32(0.1 if "score" in name else 1)
            for name, array in scrfd_outputs(96, 96).items()
        },
        (1, 3, 96, 96),
    )
    with pytest.raises(ModelError, match="it finds no drawn faces, by which the change could be"):
        load_for_size(path, (640, 640))


def test_nothing_cannot_be_enlarged(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Slice", ["input.1", "begin", "begin", "axis"], ["nothing"]),
        helper.make_node("Resize", ["nothing", "", "", "sizes"], ["larger"]),
    ]
    sizes = np.array([1, 3, 0, 64])
    constants = {"begin": np.array([0]), "axis": np.array([2]), "sizes": sizes}
    shapes = {"larger": sizes.tolist()}
    path = write_graph(tmp_path / "any.onnx", nodes, (1, 3, 32, 32), shapes, constants)
    with pytest.raises(ModelError, match=r"a Resize from \[1, 3, 0, 32\] to \[1, 3, 0, 64\]"):
        with_free_size(path.read_bytes())


def test_factors_are_whole(tmp_path: Path) -> None:
    resize = helper.make_node("Resize", ["input.1", "", "", "sizes"], ["larger"])
    sizes = np.array([1, 3, 64, 48])
    path = write_graph(
        tmp_path / "any.onnx",
        [resize],
        (1, 3, 32, 32),
        {"larger": sizes.tolist()},
        {"sizes": sizes},
    )
    with pytest.raises(ModelError, match=r"a Resize from \[1, 3, 32, 32\] to \[1, 3, 64, 48\]"):
        with_free_size(path.read_bytes())


def test_its_change_has_a_number() -> None:
    """A file is made again if the change was another one: raise the number with the change."""
    assert (FREE_SIZE.name, FREE_SIZE.version) == ("free_size", 1)
