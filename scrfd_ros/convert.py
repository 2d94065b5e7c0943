"""From an ONNX model to a TensorRT engine that is known to agree with it."""

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

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from scrfd_ros.detection.scrfd import OUTPUT_COUNTS, Scrfd
from scrfd_ros.errors import DownloadError, ModelError
from scrfd_ros.evaluation.drawn_faces import drawn_faces, drawn_landmarks
from scrfd_ros.evaluation.parity import (
    Agreement,
    compare_detectors,
    compare_outputs,
    compare_recognizers,
)
from scrfd_ros.files import PICTURE_SUFFIXES, read_picture
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER, load_catalogue
from scrfd_ros.models.download import ensure_model, ensure_picture
from scrfd_ros.networks.build import PRECISIONS, ShapeRange, build_engine
from scrfd_ros.networks.engine_file import (
    EngineFacts,
    check_facts,
    read_facts,
    write_engine,
    write_facts,
)
from scrfd_ros.networks.load import load_network
from scrfd_ros.networks.network import Network
from scrfd_ros.networks.tensorrt import TensorRtNetwork, import_pycuda, read_plan
from scrfd_ros.networks.tensorrt_library import is_strongly_typed, load_tensorrt
from scrfd_ros.recognition.alignment import CROP_SIZE, align_faces
from scrfd_ros.recognition.arcface import ArcFace

_FALLBACKS = {"int8": ("int8", "fp16", "fp32"), "fp16": ("fp16", "fp32"), "fp32": ("fp32",)}
_DETECTOR_SIZE = (640, 640)
_RECOGNIZER_BATCH = (1, 8, 32)
_CHECK_PICTURE = "t1.jpg"  # six people
_CROP_DETECTOR = "2.5g"
_TIMING_CACHE = "timing.cache"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What an engine is to be like.

    Attributes:
        precision: fp16, fp32 or int8; less precise ones fall back to the next if they disagree.
        input_size: width and height, pixels; None for the model's own, or 640x640.
        batch: smallest, usual and largest number of pictures at once; None for 1, or for 1, 8,
            32 with a recogniser that takes any number.
        workspace_mib: most scratch memory, MiB, that a layer may take; None for no limit.
        calibration: folder of pictures with faces, for int8.
    """

    precision: str = "fp16"
    input_size: tuple[int, int] | None = None
    batch: tuple[int, int, int] | None = None
    workspace_mib: int | None = None
    calibration: Path | None = None


def convert(model: Path, engine: Path, settings: Settings) -> EngineFacts:
    """Build an engine that agrees with its ONNX model, and write it with its facts.

    An engine that disagrees is not accepted: INT8 falls back to FP16, and FP16 to FP32.

    Args:
        model: an ONNX file with one input, a batch of pictures.
        engine: file to write; the JSON file of facts is written beside it.
        settings: what the engine is to be like.

    Raises:
        BackendError: there is no CUDA device, TensorRT or pycuda.
        ModelError: the model cannot be built as asked, or every engine disagrees with it.
        ScrfdError: a file cannot be read or written.
    """
    trt, here = load_tensorrt()
    import_pycuda()
    reference = load_network(model)
    shapes = input_shapes(reference, settings)
    failures = []
    for precision in _FALLBACKS[settings.precision]:
        with _elapsed(f"{model.name}: building {precision}"):
            content = typed_model(reference, settings, precision, is_strongly_typed(trt))
            plan = build_engine(
                trt,
                content,
                shapes,
                precision,
                workspace_mib=settings.workspace_mib,
                timing_cache=engine.parent / _TIMING_CACHE,
            )
        facts = EngineFacts(
            engine_sha256=hashlib.sha256(plan).hexdigest(),
            model=model.name,
            model_sha256=reference.sha256,
            normalizes_input=reference.normalizes_input,
            platform=here,
            precision=precision,
            shapes=shapes,
            options={
                "requested_precision": settings.precision,
                "workspace_mib": settings.workspace_mib,
                "calibration": settings.calibration and settings.calibration.name,
            },
            agreement={},
            built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        candidate = TensorRtNetwork(trt, engine, plan, facts)
        agreement = measure_agreement(candidate, reference, shapes, precision)
        if agreement.accepted:
            facts = dataclasses.replace(facts, agreement=agreement.figures)
            write_engine(engine, plan, facts)
            return facts
        failures.append(f"{precision} disagrees with {model.name}: {'; '.join(agreement.failures)}")
        _logger.warning("%s: %s", engine, failures[-1])
    raise ModelError(f"{engine}: not written, for no engine is right: {'. '.join(failures)}")


def verify(engine: Path, model: Path) -> EngineFacts:
    """Hold an engine, perhaps of another program, against its ONNX model, and write its facts.

    Raises:
        BackendError: there is no CUDA device, TensorRT or pycuda.
        ModelError: the engine cannot be loaded, or disagrees with the model.
        ScrfdError: a file cannot be read or written.
    """
    trt, here = load_tensorrt()
    plan = read_plan(engine)
    reference = load_network(model)
    facts = read_facts(engine)
    if facts is not None:
        check_facts(engine, plan, facts, here)
        if facts.model_sha256 != reference.sha256:
            raise ModelError(
                f"{engine}: built from {facts.model} with SHA-256 {facts.model_sha256}, while "
                f"{model} has {reference.sha256}"
            )
    candidate = TensorRtNetwork(trt, engine, plan, facts)
    candidate.normalizes_input = reference.normalizes_input
    if facts is None:
        built = datetime.fromtimestamp(engine.stat().st_mtime, timezone.utc)
        facts = EngineFacts(
            engine_sha256=hashlib.sha256(plan).hexdigest(),
            model=model.name,
            model_sha256=reference.sha256,
            normalizes_input=reference.normalizes_input,
            platform=here,
            precision="unknown",
            shapes=candidate.shapes,
            options={},
            agreement={},
            built=built.isoformat(timespec="seconds"),
        )
    precision = facts.precision if facts.precision in PRECISIONS else "fp16"
    agreement = measure_agreement(candidate, reference, candidate.shapes, precision)
    if not agreement.accepted:
        raise ModelError(f"{engine} disagrees with {model}: {'; '.join(agreement.failures)}")
    facts = dataclasses.replace(facts, agreement=agreement.figures)
    write_facts(engine, facts)
    return facts


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
        ModelError: the model does not take what the settings ask for.
    """
    path = network.path
    if len(network.inputs) != 1 or len(network.inputs[0].shape) != 4:
        found = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in network.inputs)
        raise ModelError(f"{path}: expected one input [N, channels, height, width], found {found}")
    own_batch, channels, own_height, own_width = network.inputs[0].shape
    kind = kind_of(network)
    default = _DETECTOR_SIZE if kind == DETECTOR else (None, None)
    width, height = settings.input_size or (own_width or default[0], own_height or default[1])
    if width is None or height is None or channels is None:
        raise ModelError(f"{path}: its input size is free; choose one with --input-size WxH")
    if own_width not in (None, width) or own_height not in (None, height):
        raise ModelError(
            f"{path}: takes pictures of {own_width}x{own_height} only, not {width}x{height}"
        )
    if settings.batch:
        batches = settings.batch
        if own_batch is not None and set(batches) != {own_batch}:
            wanted = ":".join(map(str, batches))
            raise ModelError(f"{path}: takes a batch of {own_batch} only, not {wanted}")
    elif own_batch is not None:
        batches = (own_batch,) * 3
    else:
        batches = _RECOGNIZER_BATCH if kind == RECOGNIZER else (1, 1, 1)
    return ShapeRange(*((batch, channels, height, width) for batch in batches))


def preparation(network: Network, settings: Settings, tensorrt: tuple[int, ...]) -> str | None:
    """The precision that trtexec needs inside the file; None where the model will do as it is."""
    if settings.precision == "int8" or (settings.precision == "fp16" and tensorrt >= (11, 0)):
        return settings.precision
    return "fp32" if None in network.inputs[0].shape else None


def prepared_model(reference: Network, settings: Settings) -> bytes:
    """The content of an ONNX file with the precision inside and its input's sizes fixed.

    Raises:
        ModelError: the model does not take what is asked for, or the package onnx is missing.
    """
    from scrfd_ros.networks.onnx_shapes import with_input_shape

    content = typed_model(reference, settings, settings.precision, fp16_inside=True)
    return with_input_shape(content, input_shapes(reference, settings))


def typed_model(reference: Network, settings: Settings, precision: str, fp16_inside: bool) -> bytes:
    """The content of an ONNX file in a precision.

    Args:
        reference: the model.
        settings: for the calibration of int8.
        precision: one of `build.PRECISIONS`.
        fp16_inside: fp16 is a matter of the file, rather than of TensorRT.

    Raises:
        ModelError: int8 lacks calibration pictures, or the package onnx is missing.
    """
    # Imported late: needs the package onnx, which FP32 and, on a Jetson, FP16 do without.
    content = reference.path.read_bytes()
    if precision == "int8":
        from scrfd_ros.networks.onnx_precision import to_int8

        return to_int8(content, _calibration_batches(reference, settings))
    if precision == "fp16" and fp16_inside:
        from scrfd_ros.networks.onnx_precision import to_fp16

        return to_fp16(content)
    return content


def _calibration_batches(network: Network, settings: Settings) -> Iterator[NDArray[np.float32]]:
    folder = settings.calibration
    if folder is None:
        raise ModelError(
            "int8 takes pictures to calibrate with, such as the robot will see: "
            "--calibration FOLDER, some tens of them, with faces"
        )
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    if not paths:
        raise ModelError(f"{folder}: no picture for calibration; expected .jpg or .png files")
    pictures = [read_picture(path) for path in paths]
    kind = kind_of(network)
    if kind == RECOGNIZER:
        crops = crops_of(pictures)
        if not len(crops):
            raise ModelError(f"{folder}: no faces in the pictures for calibration")
        yield from ArcFace(network).prepare(crops)[:, None]
    elif kind == DETECTOR:
        _, _, height, width = input_shapes(network, settings).opt
        detector = Scrfd(network, (width, height))
        for picture in pictures:
            detector.prepare(picture)
            yield detector.blob.copy()
    else:
        raise ModelError(f"{network.path}: int8 is for detectors and recognisers only")


def measure_agreement(
    candidate: Network, reference: Network, shapes: ShapeRange, precision: str
) -> Agreement:
    """Compare an engine with its ONNX model: by their faces where it takes single pictures."""
    kind = kind_of(reference) if shapes.min[0] == 1 else None
    _, _, height, width = shapes.opt
    if kind == DETECTOR:
        # Drawn ones too: they are large, and found also where the input is small.
        pictures = [drawn_faces(), *_photographs()]
        return compare_detectors(candidate, reference, pictures, (width, height), precision)
    if kind == RECOGNIZER:
        return compare_recognizers(candidate, reference, _check_crops(), precision)
    noise = np.random.default_rng(0).random(shapes.opt, np.float32)
    return compare_outputs(candidate, reference, {reference.inputs[0].name: noise}, precision)


def _photographs() -> list[NDArray[np.uint8]]:
    """One of six people; none where it cannot be had."""
    try:
        return [read_picture(ensure_picture(_CHECK_PICTURE))]
    except DownloadError as error:
        _logger.info("comparing faces that are drawn only, for lack of a photograph: %s", error)
        return []


def _check_crops() -> NDArray[np.uint8]:
    """Aligned faces, drawn and photographed: uint8 [N, 112, 112, 3] BGR."""
    drawn = align_faces(drawn_faces(), drawn_landmarks())
    try:
        return np.concatenate([drawn, crops_of(_photographs())])
    except DownloadError as error:
        _logger.info("comparing faces that are drawn only, for lack of a detector: %s", error)
        return drawn


def crops_of(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The aligned faces in pictures, uint8 [N, 112, 112, 3] BGR, found on the processor."""
    entry = load_catalogue().find(_CROP_DETECTOR, DETECTOR)
    detector = Scrfd(load_network(ensure_model(entry)))
    crops = [np.zeros((0, CROP_SIZE, CROP_SIZE, 3), np.uint8)]
    for picture in pictures:
        landmarks = detector.detect(picture).landmarks
        assert landmarks is not None, f"{_CROP_DETECTOR} finds landmarks"
        crops.append(align_faces(picture, landmarks))
    return np.concatenate(crops)


@contextlib.contextmanager
def _elapsed(text: str) -> Iterator[None]:
    """Show a clock on a terminal, as TensorRT tells no progress that all its versions have."""
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
