# SPDX-License-Identifier: Apache-2.0
"""A model file is loaded by the backend for its kind."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path

import pytest
from onnx_files import write_recognizer

from scrfd_ros.engines.convert import Settings, convert
from scrfd_ros.errors import BackendError, ModelError
from scrfd_ros.inference.load import BACKEND_MODULES, has_openvino, load_network


def test_onnx(tmp_path: Path) -> None:
    path = write_recognizer(tmp_path / "any.onnx")
    network = load_network(path)
    assert network.path == path and network.backend.startswith("onnxruntime ")


@pytest.mark.usefixtures("simulated_gpu")
def test_engine(tmp_path: Path) -> None:
    path = tmp_path / "any.engine"
    convert(write_recognizer(tmp_path / "any.onnx"), path, Settings())
    network = load_network(path)
    assert network.path == path and network.backend.startswith("tensorrt ")


@pytest.mark.usefixtures("without_gpu")
def test_engine_where_there_is_no_gpu(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no CUDA device"):
        load_network(tmp_path / "any.engine")


def test_a_folder_named_openvino_is_not_openvino(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    (tmp_path / "openvino").mkdir()
    assert not has_openvino()
    (tmp_path / "openvino" / "__init__.py").touch()
    importlib.invalidate_caches()
    assert has_openvino()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx: cannot read the model file"):
        load_network(tmp_path / "none.onnx")


@pytest.mark.parametrize("module", BACKEND_MODULES.values())
def test_a_backend_is_a_module_with_a_load_function(
    module: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if module == BACKEND_MODULES["openvino"]:
        monkeypatch.syspath_prepend(request.getfixturevalue("openvino_folder"))
    load = importlib.import_module(module).load
    assert list(inspect.signature(load).parameters) == ["path", "threads", "cuda_graph"]


def test_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_recognizer(tmp_path / "any.onnx")
    monkeypatch.delitem(sys.modules, BACKEND_MODULES["onnxruntime"], raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match=r"onnxruntime, which is not installed: pip install onn"):
        load_network(path)
