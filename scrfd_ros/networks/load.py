"""Pick what runs a network."""

from __future__ import annotations

from pathlib import Path

from scrfd_ros.errors import ModelError
from scrfd_ros.networks.network import Network

BACKENDS = ("auto", "onnxruntime")


def load_network(path: Path, backend: str = "auto") -> Network:
    """Load a model file, ready to run.

    Args:
        path: an ONNX file.
        backend: one of `BACKENDS`; auto takes the best one that can run the file.

    Raises:
        ModelError: the file cannot be used, or ONNX Runtime is not installed.
    """
    if backend not in BACKENDS:
        raise ModelError(f"unknown backend {backend!r}; expected one of {', '.join(BACKENDS)}")
    if path.suffix == ".engine":
        raise ModelError(
            f"{path}: TensorRT engines are not supported yet; give the .onnx file it was built from"
        )
    try:
        from scrfd_ros.networks.onnx_runtime import OnnxRuntimeNetwork
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{path}: running a network takes the Python package {error.name}, which is not "
            f"installed: pip install onnxruntime"
        ) from error
    return OnnxRuntimeNetwork(path)
