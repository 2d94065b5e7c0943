# SPDX-License-Identifier: Apache-2.0
"""The backends, and how to load a model file with one of them."""

from __future__ import annotations

import importlib
from importlib.machinery import PathFinder
from pathlib import Path

from scrfd_ros.inference.network import Network

BACKEND_MODULES = {
    "tensorrt": "scrfd_ros.inference.tensorrt",
    "onnxruntime": "scrfd_ros.inference.onnx_runtime",
    "openvino": "scrfd_ros.inference.openvino",
}
"""Name of each backend, and the module that has its `load`: see `scrfd_ros.inference`."""

BACKENDS = ("auto", *BACKEND_MODULES)
"""Values of the parameter `backend`; `scrfd_ros.engines.open.open_network` chooses for auto."""

ENGINE_SUFFIX = ".engine"


def has_openvino() -> bool:
    """Whether OpenVINO is installed, without loading it."""
    found = PathFinder.find_spec("openvino")
    return found is not None and found.origin is not None  # not any folder of that name


def load_network(
    path: Path, backend: str | None = None, *, threads: int = 0, cuda_graph: bool = False
) -> Network:
    """Load a model file, ready to run.

    Args:
        path: an engine of TensorRT if it ends in .engine, else an ONNX file.
        backend: a key of `BACKEND_MODULES` that runs such files; None for TensorRT with an engine
            and ONNX Runtime with an ONNX file.
        threads: on the processor; 0 for one for each core that this process may use.
        cuda_graph: with TensorRT, see `TensorRtNetwork`.

    Raises:
        BackendError: the backend's library or device is missing on this machine.
        ModelError: the file cannot be used.
    """
    if backend is None:
        backend = "tensorrt" if path.suffix == ENGINE_SUFFIX else "onnxruntime"
    # Imported late: no backend needs what another one does.
    module = importlib.import_module(BACKEND_MODULES[backend])
    network: Network = module.load(path, threads=threads, cuda_graph=cuda_graph)
    return network
