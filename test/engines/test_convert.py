# SPDX-License-Identifier: Apache-2.0
"""An engine is written only if it agrees with its model, on a simulated GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import fixed_detectors
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx_files import scrfd_outputs, write_detector, write_graph, write_recognizer

from scrfd_ros.engines.agreement import compare_detectors
from scrfd_ros.engines.convert import (
    Settings,
    convert,
    input_shapes,
    load_model,
    prepared_model,
    verify,
)
from scrfd_ros.errors import BackendError, ModelError, ScrfdError
from scrfd_ros.inference.engine_file import ShapeRange, metadata_path, read_metadata
from scrfd_ros.inference.load import load_network
from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork

NO_BATCH = ShapeRange(*[(1, 3, 640, 640)] * 3)


@pytest.fixture
def recognizer(tmp_path: Path) -> Path:
    return write_recognizer(tmp_path / "recognizer.onnx")


@pytest.mark.usefixtures("simulated_gpu")
def test_writes_engine_and_metadata(
    detector_path: Callable[[str], Path],
    image: Callable[[str], NDArray[np.uint8]],
    tmp_path: Path,
) -> None:
    image("t1.jpg")
    model, engine = detector_path("2.5g"), tmp_path / "engines" / "2.5g.engine"
    metadata = convert(model, engine, Settings(workspace_mib=512))
    assert read_metadata(engine) == metadata
    assert metadata.model == str(model)
    assert metadata.model_sha256 == OnnxRuntimeNetwork(model).sha256
    assert metadata.precision == "fp16"
    assert metadata.shapes == NO_BATCH
    assert metadata.options["workspace"] == 512
    assert metadata.agreement["faces"] == 6 + 4, "photographed and drawn ones"
    assert metadata.agreement["min_iou"] == pytest.approx(1)
    assert metadata.agreement["missed_faces"] == metadata.agreement["extra_faces"] == 0
    assert (engine.parent / "timing.cache").read_bytes() == b"times"


@pytest.mark.usefixtures("simulated_gpu")
@pytest.mark.parametrize("content", [b"times", b"of another TensorRT", b"of another GPU"])
def test_timing_cache_of_another_build(content: bytes, recognizer: Path, tmp_path: Path) -> None:
    (tmp_path / "timing.cache").write_bytes(content)
    convert(recognizer, tmp_path / "any.engine", Settings())
    assert (tmp_path / "timing.cache").read_bytes() == b"times"


@pytest.mark.usefixtures("simulated_gpu")
def test_recognizer_takes_batches(recognizer: Path, tmp_path: Path) -> None:
    metadata = convert(recognizer, tmp_path / "any.engine", Settings())
    assert [
        shape[0] for shape in (metadata.shapes.min, metadata.shapes.opt, metadata.shapes.max)
    ] == [
        1,
        8,
        32,
    ]
    assert metadata.agreement["min_cosine"] == pytest.approx(1)


@pytest.mark.usefixtures("simulated_gpu")
def test_timing_cache_that_cannot_be_used(
    recognizer: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "timing.cache").mkdir()
    convert(recognizer, tmp_path / "any.engine", Settings())
    assert "timing.cache: cannot write" in caplog.text
    assert (tmp_path / "any.engine").exists()


@pytest.mark.usefixtures("simulated_gpu")
@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("does not start", BackendError, r"10\.3\.0 does not start: CUDA initialization failure"),
        ("build fails", ModelError, "cannot build an engine: .*no implementation for node"),
    ],
)
def test_failures_of_tensorrt(
    how: str,
    error: type[Exception],
    words: str,
    recognizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SIMULATED_TENSORRT", how)
    with pytest.raises(error, match=words):
        convert(recognizer, tmp_path / "any.engine", Settings())


@pytest.mark.usefixtures("simulated_gpu")
@pytest.mark.parametrize("size", [(32, 32), (64, 32)], ids=str)
def test_detector_that_finds_no_faces(size: tuple[int, int], tmp_path: Path) -> None:
    outputs = {name: array / 10 for name, array in scrfd_outputs(*size).items()}
    model = write_detector(tmp_path / "any.onnx", outputs)
    metadata = convert(model, tmp_path / "any.engine", Settings(input_size=size))
    assert metadata.agreement["max_relative_difference"] == 0


@pytest.mark.usefixtures("simulated_gpu")
def test_an_engine_is_not_a_model(recognizer: Path, tmp_path: Path) -> None:
    engine = tmp_path / "any.engine"
    convert(recognizer, engine, Settings())
    for call in (lambda: verify(engine, engine), lambda: convert(engine, engine, Settings())):
        with pytest.raises(ModelError, match=r"expected the \.onnx file of a model, not an engine"):
            call()


@pytest.mark.usefixtures("simulated_gpu")
def test_small_input(detector_path: Callable[[str], Path], tmp_path: Path) -> None:
    metadata = convert(
        detector_path("500m"), tmp_path / "any.engine", Settings(input_size=(128, 128))
    )
    assert metadata.agreement["faces"] >= 4


@pytest.mark.usefixtures("simulated_gpu")
@pytest.mark.parametrize("name", ["500m", "w600k_mbf"])
def test_without_photograph_and_detector(
    name: str,
    detector_path: Callable[[str], Path],
    recognizer_path: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tmp_path / "any.onnx"
    model.symlink_to((detector_path if name == "500m" else recognizer_path)(name))
    monkeypatch.setattr("scrfd_ros.engines.convert.default_model_directory", lambda: tmp_path)
    monkeypatch.setattr("scrfd_ros.models.catalogue.default_model_directory", lambda: tmp_path)
    metadata = convert(model, tmp_path / "any.engine", Settings(batch=(1, 1, 1)))
    assert metadata.agreement["faces"] == 4, "drawn ones"


@pytest.mark.usefixtures("simulated_gpu")
def test_fp16_falls_back_to_fp32(
    recognizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SIMULATED_TENSORRT", "fp16 gives NaN")
    metadata = convert(recognizer, tmp_path / "any.engine", Settings())
    assert metadata.precision == "fp32" and metadata.options["precision"] == "fp16"
    assert "recognizer.onnx: fp16 disagrees: non finite values" in caplog.text


@pytest.mark.usefixtures("simulated_gpu")
def test_engine_that_disagrees_is_not_written(
    recognizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMULATED_TENSORRT", "fp16 and fp32 give NaN")
    engine = tmp_path / "any.engine"
    with pytest.raises(
        ModelError, match=r"no engine of it is right: fp16 disagrees.*fp32 disagrees"
    ):
        convert(recognizer, engine, Settings())
    assert not engine.exists() and not metadata_path(engine).exists()


@pytest.mark.usefixtures("simulated_gpu")
def test_other_network(tmp_path: Path) -> None:
    import onnx.helper

    model = write_graph(
        tmp_path / "double.onnx",
        [onnx.helper.make_node("Add", ["input.1", "input.1"], ["twice"])],
        (1, 3, "height", "width"),
        {"twice": (1, 3, "height", "width")},
        {},
    )
    metadata = convert(model, tmp_path / "any.engine", Settings(input_size=(48, 32)))
    assert metadata.shapes.max == (1, 3, 32, 48)
    assert metadata.agreement["max_relative_difference"] == 0


@pytest.mark.usefixtures("simulated_gpu")
def test_adopts_an_engine_of_another_program(recognizer: Path, tmp_path: Path) -> None:
    engine = tmp_path / "any.engine"
    convert(recognizer, engine, Settings(batch=(1, 2, 4)))
    metadata_path(engine).unlink()
    metadata = verify(engine, recognizer)
    assert read_metadata(engine) == metadata
    assert metadata.precision == "unknown"
    assert metadata.shapes.batch == "1:2:4"


@pytest.mark.usefixtures("simulated_gpu")
def test_does_not_adopt_the_engine_of_another_model(recognizer: Path, tmp_path: Path) -> None:
    other = write_recognizer(tmp_path / "other.onnx", normalizes_input=True)
    engine = tmp_path / "any.engine"
    convert(recognizer, engine, Settings())
    metadata_path(engine).unlink()
    with pytest.raises(ModelError, match=r"any\.engine disagrees with .*other\.onnx: min cosine"):
        verify(engine, other)
    assert not metadata_path(engine).exists()


@pytest.mark.parametrize(
    ("shape", "settings", "expected"),
    [
        pytest.param((1, 3, 640, 640), Settings(), NO_BATCH, id="fixed"),
        pytest.param((1, 3, "?", "?"), Settings(), NO_BATCH, id="free size"),
        pytest.param(("?", 3, "?", "?"), Settings(), NO_BATCH, id="free batch"),
        pytest.param(
            ("?", 3, "?", "?"),
            Settings(input_size=(320, 256), batch=(1, 2, 4)),
            ShapeRange((1, 3, 256, 320), (2, 3, 256, 320), (4, 3, 256, 320)),
            id="chosen",
        ),
        pytest.param(
            ("?", 3, 640, 640),
            Settings(batch=(4, 4, 4)),
            ShapeRange(*[(4, 3, 640, 640)] * 3),
            id="batch of four",
        ),
    ],
)
def test_shapes(
    shape: tuple[int | str, ...], settings: Settings, expected: ShapeRange, tmp_path: Path
) -> None:
    model = write_detector(tmp_path / "any.onnx", scrfd_outputs(640, 640), shape)
    assert input_shapes(OnnxRuntimeNetwork(model), settings) == expected


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        pytest.param(
            Settings(input_size=(320, 320)),
            "takes images of 640x640 only, not 320x320",
            id="size",
        ),
        pytest.param(Settings(batch=(1, 2, 4)), "takes a batch of 1 only, not 1:2:4", id="batch"),
        pytest.param(Settings(batch=(2, 2, 2)), "takes a batch of 1 only, not 2$", id="two"),
    ],
)
def test_shapes_that_the_model_does_not_take(
    settings: Settings, reason: str, tmp_path: Path
) -> None:
    model = write_detector(tmp_path / "any.onnx", scrfd_outputs(640, 640), (1, 3, 640, 640))
    with pytest.raises(ModelError, match=reason):
        input_shapes(OnnxRuntimeNetwork(model), settings)


def test_detectors_take_multiples_of_32(tmp_path: Path) -> None:
    model = write_detector(tmp_path / "any.onnx", scrfd_outputs(640, 640))
    with pytest.raises(ModelError, match=r"33x64: .* must be multiples of 32"):
        input_shapes(OnnxRuntimeNetwork(model), Settings(input_size=(33, 64)))


def test_prepared_model_has_fixed_sizes_and_agrees(
    detector_path: Callable[[str], Path],
    image: Callable[[str], NDArray[np.uint8]],
    tmp_path: Path,
) -> None:
    reference = OnnxRuntimeNetwork(detector_path("500m"))
    assert None in reference.inputs[0].shape
    path = tmp_path / "fixed.onnx"
    path.write_bytes(prepared_model(reference, Settings("fp16", (320, 320))))
    network = OnnxRuntimeNetwork(path)
    assert network.inputs[0].shape == (1, 3, 320, 320)
    agreement = compare_detectors(network, reference, [image("t1.jpg")], (320, 320), "fp16")
    assert agreement.accepted and agreement.figures["faces"] == 6


def test_int8_takes_images(recognizer: Path, tmp_path: Path) -> None:
    network = OnnxRuntimeNetwork(recognizer)
    with pytest.raises(ModelError, match="--calibration FOLDER"):
        prepared_model(network, Settings("int8"))
    with pytest.raises(ScrfdError, match="no images in it, but 1 file"):
        prepared_model(network, Settings("int8", calibration=tmp_path))
    cv2.imwrite(str(tmp_path / "empty.png"), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ModelError, match="found no faces in the images for calibration"):
        prepared_model(network, Settings("int8", calibration=tmp_path))


@pytest.mark.usefixtures("simulated_gpu")
def test_int8_engine(
    recognizer_path: Callable[[str], Path],
    image: Callable[[str], NDArray[np.uint8]],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "calibration"
    folder.mkdir()
    for name in ("obama.jpg", "biden.jpg"):
        cv2.imwrite(str(folder / name), image(name))
    metadata = convert(
        recognizer_path("w600k_mbf"),
        tmp_path / "any.engine",
        Settings("int8", calibration=folder, batch=(1, 1, 8)),
    )
    assert metadata.precision == "int8" and metadata.options["calibration"] == str(folder)
    assert 0.9 < metadata.agreement["min_cosine"] < 0.99999, "quantized, and yet alike"


@pytest.mark.usefixtures("simulated_gpu")
def test_a_detector_of_one_size_at_another(
    detector_path: Callable[[str], Path], tmp_path: Path
) -> None:
    model, size = tmp_path / "any.onnx", (192, 128)
    onnx.save(fixed_detectors.fixed(detector_path("2.5g")), str(model))
    engine = tmp_path / "any.engine"
    metadata = convert(model, engine, Settings(input_size=size))
    assert metadata.shapes.max == (1, 3, 128, 192)
    # The file that the user named is what the engine is of.
    assert metadata.model == str(model)
    assert metadata.model_sha256 == load_network(model).sha256
    assert verify(engine, model) == metadata
    prepared = tmp_path / "prepared.onnx"
    prepared.write_bytes(prepared_model(load_model(model, size), Settings("fp16", size)))
    assert load_network(prepared).inputs[0].shape == (1, 3, 128, 192)
