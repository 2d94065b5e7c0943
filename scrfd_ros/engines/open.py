# SPDX-License-Identifier: Apache-2.0
"""Which backend runs a model on this machine."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from scrfd_ros.errors import BackendError, ModelError, ScrfdError
from scrfd_ros.inference.cuda import cuda_device
from scrfd_ros.inference.load import BACKENDS, ENGINE_SUFFIX, has_openvino, load_network
from scrfd_ros.inference.network import Network
from scrfd_ros.inference.onnx_file import read_file

if TYPE_CHECKING:  # it loads what only machines with a GPU need
    from scrfd_ros.engines.sized import SizedEngines

_logger = logging.getLogger(__name__)


def open_network(
    path: Path,
    backend: str = "auto",
    *,
    input_size: tuple[int, int] | None = None,
    any_size: bool = False,
    batch: int = 1,
    cuda_graph: bool = False,
    threads: int = 0,
) -> Network:
    """Load a model with a backend, by default the best one that works here.

    For an ONNX file TensorRT loads an engine from the folder `engines` beside it, which is built on
    first use. The choice of the backend and its reason are logged.

    Args:
        path: an ONNX file, or an engine, which only TensorRT runs.
        backend: one of `BACKENDS`; auto is TensorRT where there is a CUDA device and an engine, or
            the means to build one, else ONNX Runtime, or OpenVINO where it is installed and
            faster: see `scrfd_ros.engines.quickest`.
        input_size: width and height, pixels, of the engine's input, and of images that a detector
            has to take; None for the model's own. A detector's file that takes another size only
            is changed, see `scrfd_ros.engines.free_size`.
        any_size: on other backends than TensorRT, change such a detector's file even if it takes
            `input_size`, so that it takes any. Where a change is impossible, it is logged once, and
            the network takes the file's own size.
        batch: maximum batch size of the engine; 1 where the model has a fixed batch of 1.
        cuda_graph, threads: see `load_network`.

    Raises:
        BackendError: the backend's library or device is missing on this machine.
        ModelError: the file cannot be used.
    """
    if backend not in BACKENDS:
        raise ModelError(f"unknown backend {backend!r}; expected one of {', '.join(BACKENDS)}")
    if path.suffix == ENGINE_SUFFIX:
        if backend not in ("auto", "tensorrt"):
            raise ModelError(
                f"{path}: {backend} does not run TensorRT engines; give the .onnx file it was "
                f"built from, or choose the backend tensorrt"
            )
        return load_network(path, cuda_graph=cuda_graph)

    def load_onnx(backend: str = "onnxruntime") -> Network:
        if input_size is not None or any_size:
            from scrfd_ros.engines.free_size import load_for_size

            return load_for_size(path, input_size, backend, any_size=any_size, threads=threads)
        if backend == "onnxruntime":
            from scrfd_ros.engines.prelu import load_without_prelu

            return load_without_prelu(path, threads=threads)
        return load_network(path, backend, threads=threads)

    if backend == "tensorrt":
        return _open_engine(path, input_size, any_size, batch, cuda_graph)
    if backend == "auto":
        try:
            cuda_device()
        except BackendError as error:
            openvino = " or OpenVINO" if has_openvino() else ""
            _log_no_device(f"ONNX Runtime{openvino}", str(error))
            if not openvino:
                return load_onnx()
            # Imported late: machines without OpenVINO do not need it.
            from scrfd_ros.engines.quickest import quickest_backend

            return load_onnx(quickest_backend(path, input_size, any_size, threads))
        try:
            return _open_engine(path, input_size, any_size, batch, cuda_graph)
        except ScrfdError as error:
            _logger.warning(
                "%s runs on ONNX Runtime: %s. TensorRT is tried again at every start; to stop "
                "that, choose the backend onnxruntime",
                path.name,
                error,
            )
        return load_onnx()
    return load_onnx(backend)


def engines_of_sizes(
    network: Network, path: Path, *, batch: int, cuda_graph: bool, is_live: bool
) -> SizedEngines | None:
    """Engines of a network for other sizes of its input; None if it needs none, or cannot have any.

    Args:
        network: what `open_network` gave for `path`, `batch` and `cuda_graph`.
        is_live: see `SizedEngines`.
    """
    if network.device is None or path.suffix == ENGINE_SUFFIX:
        return None
    from scrfd_ros.engines.free_size import takes_any_size
    from scrfd_ros.engines.sized import SizedEngines

    if not takes_any_size(path):
        return None
    return SizedEngines(path, batch=batch, cuda_graph=cuda_graph, is_live=is_live)


def _open_engine(
    model: Path, input_size: tuple[int, int] | None, any_size: bool, batch: int, cuda_graph: bool
) -> Network:
    # Imported late: machines without a GPU do not need it.
    from scrfd_ros.engines.cache import ensure_engine, load_engine
    from scrfd_ros.engines.free_size import fixed_size, takes_any_size

    if any_size and fixed_size(read_file(model)) not in (None, input_size):
        input_size = input_size if takes_any_size(model) else None  # its own
    return load_engine(ensure_engine(model, input_size, batch), cuda_graph)


@functools.cache  # once for all networks
def _log_no_device(backends: str, reason: str) -> None:
    _logger.info("networks run on %s: %s", backends, reason)
