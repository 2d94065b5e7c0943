# SPDX-License-Identifier: Apache-2.0
"""Engines in the folder `engines` beside a model: found if they fit, else built once and kept."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np

from scrfd_ros.errors import ModelError
from scrfd_ros.files import ensure_writable, locked_folder
from scrfd_ros.inference.cuda_api import cuda_api
from scrfd_ros.inference.engine_file import differences, read_metadata
from scrfd_ros.inference.load import ENGINE_SUFFIX, load_network
from scrfd_ros.inference.network import Network
from scrfd_ros.inference.onnx_file import read_model
from scrfd_ros.inference.onnx_parts import input_shapes
from scrfd_ros.inference.tensorrt import read_plan
from scrfd_ros.inference.tensorrt_library import Platform, load_tensorrt

_logger = logging.getLogger(__name__)


def ensure_engine(model: Path, input_size: tuple[int, int] | None, batch: int) -> Path:
    """An engine of a model that fits this machine, built if there is none.

    Args:
        model: an ONNX file with one input.
        input_size: width and height, pixels; None for the model's own.
        batch: maximum batch size; 1 is used where the model has a fixed batch of 1.

    Raises:
        BackendError: there is no CUDA device, TensorRT, cuda-python or pycuda.
        ModelError: the model cannot be read or built.
        ScrfdError: the engine cannot be written.
    """
    engine = find_engine(model, input_size, batch)
    if engine is not None:
        return engine
    _, here = load_tensorrt()
    batch = _usable_batch(model, batch)
    engine = model.parent / "engines" / _engine_name(model, input_size, batch, here)
    ensure_writable(engine)
    folder = engine.parent
    with locked_folder(
        folder, lambda: _logger.warning("waiting for another process that builds in %s", folder)
    ):
        found = _find_engine(model, input_size, batch, here)  # it may have built this one
        if found is not None:
            return found
        # Imported late: an engine is built once, and found at all later starts.
        from scrfd_ros.engines.convert import Settings, convert

        _logger.warning(
            "%s: building a TensorRT engine, once; this takes minutes on a Jetson", model.name
        )
        batches = (1, batch, batch) if batch > 1 else None
        convert(model, engine, Settings(input_size=input_size, batch=batches))
    return engine


def find_engine(model: Path, input_size: tuple[int, int] | None, batch: int) -> Path | None:
    """The newest engine of a model that fits this machine; None if there is none.

    Args and errors are those of `ensure_engine`.
    """
    _, here = load_tensorrt()
    cuda_api()
    return _find_engine(model, input_size, _usable_batch(model, batch), here)


def load_engine(engine: Path, cuda_graph: bool) -> Network:
    """Load an engine and run it once: if it does not run, others can still be chosen.

    Raises:
        ModelError: it cannot be loaded, or does not run.
    """
    network = load_network(engine, cuda_graph=cuda_graph)
    (tensor,) = network.inputs
    sizes = (1 if size is None else size for size in tensor.shape)
    network({tensor.name: np.zeros(tuple(sizes), np.float32)})
    return network


def _usable_batch(model: Path, batch: int) -> int:
    content = read_model(model)
    try:
        shapes = input_shapes(content)
    except ModelError as error:
        raise ModelError(f"{model}: {error}") from error
    return 1 if shapes and shapes[0] and shapes[0][0] is not None else batch


def _engine_name(
    model: Path, input_size: tuple[int, int] | None, batch: int, here: Platform
) -> str:
    """A file name that differs from those of engines for other machines, sizes and batches."""
    parts = [
        model.stem,
        "x".join(map(str, input_size or ())),
        f"b{batch}" if batch > 1 else "",
        f"sm{here.compute_capability.replace('.', '')}",
        here.tensorrt.replace(" ", "-"),
    ]
    return "_".join(filter(None, parts)) + ENGINE_SUFFIX


def _find_engine(
    model: Path, input_size: tuple[int, int] | None, batch: int, here: Platform
) -> Path | None:
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
                and metadata.shapes.max[0] >= batch
                and input_size in (None, metadata.shapes.min[:1:-1])
                and hashlib.sha256(read_plan(engine)).hexdigest() == metadata.engine_sha256
            ):
                found.append((metadata.built, engine))
        except ModelError as error:
            _logger.warning("engine ignored: %s", error)
    if not found:
        return None
    _, engine = max(found)
    _logger.info("%s: taking the engine %s", model.name, engine)
    return engine
