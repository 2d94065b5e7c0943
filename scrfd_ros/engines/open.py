# SPDX-License-Identifier: Apache-2.0
"""Which engine runs a model: found among those there are, or built once and kept."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from scrfd_ros.engines.convert import Settings, convert
from scrfd_ros.errors import BackendError, ModelError, ScrfdError
from scrfd_ros.inference.cuda import cuda_device
from scrfd_ros.inference.engine_file import differences, read_metadata
from scrfd_ros.inference.load import BACKENDS, ENGINE_SUFFIX, load_network
from scrfd_ros.inference.network import Network
from scrfd_ros.inference.onnx_file import read_model
from scrfd_ros.inference.tensorrt import import_pycuda, read_plan
from scrfd_ros.inference.tensorrt_library import Platform, load_tensorrt

_logger = logging.getLogger(__name__)


def open_network(
    path: Path,
    backend: str = "auto",
    *,
    input_size: tuple[int, int] | None = None,
    batch: int = 1,
    cuda_graph: bool = False,
    threads: int = 0,
) -> Network:
    """Load a model with the backend that is asked for, or the best one there is.

    For an ONNX file with one input TensorRT takes an engine of it from the folder `engines` beside
    it, built on first use. Which backend was taken, and why, is logged.

    Args:
        path: an ONNX file, or an engine, which only TensorRT runs.
        backend: one of `BACKENDS`; auto takes TensorRT where there are a CUDA device and an
            engine or the means to build one, else ONNX Runtime.
        input_size: width and height, pixels, that the network is to take; None for its own.
        batch: so many images an engine is to take at once; 1 where the model takes no more.
        cuda_graph: see `TensorRtNetwork`.
        threads: see `OnnxRuntimeNetwork`.

    Raises:
        BackendError: the backend is not there.
        ModelError: the file cannot be used.
    """
    if backend not in BACKENDS:
        raise ModelError(f"unknown backend {backend!r}; expected one of {', '.join(BACKENDS)}")
    if path.suffix == ENGINE_SUFFIX:
        if backend == "onnxruntime":
            raise ModelError(
                f"{path}: ONNX Runtime does not run TensorRT engines; give the .onnx file it was "
                f"built from, or choose the backend tensorrt"
            )
        return load_network(path, cuda_graph=cuda_graph)
    if backend == "onnxruntime":
        return load_network(path, threads=threads)
    try:
        batches = (1, batch, batch) if batch > 1 else None
        engine = _ensure_engine(path, Settings(input_size=input_size, batch=batches))
        network = load_network(engine, cuda_graph=cuda_graph)
        # What does not run should be known now, while there is another backend.
        (tensor,) = network.inputs
        sizes = (1 if size is None else size for size in tensor.shape)
        network({tensor.name: np.zeros(tuple(sizes), np.float32)})
    except ScrfdError as error:
        if backend == "tensorrt":
            raise
        reason = _why_no_device()
        if reason is None:
            _logger.warning(
                "%s runs on ONNX Runtime: %s. TensorRT is tried again at every start; the backend "
                "onnxruntime does without",
                path.name,
                error,
            )
        else:
            _say_why_no_gpu(reason)
        return load_network(path, threads=threads)
    return network


@functools.cache  # once for all networks
def _say_why_no_gpu(reason: str) -> None:
    _logger.info("networks run on ONNX Runtime: %s", reason)


def _why_no_device() -> str | None:
    """What is in the way of a CUDA device; None where there is one."""
    try:
        cuda_device()
    except BackendError as error:
        return str(error)
    return None


def _ensure_engine(model: Path, settings: Settings) -> Path:
    """An engine of a model that fits this machine, built if there is none."""
    _, here = load_tensorrt()
    import_pycuda()
    engine = _find_engine(model, settings, here)
    if engine is None and settings.batch and load_network(model).inputs[0].shape[0] is not None:
        settings = replace(settings, batch=None)  # the model takes one image at a time
        engine = _find_engine(model, settings, here)
    if engine is not None:
        return engine
    folder = model.parent / "engines"
    with _locked(folder):
        # Another node may have built it meanwhile.
        engine = _find_engine(model, settings, here)
        if engine is None:
            engine = folder / _engine_name(model, settings, here)
            _logger.warning(
                "%s: building a TensorRT engine, once; this takes minutes on a Jetson", model.name
            )
            convert(model, engine, settings)
    return engine


def _engine_name(model: Path, settings: Settings, here: Platform) -> str:
    """Such that engines for other machines and sizes are left alone."""
    parts = [
        model.stem,
        "x".join(map(str, settings.input_size or ())),
        f"b{settings.batch[-1]}" if settings.batch else "",
        f"sm{here.compute_capability.replace('.', '')}",
        here.tensorrt.replace(" ", "-"),
    ]
    return "_".join(filter(None, parts)) + ENGINE_SUFFIX


def _find_engine(model: Path, settings: Settings, here: Platform) -> Path | None:
    """The newest engine of this model, input size and machine, whatever its name."""
    sha256 = hashlib.sha256(read_model(model)).hexdigest()
    found: list[tuple[str, Path]] = []
    for path in (model.parent / "engines").glob(f"*{ENGINE_SUFFIX}.json"):
        engine = path.with_suffix("")
        try:
            metadata = read_metadata(engine)
            if (
                metadata is not None
                and metadata.model_sha256 == sha256
                and not differences(metadata.platform, here)
                and metadata.shapes.min[0] == 1
                and metadata.shapes.max[0] >= (settings.batch or (1,))[-1]
                and settings.input_size in (None, metadata.shapes.min[:1:-1])
                and hashlib.sha256(read_plan(engine)).hexdigest() == metadata.engine_sha256
            ):
                found.append((metadata.built, engine))
        except ModelError as error:
            _logger.warning("not taken: %s", error)
    if not found:
        return None
    _, engine = max(found)
    _logger.info("%s: taking the engine %s", model.name, engine)
    return engine


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes that do the same out of a folder, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ScrfdError(f"{folder}: cannot be used for engines: {error.strerror}") from error
    try:
        if not os.access(folder, os.W_OK):  # known before minutes of building, not after
            raise ScrfdError(f"{folder}: cannot be used for engines: it cannot be written")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _logger.warning("waiting for another process that builds in %s", folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
