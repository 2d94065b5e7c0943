"""The back end is chosen by name, and what is not supported is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx_files import write_recognizer

from scrfd_ros.errors import ModelError
from scrfd_ros.networks.load import BACKENDS, load_network


@pytest.mark.parametrize("backend", BACKENDS)
def test_loads_onnx(tmp_path: Path, backend: str) -> None:
    path = write_recognizer(tmp_path / "any.onnx")
    network = load_network(path, backend)
    assert network.path == path and network.backend.startswith("onnxruntime ")


def test_unknown_backend(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="unknown backend 'openvino'; expected one of auto, onnx"):
        load_network(tmp_path / "any.onnx", "openvino")


def test_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"any\.engine: TensorRT engines are not supported yet"):
        load_network(tmp_path / "any.engine")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx: cannot read the model file"):
        load_network(tmp_path / "none.onnx")
