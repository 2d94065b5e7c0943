# SPDX-License-Identifier: Apache-2.0
"""Engines of the models at hand: built, compared with their models, and found by later steps."""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from layer_plans import DETECTORS, write_arcface, write_scrfd
from numpy.typing import NDArray

from gpu.outcomes import Failure, NotRun
from scrfd_ros.config import DetectorConfig, PipelineConfig, RecognizerConfig
from scrfd_ros.engines.agreement import compare_outputs
from scrfd_ros.engines.build import build_engine
from scrfd_ros.engines.convert import Settings, convert
from scrfd_ros.engines.drawn_faces import drawn_faces
from scrfd_ros.errors import ModelError
from scrfd_ros.images.files import read_image, write_image
from scrfd_ros.inference.engine_file import ShapeRange, metadata_path
from scrfd_ros.inference.load import load_network
from scrfd_ros.inference.network import Network
from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork
from scrfd_ros.inference.tensorrt import TensorRtNetwork
from scrfd_ros.inference.tensorrt_library import load_tensorrt
from scrfd_ros.models.catalogue import (
    DETECTOR,
    default_model_directory,
    file_state,
    installed_model,
    load_catalogue,
)
from scrfd_ros.pipeline import FacePipeline, load_pipeline

FASTEST = ("fp16", "fp32", "int8")
"""Precisions, in the order in which later steps take engines that are there."""

_BATCHES = (1, 4, 8)
_SIZE = (640, 640)  # of a detector's input
_WIDE = (640, 384)
_RUNS = 100  # of a network, for the median of its times


def model(name: str) -> Path:
    """The ONNX file of a model that is here."""
    kind = load_catalogue().models[name].kind
    try:
        return installed_model(name, kind)
    except ModelError as error:
        raise NotRun(str(error)) from error


def engine_path(folder: Path, name: str, precision: str) -> Path:
    return folder / "engines" / f"{name}-{precision}.engine"


def engine(folder: Path, name: str, precisions: tuple[str, ...] = FASTEST) -> Path:
    """The engine of a model in the first of these precisions that was built."""
    for precision in precisions:
        path = engine_path(folder, name, precision)
        if path.exists():
            return path
    raise NotRun(f"there is no engine of {name} in {' or '.join(precisions)}")


def pictures() -> dict[str, Path]:
    """The photographs that are here, by name."""
    entries, directory = load_catalogue().pictures, default_model_directory() / "pictures"
    paths = {name: directory / name for name in entries if name.endswith((".jpg", ".png"))}
    return {
        name: path for name, path in paths.items() if file_state(entries[name], path) == "present"
    }


def photograph() -> NDArray[np.uint8]:
    """Six people, or a drawing of four where the photograph is not here: uint8 [H, W, 3] BGR."""
    path = pictures().get("t1.jpg")
    return drawn_faces() if path is None else read_image(path)


def pipeline(
    detector: Path, recognizer: Path | None, *, backend: str = "auto", cuda_graph: bool = False
) -> FacePipeline:
    """A pipeline of these files, with the default thresholds."""
    return load_pipeline(
        PipelineConfig(
            backend=backend,
            cuda_graph=cuda_graph,
            detector=DetectorConfig(engine_path=detector, input_size=_SIZE),
            recognizer=RecognizerConfig(enabled=recognizer is not None, engine_path=recognizer),
        )
    )


def build(folder: Path, name: str, precision: str) -> dict[str, Any]:
    """Build an engine, which `convert` compares with its model; the figures are those of that."""
    return _built(folder, name, name, precision, None)


def build_batches(folder: Path, name: str) -> dict[str, Any]:
    """Build an engine that takes the images of several cameras at once."""
    return _built(folder, name, f"{name}-batch", "fp16", _BATCHES)


def build_for_wide(folder: Path, name: str) -> dict[str, Any]:
    """Build the engine for cameras of 16:9, and compare its time with that of the square one."""
    square = load_network(engine(folder, name, ("fp16",)))
    stem = f"{name}-wide"
    figures = _built(folder, name, stem, "fp16", None, _WIDE)
    milliseconds = [
        _network_milliseconds(network)
        for network in (square, load_network(engine_path(folder, stem, "fp16")))
    ]
    return {
        **figures,
        "square, ms": round(milliseconds[0], 3),
        "16:9, ms": round(milliseconds[1], 3),
        "16:9 to square": round(milliseconds[1] / milliseconds[0], 2),
    }


def _network_milliseconds(network: Network) -> float:
    """Time of the network alone, median of many runs."""
    (tensor,) = network.inputs
    inputs = {tensor.name: np.zeros(tuple(size or 1 for size in tensor.shape), np.float32)}
    times = []
    for _ in range(_RUNS):
        network(inputs)
        times.append(network.device_milliseconds()["network"])
    return float(np.median(times))


def _built(
    folder: Path,
    name: str,
    stem: str,
    precision: str,
    batch: tuple[int, int, int] | None,
    size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    source = model(name)
    path = engine_path(folder, stem, precision)
    path.parent.mkdir(exist_ok=True)
    refusals = _Messages()
    logging.getLogger(convert.__module__).addHandler(refusals)
    with tempfile.TemporaryDirectory() as images:
        calibration = _calibration(Path(images)) if precision == "int8" else None
        settings = Settings(precision, size or _input_size(name), batch, calibration=calibration)
        start = time.perf_counter()
        metadata = convert(source, path, settings)
        seconds = time.perf_counter() - start
    figures = {
        "seconds with comparison": round(seconds, 1),
        "MB": round(path.stat().st_size / 1e6, 1),
        **metadata.agreement,
    }
    if metadata.precision == precision:
        return figures
    right = engine_path(folder, stem, metadata.precision)
    for before, after in ((path, right), (metadata_path(path), metadata_path(right))):
        before.replace(after)
    raise Failure(
        f"only the engine in {metadata.precision} is right: {'; '.join(refusals.texts)}", figures
    )


class _Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _input_size(name: str) -> tuple[int, int] | None:
    return _SIZE if load_catalogue().models[name].kind == DETECTOR else None


def _calibration(folder: Path) -> Path:
    """The folder with images to calibrate with: the photographs, and each at half its size."""
    for name, path in pictures().items():
        image = read_image(path)
        write_image(folder / name, image)
        write_image(folder / f"half_{name}", np.ascontiguousarray(image[::2, ::2]))
    write_image(folder / "drawn.png", drawn_faces())
    return folder


def build_of_shape(folder: Path, name: str) -> dict[str, Any]:
    """Build a network of a published model's layers with random weights, and compare its outputs.

    Stands in for models whose files cannot be had: it finds no faces, but builds and runs as they.
    """
    trt, _ = load_tensorrt()
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / f"{name}.onnx"
        if name in DETECTORS:
            shape = (1, 3, *_SIZE)
            write_scrfd(path, name, batch=1, height=_SIZE[1], width=_SIZE[0])
        else:
            shape = (8, 3, 112, 112)
            write_arcface(path, name)
        start = time.perf_counter()
        plan = build_engine(trt, path.read_bytes(), ShapeRange(shape, shape, shape), "fp32")
        seconds = time.perf_counter() - start
        reference = OnnxRuntimeNetwork(path)
        network = TensorRtNetwork(trt, path, plan, None)
        noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        agreement = compare_outputs(network, reference, {network.inputs[0].name: noise})
    figures = {
        "seconds to build": round(seconds, 1),
        "network, ms": round(network.device_milliseconds()["network"], 3),
        **agreement.figures,
    }
    if not agreement.accepted:
        raise Failure("; ".join(agreement.failures), figures)
    return figures
