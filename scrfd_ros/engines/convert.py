# SPDX-License-Identifier: Apache-2.0
"""Convert an ONNX model to a TensorRT engine that agrees with it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from scrfd_ros.config import SIZE_MULTIPLE, DetectorConfig
from scrfd_ros.detection.levels import OUTPUT_COUNTS
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.engines.adapted import original_sha256
from scrfd_ros.engines.agreement import (
    Agreement,
    compare_detectors,
    compare_outputs,
    compare_recognizers,
)
from scrfd_ros.engines.build import build_engine
from scrfd_ros.engines.drawn_faces import drawn_faces, drawn_landmarks
from scrfd_ros.engines.free_size import load_for_size
from scrfd_ros.engines.model_check import check_network
from scrfd_ros.errors import BackendError, ModelError
from scrfd_ros.images.files import list_images, read_image
from scrfd_ros.inference.cuda_api import cuda_api
from scrfd_ros.inference.engine_file import (
    PRECISIONS,
    EngineMetadata,
    ShapeRange,
    check_metadata,
    read_metadata,
    write_engine,
    write_metadata,
)
from scrfd_ros.inference.load import ENGINE_SUFFIX, load_network
from scrfd_ros.inference.network import Network
from scrfd_ros.inference.onnx_file import read_model
from scrfd_ros.inference.tensorrt import TensorRtNetwork, read_plan
from scrfd_ros.inference.tensorrt_library import Platform, is_strongly_typed, load_tensorrt
from scrfd_ros.models.catalogue import (
    DETECTOR,
    RECOGNIZER,
    default_model_directory,
    file_state,
    installed_model,
    load_catalogue,
)
from scrfd_ros.recognition.alignment import CROP_SIZE, align_faces
from scrfd_ros.recognition.arcface import ArcFace

RECOGNIZER_BATCH = (1, 8, 32)
_FALLBACKS = {"int8": ("int8", "fp16", "fp32"), "fp16": ("fp16", "fp32"), "fp32": ("fp32",)}
DETECTOR_SIZE = DetectorConfig().largest_input
"""Width and height, pixels, for detectors that take any."""

_PHOTOGRAPH = "t1.jpg"  # six people
_CROP_DETECTOR = "2.5g"
_TIMING_CACHE = "timing.cache"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How an engine is to be built.

    Attributes:
        precision: one of `PRECISIONS`; int8 falls back to fp16, and fp16 to fp32, where the engine
            disagrees with the model.
        input_size: width and height, pixels; None for the model's own, or `DETECTOR_SIZE` for a
            detector that takes any.
        batch: minimum, usual and maximum batch size; None for the model's own, or where that is
            free `RECOGNIZER_BATCH` for a recognizer and 1 for others.
        workspace_mib: maximum scratch memory, MiB, of a layer; None for no limit.
        calibration: folder of images with faces, for int8.
    """

    precision: str = "fp16"
    input_size: tuple[int, int] | None = None
    batch: tuple[int, int, int] | None = None
    workspace_mib: int | None = None
    calibration: Path | None = None


def convert(model: Path, engine: Path, settings: Settings) -> EngineMetadata:
    """Build an engine that agrees with its ONNX model, and write it with its metadata.

    An engine that disagrees is rejected: INT8 falls back to FP16, and FP16 to FP32.

    Args:
        model: an ONNX file with one input, a batch of images.
        engine: file to write; the JSON file of metadata is written beside it.
        settings: how to build it.

    Raises:
        BackendError: there is no CUDA device, TensorRT, cuda-python or pycuda.
        ModelError: the model cannot be built as asked, or every engine disagrees with it.
        ScrfdError: a file cannot be read or written.
    """
    trt, here = load_tensorrt()
    cuda_api()
    reference = load_model(model, settings.input_size)
    shapes = input_shapes(reference, settings)
    _check(reference, shapes)
    failures = []
    for precision in _FALLBACKS[settings.precision]:
        content = typed_model(reference, settings, precision, is_strongly_typed(trt))
        try:
            with _elapsed(f"{model.name}: building {precision}"):
                plan = build_engine(
                    trt,
                    content,
                    shapes,
                    precision,
                    workspace_mib=settings.workspace_mib,
                    timing_cache=engine.parent / _TIMING_CACHE,
                )
        except BackendError:
            raise
        except ModelError as error:
            failures.append(f"{precision}: {error}")
            _logger.warning("%s: %s", model, failures[-1])
            continue
        metadata = _metadata(
            plan,
            model,
            reference,
            here,
            precision,
            shapes,
            {
                "precision": settings.precision,
                "workspace": settings.workspace_mib,
                "calibration": settings.calibration and str(settings.calibration),
            },
            datetime.now(timezone.utc),
        )
        try:
            agreement = measure_agreement(
                TensorRtNetwork(trt, engine, plan, metadata), reference, shapes, precision
            )
        except ModelError as error:
            failures.append(f"{precision}: {error}")
        else:
            if agreement.accepted:
                metadata = dataclasses.replace(metadata, agreement=agreement.figures)
                write_engine(engine, plan, metadata)
                return metadata
            failures.append(f"{precision} disagrees: {'; '.join(agreement.failures)}")
        _logger.warning("%s: %s", model, failures[-1])
    raise ModelError(f"{model}: no engine of it is right: {'. '.join(failures)}")


def verify(engine: Path, model: Path) -> EngineMetadata:
    """Compare an engine, perhaps of another program, with its ONNX model; write its metadata.

    Raises:
        BackendError: there is no CUDA device, TensorRT, cuda-python or pycuda.
        ModelError: the engine cannot be loaded, or disagrees with the model.
        ScrfdError: a file cannot be read or written.
    """
    trt, here = load_tensorrt()
    plan = read_plan(engine)
    metadata = read_metadata(engine)
    if metadata is not None:
        check_metadata(engine, plan, metadata, here)
    candidate = TensorRtNetwork(trt, engine, plan, metadata)
    *_, height, width = candidate.shapes.opt
    reference = load_model(model, (width, height))
    if metadata is not None and metadata.model_sha256 != reference.sha256:
        raise ModelError(
            f"{engine}: built from {metadata.model} with SHA-256 {metadata.model_sha256}, "
            f"while {model} has {reference.sha256}"
        )
    names = [tensor.name for network in (candidate, reference) for tensor in network.inputs]
    if len(set(names)) != 1:
        raise ModelError(
            f"{engine} was not built from {model}: the inputs are named {', '.join(names)}"
        )
    candidate.normalizes_input = reference.normalizes_input
    if metadata is None:
        built = datetime.fromtimestamp(engine.stat().st_mtime, timezone.utc)
        metadata = _metadata(plan, model, reference, here, "unknown", candidate.shapes, {}, built)
    precision = metadata.precision if metadata.precision in PRECISIONS else "fp16"
    agreement = measure_agreement(candidate, reference, candidate.shapes, precision)
    if not agreement.accepted:
        raise ModelError(f"{engine} disagrees with {model}: {'; '.join(agreement.failures)}")
    metadata = dataclasses.replace(metadata, agreement=agreement.figures)
    write_metadata(engine, metadata)
    return metadata


def _metadata(
    plan: bytes,
    model: Path,
    reference: Network,
    here: Platform,
    precision: str,
    shapes: ShapeRange,
    options: dict[str, Any],
    built: datetime,
) -> EngineMetadata:
    """Metadata of an engine that has not been compared with its model yet."""
    return EngineMetadata(
        engine_sha256=hashlib.sha256(plan).hexdigest(),
        model=str(model),
        model_sha256=reference.sha256,
        normalizes_input=reference.normalizes_input,
        platform=here,
        precision=precision,
        shapes=shapes,
        options=options,
        agreement={},
        built=built.isoformat(timespec="seconds"),
    )


def load_model(path: Path, input_size: tuple[int, int] | None = None) -> Network:
    """Load an ONNX file, to build from it or to compare with it.

    Args:
        path: the file.
        input_size: see `load_for_size`.

    Raises:
        ModelError: it is an engine, or cannot be used.
    """
    if path.suffix == ENGINE_SUFFIX:
        raise ModelError(f"{path}: expected the .onnx file of a model, not an engine")
    return load_for_size(path, input_size)


def _check(network: Network, shapes: ShapeRange) -> None:
    """Refuse a model that cannot work, before minutes of building; log doubts."""
    *_, height, width = shapes.opt
    kind = kind_of(network) if shapes.min[0] == 1 else None
    doubt = check_network(network, kind, (width, height))
    if doubt:
        _logger.warning("%s", doubt)


def kind_of(network: Network) -> str | None:
    """`DETECTOR` or `RECOGNIZER`, by the form of the network; None for any other."""
    if len(network.outputs) in OUTPUT_COUNTS:
        return DETECTOR
    if len(network.outputs) == 1 and network.inputs[0].shape[2:] == (CROP_SIZE, CROP_SIZE):
        return RECOGNIZER
    return None


def input_shapes(network: Network, settings: Settings) -> ShapeRange:
    """Shapes that an engine of this model is built for.

    Raises:
        ModelError: the model does not take these sizes.
    """
    path = network.path
    if len(network.inputs) != 1 or len(network.inputs[0].shape) != 4:
        found = ", ".join(map(str, network.inputs))
        raise ModelError(f"{path}: expected one input [N, channels, height, width], found {found}")
    own_batch, channels, own_height, own_width = network.inputs[0].shape
    kind = kind_of(network)
    default = DETECTOR_SIZE if kind == DETECTOR else (None, None)
    width, height = settings.input_size or (own_width or default[0], own_height or default[1])
    if channels is None:
        raise ModelError(f"{path}: its input takes any number of channels; expected 3")
    if width is None or height is None:
        raise ModelError(f"{path}: takes any input size; choose one with --input-size WxH")
    if kind == DETECTOR and (width % SIZE_MULTIPLE or height % SIZE_MULTIPLE):
        raise ModelError(
            f"{path}: input size {width}x{height}: a detector's width and height must be "
            f"multiples of {SIZE_MULTIPLE}"
        )
    if own_width not in (None, width) or own_height not in (None, height):
        raise ModelError(
            f"{path}: takes images of {own_width}x{own_height} only, not {width}x{height}"
        )
    if settings.batch:
        batches = settings.batch
        if own_batch is not None and set(batches) != {own_batch}:
            wanted = ":".join(map(str, dict.fromkeys(batches)))
            raise ModelError(f"{path}: takes a batch of {own_batch} only, not {wanted}")
    elif own_batch is not None:
        batches = (own_batch,) * 3
    else:
        batches = RECOGNIZER_BATCH if kind == RECOGNIZER else (1, 1, 1)
    return ShapeRange(*((batch, channels, height, width) for batch in batches))


def preparation(network: Network, settings: Settings, tensorrt: tuple[int, ...]) -> str | None:
    """The precision that trtexec needs inside the file; None if it takes the model as it is."""
    if settings.precision == "int8" or (settings.precision == "fp16" and tensorrt >= (11, 0)):
        return settings.precision
    return "fp32" if None in network.inputs[0].shape else None


def prepared_model(reference: Network, settings: Settings) -> bytes:
    """The content of an ONNX file with the precision inside and its input's sizes fixed.

    Raises:
        ModelError: the model does not take these sizes, or the package onnx is missing.
    """
    from scrfd_ros.engines.onnx_shapes import with_input_shape

    shapes = input_shapes(reference, settings)
    _check(reference, shapes)
    content = typed_model(reference, settings, settings.precision, fp16_inside=True)
    return with_input_shape(content, shapes)


def typed_model(reference: Network, settings: Settings, precision: str, fp16_inside: bool) -> bytes:
    """The content of an ONNX file in a precision.

    Args:
        reference: the model.
        settings: for the calibration of int8.
        precision: one of `PRECISIONS`.
        fp16_inside: convert the file to fp16, rather than leaving that to TensorRT.

    Raises:
        ModelError: int8 lacks calibration images, the package onnx is missing, or the file was
            replaced after it was loaded.
    """
    # Imports come late: they need the package onnx, which FP32 and, on a Jetson, FP16 do without.
    content = read_model(reference.path)
    if original_sha256(reference.path, content) != reference.sha256:
        raise ModelError(f"{reference.path}: was replaced while it was being used; try again")
    if precision == "int8":
        from scrfd_ros.engines.onnx_precision import to_int8

        return to_int8(content, _calibration_batches(reference, settings))
    if precision == "fp16" and fp16_inside:
        from scrfd_ros.engines.onnx_precision import to_fp16

        return to_fp16(content)
    return content


def _calibration_batches(network: Network, settings: Settings) -> Iterator[NDArray[np.float32]]:
    folder = settings.calibration
    if folder is None:
        raise ModelError(
            "int8 needs images to calibrate with, such as the robot will see: "
            "--calibration FOLDER, with some tens of images with faces"
        )
    images = [read_image(path) for path in list_images(folder)]
    kind = kind_of(network)
    if kind == RECOGNIZER:
        crops = crops_of(images, network.path.parent)
        if not len(crops):
            raise ModelError(f"{folder}: found no faces in the images for calibration")
        yield from ArcFace(network).prepare(crops)[:, None]
    elif kind == DETECTOR:
        _, _, height, width = input_shapes(network, settings).opt
        detector = Scrfd(network, DetectorConfig(input_size=(width, height)))
        for batch in detector.prepare(images):
            yield batch.blob.copy()  # the next batch overwrites it
    else:
        raise ModelError(f"{network.path}: int8 is for detectors and recognizers only")


def measure_agreement(
    candidate: Network, reference: Network, shapes: ShapeRange, precision: str
) -> Agreement:
    """Compare an engine with its ONNX model, by their faces where it takes single images."""
    kind = kind_of(reference) if shapes.min[0] == 1 else None
    _, _, height, width = shapes.opt
    if kind == DETECTOR:
        # Drawn faces too: they are large, so a small input also finds them.
        images = [drawn_faces(), *_photographs()]
        agreement = compare_detectors(candidate, reference, images, (width, height), precision)
        if agreement.figures.get("faces") != 0:
            return agreement  # otherwise it detects other things, or larger faces only
    if kind == RECOGNIZER:
        crops = _check_crops(reference.path.parent)
        return compare_recognizers(candidate, reference, crops, precision)
    noise = np.random.default_rng(0).random(shapes.opt, np.float32)
    return compare_outputs(candidate, reference, {reference.inputs[0].name: noise}, precision)


def _photographs() -> list[NDArray[np.uint8]]:
    """The one of the demonstration, if it is there; a starting robot downloads nothing."""
    entry = load_catalogue().pictures[_PHOTOGRAPH]
    path = default_model_directory() / "pictures" / _PHOTOGRAPH
    return [read_image(path)] if file_state(entry, path) == "present" else []


def _check_crops(folder: Path) -> NDArray[np.uint8]:
    """Aligned faces, drawn and photographed: uint8 [N, 112, 112, 3] BGR."""
    drawn = align_faces(drawn_faces(), drawn_landmarks())
    try:
        return np.concatenate([drawn, crops_of(_photographs(), folder)])
    except ModelError:  # there is no detector
        return drawn


def crops_of(images: Sequence[NDArray[np.uint8]], folder: Path) -> NDArray[np.uint8]:
    """The aligned faces in images, uint8 [N, 112, 112, 3] BGR, found on the processor.

    Raises:
        ModelError: there is no detector in this folder, nor in the default one.
    """
    try:
        path = installed_model(_CROP_DETECTOR, DETECTOR, folder)
    except ModelError:
        path = installed_model(_CROP_DETECTOR, DETECTOR)
    detector = Scrfd(load_network(path))
    crops = [np.zeros((0, CROP_SIZE, CROP_SIZE, 3), np.uint8)]
    for image in images:
        landmarks = detector.detect(image).landmarks
        assert landmarks is not None, f"{_CROP_DETECTOR} finds landmarks"
        crops.append(align_faces(image, landmarks))
    return np.concatenate(crops)


@contextlib.contextmanager
def _elapsed(text: str) -> Iterator[None]:
    """Show a clock on a terminal: not all versions of TensorRT report progress."""
    done = threading.Event()
    with tqdm(desc=text, bar_format="{desc}: {elapsed}", leave=False, disable=None) as bar:

        def tick() -> None:
            while not done.wait(1.0):
                bar.refresh()

        clock = threading.Thread(target=tick, daemon=True)
        clock.start()
        try:
            yield
        finally:
            done.set()
            clock.join()
