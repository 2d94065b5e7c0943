# SPDX-License-Identifier: Apache-2.0
"""Networks that cannot work are refused after their first run; real ones pass without a warning.

The broken networks are real ones with some nodes or weights changed. Two stand in for what no
published file does: one that is blind to images in RGB, and one that answers all the same.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_files import scrfd_outputs, write_detector, write_graph
from pipelines import detector_of, loaded

from scrfd_ros.cli.main import main
from scrfd_ros.engines.model_check import check_detector, check_recognizer
from scrfd_ros.errors import ModelError
from scrfd_ros.inference.load import load_network
from scrfd_ros.models.catalogue import load_catalogue
from scrfd_ros.models.download import ensure_model
from scrfd_ros.recognition.arcface import ArcFace

ModelPath = Callable[[str], Path]
Model = onnx.ModelProto
SIZE = (320, 320)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(
    ("name", "size"),
    [
        *((name, size) for name in ("500m", "det_500m") for size in [
            (32, 32), (96, 96), (128, 128), (320, 192), (192, 320), (320, 320), (640, 384),
            (640, 480), (640, 640), (1280, 1280),
        ]),
        ("2.5g", (640, 640)),
    ],
)  # fmt: skip
def test_real_detectors_pass(
    name: str, size: tuple[int, int], threads: int, detector_path: ModelPath
) -> None:
    detector = detector_of(
        load_network(detector_path(name), threads=threads), size, score_threshold=0.9, tiles=(2, 2)
    )
    assert check_detector(detector) == ""
    # Its options do not change.
    assert (detector.config.score_threshold, detector.config.tiles) == (0.9, (2, 2))


@pytest.mark.parametrize("threads", [1, 4])
def test_a_real_recognizer_passes(threads: int, recognizer_path: ModelPath) -> None:
    recognizer = ArcFace(load_network(recognizer_path("w600k_mbf"), threads=threads))
    assert check_recognizer(recognizer) == ""


def insert_at_input(model: Model, kinds: Sequence[tuple[str, float]]) -> None:
    """Insert arithmetic with the input at the start of the graph."""
    (given,) = (tensor.name for tensor in model.graph.input)
    for node in model.graph.node:
        for number, name in enumerate(node.input):
            if name == given:
                node.input[number] = "changed"
    nodes, last = [], given
    for number, (kind, value) in enumerate(kinds):
        name = "changed" if number == len(kinds) - 1 else f"step {number}"
        constant = numpy_helper.from_array(np.float32(value).reshape(1), f"value {number}")
        model.graph.initializer.append(constant)
        nodes.append(helper.make_node(kind, [last, constant.name], [name]))
        last = name
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


def append_to(model: Model, output: str, nodes: Callable[[str, str], list[Any]]) -> None:
    """Have nodes, made for the name of an input and of an output, change an output."""
    for node in model.graph.node:
        for number, name in enumerate(node.output):
            if name == output:
                node.output[number] = f"{output} before"
    model.graph.node.extend(nodes(f"{output} before", output))


def outputs_of(model: Model, columns: int) -> list[str]:
    """Names of the outputs with this many columns, by stride; the 500m declares its shapes."""
    sizes = {1: 0, 4: 3, 10: 6}
    start = sizes[columns]
    return [tensor.name for tensor in model.graph.output][start : start + 3]


def constant(model: Model, name: str, values: Any, dtype: Any = np.float32) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.array(values, dtype), name))
    return name


def folded(model: Model) -> None:
    insert_at_input(model, [("Sub", 127.5), ("Div", 128.0)])


def known_by_sub_and_mul(model: Model) -> None:
    insert_at_input(model, [("Sub", 127.5), ("Mul", 1 / 128)])


def harmless_sub_and_mul(model: Model) -> None:
    insert_at_input(model, [("Sub", 0.0), ("Mul", 1.0)])


def zero_to_one(model: Model) -> None:
    insert_at_input(model, [("Sub", 0.5), ("Mul", 255 / 128)])


def logits(model: Model) -> None:
    for node in model.graph.node:
        if node.op_type == "Sigmoid":
            node.op_type = "Identity"


def multiplied(columns: int, factors: Sequence[float]) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        for name, factor in zip(outputs_of(model, columns), factors, strict=True):
            value = constant(model, f"{name} factor", factor)
            append_to(model, name, lambda a, b, v=value: [helper.make_node("Mul", [a, v], [b])])

    return change


def boxes_and_landmarks_in_pixels(model: Model) -> None:
    multiplied(4, (8, 16, 32))(model)
    multiplied(10, (8, 16, 32))(model)


def reordered(columns: int, order: Sequence[int]) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        for name in outputs_of(model, columns):
            indices = constant(model, f"{name} order", order, np.int64)
            append_to(
                model,
                name,
                lambda a, b, i=indices: [helper.make_node("Gather", [a, i], [b], axis=-1)],
            )

    return change


def rows_transposed(shape: Callable[[int], list[int]], axes: Sequence[int]) -> Callable[..., None]:
    def change(model: Model) -> None:
        for columns in (1, 4, 10):
            for name, stride in zip(outputs_of(model, columns), (8, 16, 32), strict=True):
                side = SIZE[0] // stride
                apart = constant(model, f"{name} apart", [*shape(side), columns], np.int64)
                rows = [1, side * side * 2, columns]
                together = constant(model, f"{name} together", rows, np.int64)
                append_to(
                    model,
                    name,
                    lambda a, b, x=apart, y=together: [
                        # Without these two ONNX Runtime 1.23 fuses Reshapes, and fails.
                        helper.make_node("Neg", [a], [f"{b} -"]),
                        helper.make_node("Neg", [f"{b} -"], [f"{b} 0"]),
                        helper.make_node("Reshape", [f"{b} 0", x], [f"{b} 1"]),
                        helper.make_node("Transpose", [f"{b} 1"], [f"{b} 2"], perm=[*axes, 3]),
                        helper.make_node("Reshape", [f"{b} 2", y], [b]),
                    ],
                )

    return change


def blind_to_rgb(model: Model) -> None:
    """Nothing is seen unless the first channel is the brighter one, as blue is in the drawing."""
    (given,) = (tensor.name for tensor in model.graph.input)
    insert_at_input(model, [("Mul", 1.0)])
    node = next(node for node in model.graph.node if node.output[0] == "changed")
    node.input[1] = "sees"
    nodes = [
        helper.make_node("ReduceMean", [given], ["means"], axes=[2, 3], keepdims=1),
        helper.make_node("Split", ["means"], ["first", "second", "third"], axis=1),
        helper.make_node("Sub", ["first", "third"], ["more"]),
        helper.make_node("Sign", ["more"], ["sign"]),
        helper.make_node("Relu", ["sign"], ["sees"]),
    ]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (folded, "finds faces only with pixels of 0 to 255: mean and scale are folded into"),
        (
            harmless_sub_and_mul,
            "finds faces only with normalized pixels or pixels of 0 to 1, though",
        ),
        (zero_to_one, "finds faces only with normalized pixels or pixels of 0 to 1"),
        (blind_to_rgb, "finds faces only with red and blue exchanged: it takes BGR, expected RGB"),
        (logits, r"scores range from -.* expected 0 to 1.* the sigmoid at the end is missing"),
        (multiplied(1, (0, 0, 0)), "all scores are 0: the weights"),
        (multiplied(1, (100, 100, 100)), r"scores range from .*, expected 0 to 1"),
        (multiplied(1, (1, np.nan, 1)), "returns values that are not finite, as if half"),
        (multiplied(4, (np.inf,) * 3), "returns values that are not finite"),
        (multiplied(10, (np.nan,) * 3), "returns values that are not finite"),
        (boxes_and_landmarks_in_pixels, "its boxes are in pixels, expected distances in strides"),
        (multiplied(4, (8, 16, 32)), "its boxes are in pixels"),
        (multiplied(10, (8, 16, 32)), "its landmarks are in pixels"),
        (reordered(4, (1, 0, 3, 2)), "its boxes are in the order top, left, bottom, right"),
        (
            reordered(10, (2, 3, 0, 1, 4, 5, 8, 9, 6, 7)),
            "its landmarks are in the order image-right eye, image-left eye, nose, image-right",
        ),
        (
            reordered(10, (6, 7, 8, 9, 4, 5, 0, 1, 2, 3)),
            "order image-left mouth corner, image-right mouth corner, nose, image-left eye",
        ),
        (reordered(10, (1, 0, 3, 2, 5, 4, 7, 6, 9, 8)), "its landmarks are y before x"),
        (
            rows_transposed(lambda side: [side, side, 2], (2, 0, 1)),
            "its outputs are ordered by anchor, then by location",
        ),
        (
            rows_transposed(lambda side: [side, side, 2], (1, 0, 2)),
            "its outputs are ordered column by column; expected row by row",
        ),
    ],
)
def test_broken_detectors_are_refused(
    change: Callable[[Model], None], sentence: str, tmp_path: Path, detector_path: ModelPath
) -> None:
    model = onnx.load(str(detector_path("500m")))
    change(model)
    path = tmp_path / "broken.onnx"
    onnx.save(model, str(path))
    with pytest.raises(ModelError, match=sentence) as caught:
        loaded(path, input_size=SIZE)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message


def test_a_graph_that_normalizes_and_says_so_passes(
    tmp_path: Path, detector_path: ModelPath, caplog: pytest.LogCaptureFixture
) -> None:
    model = onnx.load(str(detector_path("500m")))
    known_by_sub_and_mul(model)
    path = tmp_path / "raw.onnx"
    onnx.save(model, str(path))
    loaded(path, input_size=SIZE)
    assert "raw.onnx" not in caplog.text


def doubts(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_detector_that_finds_nothing_is_a_doubt(
    tmp_path: Path, detector_path: ModelPath, caplog: pytest.LogCaptureFixture
) -> None:
    model = onnx.load(str(detector_path("500m")))
    multiplied(1, (0.5, 0.5, 0.5))(model)
    path = tmp_path / "weak.onnx"
    onnx.save(model, str(path))
    loaded(path, input_size=SIZE)
    (doubt,) = doubts(caplog)
    assert doubt.startswith(
        f"{path}: finds 0 of the 4 faces in the drawing that models are checked with and 0 where "
    )


def test_a_detector_that_finds_something_else_is_a_doubt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_detector(tmp_path / "other.onnx", scrfd_outputs(128, 128))
    loaded(path, input_size=(128, 128))
    (doubt,) = doubts(caplog)
    assert re.search(r"other\.onnx: finds . of the 4 faces .* and [1-9]\d* where none are", doubt)


def test_landmarks_that_are_elsewhere_are_a_doubt(
    tmp_path: Path, detector_path: ModelPath, caplog: pytest.LogCaptureFixture
) -> None:
    model = onnx.load(str(detector_path("500m")))
    multiplied(10, (0, 0, 0))(model)
    path = tmp_path / "odd.onnx"
    onnx.save(model, str(path))
    loaded(path, input_size=SIZE)
    (doubt,) = doubts(caplog)
    assert "of a head's height from those of the drawn faces" in doubt


def recognizer(path: Path, change: Callable[[Model], None], tmp_path: Path) -> ArcFace:
    model = onnx.load(str(path))
    change(model)
    onnx.save(model, str(tmp_path / "broken.onnx"))
    return ArcFace(load_network(tmp_path / "broken.onnx"))


def times(factor: float) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        (output,) = (tensor.name for tensor in model.graph.output)
        value = constant(model, "factor", factor)
        append_to(model, output, lambda a, b: [helper.make_node("Mul", [a, value], [b])])

    return change


def the_same_for_all(model: Model) -> None:
    (output,) = (tensor.name for tensor in model.graph.output)
    nothing, one = constant(model, "nothing", 0.0), constant(model, "one", 1.0)
    append_to(
        model,
        output,
        lambda a, b: [
            helper.make_node("Mul", [a, nothing], ["zeros"]),
            helper.make_node("Add", ["zeros", one], [b]),
        ],
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param(the_same_for_all, "the same embedding for two different faces", id="constant"),
        pytest.param(times(0), "returns embeddings of zeros", id="zeros"),
        pytest.param(times(np.inf), "returns embeddings that are not finite", id="overflow"),
    ],
)
def test_broken_recognizers_are_refused(
    change: Callable[[Model], None], sentence: str, tmp_path: Path, recognizer_path: ModelPath
) -> None:
    with pytest.raises(ModelError, match=rf"broken\.onnx: .*{sentence}"):
        check_recognizer(recognizer(recognizer_path("w600k_mbf"), change, tmp_path))


@pytest.mark.parametrize(
    ("kinds", "sentence"),
    [
        pytest.param(
            [("Sub", 127.5), ("Div", 127.5)],
            "tells faces apart only with pixels of 0 to 255: mean and scale are folded",
            id="folded",
        ),
        pytest.param(
            [("Sub", 0.0), ("Mul", 1.0)],
            "tells faces apart also with normalized pixels or pixels of 0 to 1, though its graph",
            id="Sub and Mul of another kind",
        ),
        pytest.param([("Sub", 127.5), ("Mul", 1 / 127.5)], "", id="Sub and Mul that normalize"),
    ],
)
def test_recognizers_with_other_pixels_are_doubted(
    kinds: list[tuple[str, float]], sentence: str, tmp_path: Path, recognizer_path: ModelPath
) -> None:
    def change(model: Model) -> None:
        insert_at_input(model, kinds)

    doubt = check_recognizer(recognizer(recognizer_path("w600k_mbf"), change, tmp_path))
    assert sentence in doubt and bool(sentence) == bool(doubt)


def test_a_recognizer_of_another_face_size(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["input.1"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["516"]),
    ]
    path = write_graph(tmp_path / "small.onnx", nodes, (1, 3, 96, 96), {"516": (1, 3)}, {})
    with pytest.raises(ModelError, match=r"\[N, 3, 112, 112\].* found inputs .*\[1, 3, 96, 96\]"):
        ArcFace(load_network(path))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("500m", "A detector: it finds the drawn faces."),
        ("2.5g", "A detector: it finds the drawn faces."),
        ("w600k_mbf", "A recognizer: it tells the drawn faces apart."),
    ],
)
def test_verify_takes_onnx_files(
    name: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ensure_model(load_catalogue().find(name))
    assert main(["verify", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"[OK] {path} loads, on onnxruntime ") and sentence in out
    assert f"SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}" in out
    assert main(["verify", str(path), "--onnx", str(path)]) == 2
    assert "--onnx is for engines" in capsys.readouterr().err


def test_verify_and_convert_refuse_broken_ones(
    tmp_path: Path, detector_path: ModelPath, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(str(detector_path("500m")))
    logits(model)
    path, result = tmp_path / "broken.onnx", tmp_path / "result.onnx"
    onnx.save(model, str(path))
    for arguments in (["verify", str(path)], ["convert", str(path), str(result)]):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert "the sigmoid at the end is missing" in captured.err and not captured.out
    assert not result.exists()


def test_forms_that_are_refused_before_they_run(tmp_path: Path, detector_path: ModelPath) -> None:
    model = onnx.load(str(detector_path("500m")))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, str(tmp_path / "two.onnx"))
    with pytest.raises(ModelError, match=r"two\.onnx: takes 2 images at once"):
        loaded(tmp_path / "two.onnx")
    model = onnx.load(str(detector_path("500m")))
    model.graph.output.append(model.graph.output[0])
    model.graph.output[-1].name = "more"
    model.graph.node.append(helper.make_node("Identity", [model.graph.output[0].name], ["more"]))
    onnx.save(model, str(tmp_path / "more.onnx"))
    with pytest.raises(ModelError, match=r"more\.onnx: .*not those of an SCRFD network"):
        loaded(tmp_path / "more.onnx")
