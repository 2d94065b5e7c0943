# SPDX-License-Identifier: Apache-2.0
"""Load a model file with the backend it is made for."""

from __future__ import annotations

from pathlib import Path

from scrfd_ros.errors import ModelError
from scrfd_ros.inference.network import Network

BACKENDS = ("auto", "tensorrt", "onnxruntime")
"""What can be asked for to run a network; see `scrfd_ros.engines.open.open_network`."""

ENGINE_SUFFIX = ".engine"


def load_network(path: Path, *, cuda_graph: bool = False, threads: int = 0) -> Network:
    """Load a model file, ready to run.

    Args:
        path: an engine of TensorRT if it ends in .engine, else an ONNX file.
        cuda_graph: see `TensorRtNetwork`; has no effect on ONNX files.
        threads: see `OnnxRuntimeNetwork`; has no effect on engines.

    Raises:
        BackendError: what runs such files is missing on this machine.
        ModelError: the file cannot be used.
    """
    # Imported late: neither backend needs what the other does.
    if path.suffix == ENGINE_SUFFIX:
        from scrfd_ros.inference.tensorrt import open_engine

        return open_engine(path, cuda_graph=cuda_graph)
    try:
        from scrfd_ros.inference.onnx_runtime import OnnxRuntimeNetwork
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{path}: running a network takes the Python package {error.name}, which is not "
            f"installed: pip install onnxruntime"
        ) from error
    return OnnxRuntimeNetwork(path, threads)
