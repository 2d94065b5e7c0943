# SPDX-License-Identifier: Apache-2.0
"""TensorRT is imported only after CUDA was found, and its absence is explained."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scrfd_ros.errors import BackendError
from scrfd_ros.inference.tensorrt_library import (
    import_tensorrt,
    load_tensorrt,
    message_log,
)

NO_TENSORRT = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")


@pytest.mark.usefixtures("simulated_gpu")
def test_platform() -> None:
    trt, here = load_tensorrt()
    assert trt.__version__ == "10.3.0"
    assert (here.gpu, here.compute_capability, here.cuda) == ("Simulated", "8.7", "12.6")
    assert here.tensorrt == "tensorrt 10.3.0"
    assert str(here).startswith("Simulated (compute capability 8.7), tensorrt 10.3.0, CUDA 12.6, ")


@pytest.mark.usefixtures("simulated_gpu", "without_gpu")
def test_tensorrt_is_not_imported_without_a_device() -> None:
    with pytest.raises(BackendError, match=r"^no CUDA device: .*. Engines cannot be built "):
        load_tensorrt()
    assert "tensorrt" not in sys.modules


@pytest.mark.usefixtures("simulated_gpu")
def test_old_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMULATED_TENSORRT_VERSION", "8.4.1.5")
    with pytest.raises(BackendError, match=r"TensorRT 8\.4\.1\.5 is too old; 8\.5 or newer"):
        import_tensorrt()


def test_no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NO_TENSORRT:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match="TensorRT is not installed for this Python"):
        import_tensorrt()


def test_broken_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NO_TENSORRT[1:]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: no such file')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BackendError, match=r"\(tensorrt: libnvinfer\.so\.10: no such file\)"):
        import_tensorrt()


@pytest.mark.usefixtures("simulated_gpu")
def test_log_keeps_errors() -> None:
    trt = import_tensorrt()
    log = message_log(trt)
    log.forget()
    assert log.errors() == "TensorRT gave no reason"
    log.log(trt.ILogger.Severity.WARNING, "harmless")
    assert log.errors() == "harmless", "better than nothing"
    log.log(trt.ILogger.Severity.ERROR, "first\n line")
    log.log(trt.ILogger.Severity.INTERNAL_ERROR, "second")
    assert log.errors() == "first line; second"
