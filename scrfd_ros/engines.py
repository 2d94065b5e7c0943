"""Which engine runs a model: found among those there are, or built once and kept."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from scrfd_ros.convert import Settings, convert
from scrfd_ros.errors import BackendError, ModelError, ScrfdError
from scrfd_ros.networks.engine_file import differences, read_facts
from scrfd_ros.networks.load import BACKENDS, ENGINE_SUFFIX, load_network
from scrfd_ros.networks.network import Network
from scrfd_ros.networks.tensorrt import import_pycuda, read_plan
from scrfd_ros.networks.tensorrt_library import Platform, load_tensorrt

_logger = logging.getLogger(__name__)


def open_network(
    path: Path,
    backend: str = "auto",
    *,
    input_size: tuple[int, int] | None = None,
    cuda_graph: bool = False,
) -> Network:
    """Load a model with the backend that is asked for, or the best one there is.

    For an ONNX file TensorRT takes an engine of it from the folder `engines` beside it, built on
    first use. Which backend was taken, and why, is logged.

    Args:
        path: an ONNX file, or an engine, which only TensorRT runs.
        backend: one of `BACKENDS`; auto takes TensorRT where there are a CUDA device and an
            engine or the means to build one, else ONNX Runtime.
        input_size: width and height, pixels, that the network is to take; None for its own.
        cuda_graph: see `TensorRtNetwork`.

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
        return load_network(path)
    try:
        engine = _ensure_engine(path, Settings(input_size=input_size))
        return load_network(engine, cuda_graph=cuda_graph)
    except ScrfdError as error:
        if backend == "tensorrt":
            raise
        # A machine without CUDA is nothing unusual; a GPU that cannot be used is.
        level = logging.INFO if isinstance(error, BackendError) else logging.WARNING
        _logger.log(level, "%s runs on ONNX Runtime: %s", path.name, error)
        return load_network(path)


def _ensure_engine(model: Path, settings: Settings) -> Path:
    """An engine of a model that fits this machine, built if there is none."""
    _, here = load_tensorrt()
    import_pycuda()
    engine = _find_engine(model, settings, here)
    if engine is not None:
        return engine
    folder = model.parent / "engines"
    with _locked(folder):
        # Another node may have built it meanwhile.
        engine = _find_engine(model, settings, here)
        if engine is None:
            size = "x".join(map(str, settings.input_size or ()))
            engine = folder / f"{'_'.join(filter(None, (model.stem, size)))}{ENGINE_SUFFIX}"
            _logger.info(
                "%s: building a TensorRT engine, once; this takes minutes on a Jetson", model.name
            )
            convert(model, engine, settings)
    return engine


def _find_engine(model: Path, settings: Settings, here: Platform) -> Path | None:
    """The newest engine of this model, input size and machine, whatever its name."""
    engines = [
        path.with_suffix("")
        for path in (model.parent / "engines").glob(f"*{ENGINE_SUFFIX}.json")
        if path.with_suffix("").is_file()
    ]
    sha256 = hashlib.sha256(read_plan(model)).hexdigest() if engines else ""
    for engine in sorted(engines, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            facts = read_facts(engine)
        except ModelError as error:
            _logger.warning("%s", error)
            continue
        if (
            facts is not None
            and facts.model_sha256 == sha256
            and not differences(facts.platform, here)
            and facts.shapes.min[0] == 1
            and settings.input_size in (None, facts.shapes.min[:1:-1])
            and hashlib.sha256(read_plan(engine)).hexdigest() == facts.engine_sha256
        ):
            _logger.info("%s: taking the engine %s", model.name, engine)
            return engine
    return None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes that do the same out of a folder, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ScrfdError(f"{folder}: cannot be used for engines: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
