# SPDX-License-Identifier: Apache-2.0
"""The CUDA driver, here a simulated one, is probed safely, whatever it answers."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from scrfd_ros.errors import BackendError
from scrfd_ros.inference import cuda
from scrfd_ros.inference.cuda import CudaDevice, cuda_device, device_memory


@pytest.fixture
def driver(simulated_driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_LIBRARY", str(simulated_driver / "libcuda.so.1"))


@pytest.mark.usefixtures("driver")
def test_device() -> None:
    assert cuda_device() == CudaDevice("Simulated", "8.7", "12.6")


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(
            "cuInit 100", "cuInit failed with 100, no CUDA-capable device is detected", id="broken"
        ),
        pytest.param("no devices", "the NVIDIA driver finds 0 devices", id="none"),
    ],
)
def test_no_device(answer: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMULATED_CUDA", answer)
    with pytest.raises(BackendError, match=f"^no CUDA device: {reason}$"):
        cuda_device()


@pytest.mark.usefixtures("without_gpu")
def test_no_driver() -> None:
    with pytest.raises(BackendError, match="no CUDA device: the NVIDIA driver is not installed"):
        cuda_device()


@pytest.mark.usefixtures("driver")
def test_memory_of_the_device() -> None:
    simulated = ctypes.CDLL(cuda._LIBRARY)
    simulated.simulated_memory.restype = ctypes.c_size_t
    contexts, before = simulated.simulated_contexts, simulated.simulated_contexts()
    ours = simulated.simulated_memory(1)
    assert device_memory() == ((3 << 30) + ours, 8 << 30)
    assert contexts() == before, "nothing is left"


@pytest.mark.usefixtures("without_gpu")
def test_no_memory_without_a_driver() -> None:
    with pytest.raises(BackendError, match="the NVIDIA driver is not installed"):
        device_memory()


def test_the_simulated_driver_is_found_only_by_tests_that_ask_for_it(
    simulated_driver: Path,
) -> None:
    if not Path(cuda._LIBRARY).is_absolute():
        pytest.skip("this machine has a driver")
    ctypes.CDLL(str(simulated_driver / "libcuda.so.1"))
    assert ctypes.CDLL("libcuda.so.1")  # it stays loaded, under its name
    with pytest.raises(BackendError, match="the NVIDIA driver is not installed"):
        cuda_device()
