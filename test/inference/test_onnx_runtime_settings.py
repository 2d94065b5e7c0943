# SPDX-License-Identifier: Apache-2.0
"""The threads and memory of ONNX Runtime, and the log if its GPU provider does not start.

There is no GPU here: simulated sessions stand in for an ONNX Runtime with CUDA.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from onnx_files import write_recognizer

from scrfd_ros.inference import onnx_runtime
from scrfd_ros.inference.cores import usable_cores
from scrfd_ros.inference.load import load_network

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.fixture(autouse=True)
def nothing_said_yet() -> Iterator[None]:
    onnx_runtime._log_fallback.cache_clear()
    yield
    onnx_runtime._log_fallback.cache_clear()


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_threads(threads: int, tmp_path: Path) -> None:
    network: Any = load_network(write_recognizer(tmp_path / "any.onnx"), threads=threads)
    options = network._session.get_session_options()
    assert options.intra_op_num_threads == (threads or usable_cores())


ENV_ALLOCATORS = "session.use_env_allocators"


def test_networks_share_their_memory(tmp_path: Path) -> None:
    network: Any = load_network(write_recognizer(tmp_path / "any.onnx"))
    assert network._session.get_session_options().get_session_config_entry(ENV_ALLOCATORS) == "1"


def test_memory_that_cannot_be_shared_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("an allocator has been registered")

    monkeypatch.setattr(onnxruntime, "create_and_register_allocator", refuse)
    uncached = onnx_runtime._shares_memory.__wrapped__
    monkeypatch.setattr(onnx_runtime, "_shares_memory", uncached)
    network: Any = load_network(write_recognizer(tmp_path / "any.onnx"))
    with pytest.raises(RuntimeError, match=ENV_ALLOCATORS):
        network._session.get_session_options().get_session_config_entry(ENV_ALLOCATORS)


def pretend_cuda(monkeypatch: pytest.MonkeyPatch, *, starts: bool) -> None:
    real = onnxruntime.InferenceSession

    class Session:
        def __init__(self, path: str, options: Any, providers: list[str]) -> None:
            assert providers == [CUDA, CPU]
            self._session = real(path, options, providers=[CPU])

        def get_providers(self) -> list[str]:
            return [CUDA, CPU] if starts else [CPU]

        def __getattr__(self, name: str) -> Any:
            return getattr(self._session, name)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)


@pytest.mark.usefixtures("simulated_gpu")
def test_a_provider_that_does_not_start_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend_cuda(monkeypatch, starts=False)
    path = write_recognizer(tmp_path / "any.onnx")
    with caplog.at_level(logging.INFO):
        networks = [load_network(path) for _ in range(2)]
    assert [network.backend for network in networks] == ["onnxruntime CPU"] * 2
    assert not networks[0].on_gpu
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(
        f"ONNX Runtime runs on {CPU}: its {CUDA} does not start on this "
    )


@pytest.mark.usefixtures("without_gpu")
def test_no_gpu_at_all_is_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend_cuda(monkeypatch, starts=False)
    with caplog.at_level(logging.INFO):
        load_network(write_recognizer(tmp_path / "any.onnx"))
    (record,) = caplog.records
    assert record.levelname == "INFO" and "no CUDA device" in record.getMessage()


def test_a_provider_that_starts_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend_cuda(monkeypatch, starts=True)
    with caplog.at_level(logging.INFO):
        network = load_network(write_recognizer(tmp_path / "any.onnx"))
    assert network.backend == "onnxruntime CUDA" and network.on_gpu
    assert not caplog.records
