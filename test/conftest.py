# SPDX-License-Identifier: Apache-2.0
"""Fixtures: real weights and real images, downloaded once and verified by checksum.

And the environment of every ROS 2 program that a test starts: a DDS domain of its own, and the
transport for large images.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scrfd_ros.errors import DownloadError
from scrfd_ros.images.files import read_image
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER, load_catalogue
from scrfd_ros.models.download import ensure_model, ensure_picture

LARGEST_SAFE_DOMAIN = 101  # above it, ports collide with those Linux gives to clients

ROOT = Path(__file__).parents[1]
SIMULATED_GPU = Path(__file__).parent / "simulated_gpu"

os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % LARGEST_SAFE_DOMAIN)
for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
    os.environ[name] = str(ROOT / "config" / "fastdds.xml")


_failed: dict[str, str] = {}


def fetched(ensure: Callable[..., Path], name: str, kind: str | None = None) -> Path:
    """A downloaded file. Where it cannot be had, `colcon test` skips the test."""
    if name in _failed:
        pytest.skip(_failed[name])
    try:
        return ensure(load_catalogue().find(name, kind) if kind else name)
    except DownloadError as error:
        if "SCRFD_SKIP_WITHOUT_MODELS" not in os.environ:
            raise
        _failed[name] = str(error)
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def detector_path() -> Callable[[str], Path]:
    """Path of a real detector by its name in the catalogue."""
    return lambda name: fetched(ensure_model, name, DETECTOR)


@pytest.fixture(scope="session")
def recognizer_path() -> Callable[[str], Path]:
    """Path of a real recognizer by its name in the catalogue."""
    return lambda name: fetched(ensure_model, name, RECOGNIZER)


@pytest.fixture(scope="session")
def openvino_folder() -> Path:
    """The folder in which run.sh has installed OpenVINO, which `auto` must not see elsewhere."""
    folder = Path(sys.prefix, "openvino")
    if not folder.is_dir():
        pytest.skip(f"OpenVINO is not in {folder}, where ./run.sh test installs it")
    return folder


@pytest.fixture(scope="session")
def image() -> Callable[[str], NDArray[np.uint8]]:
    """A real image by its file name, uint8 [H, W, 3] BGR."""
    return lambda name: read_image(fetched(ensure_picture, name))


@pytest.fixture(scope="session")
def det_500m_path(detector_path: Callable[[str], Path]) -> Path:
    """A real export with numbers for output names and outputs of rank 2."""
    return detector_path("det_500m")


@pytest.fixture(scope="session")
def simulated_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libcuda.so.1 and kernels for it; see simulated_gpu/cuda.c."""
    folder = tmp_path_factory.mktemp("driver")
    shared = ["-shared", "-fPIC", "-O2", "-ffp-contract=off"]
    library = [*shared, "-Wl,-soname,libcuda.so.1", "-o", folder / "libcuda.so.1"]
    command = [os.environ.get("CC", "cc"), *library, SIMULATED_GPU / "cuda.c", "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    sources = [SIMULATED_GPU / "add.cu", *(ROOT / "scrfd_ros" / "detection").glob("*.cu")]
    kernels = [*shared, "-include", SIMULATED_GPU / "cuda_words.h", "-o", folder / "kernels.so"]
    command = [os.environ.get("CXX", "c++"), *kernels, "-x", "c++", *sources]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def no_device_after_the_simulated_one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where there is no real driver, there is none after tests with `simulated_gpu` either.

    The simulated one stays loaded, and would be found by its name.
    """
    from scrfd_ros.inference import cuda

    # In another process: loaded here, the real one would take the place of the simulated one.
    # A fork, since an emulated Python cannot be started by its name.
    child = os.fork()
    if not child:
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            os._exit(1)
        os._exit(0)
    is_missing = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with pytest.MonkeyPatch.context() as patch:
        if is_missing:
            nowhere = tmp_path_factory.mktemp("no_driver") / "libcuda.so.1"
            patch.setattr(cuda, "_LIBRARY", str(nowhere))
        yield


@pytest.fixture
def simulated_gpu(simulated_driver: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """A machine with a GPU, TensorRT 10.3 and pycuda, of which nothing is real; gives its driver.

    cuda-python, where it is installed, is the real one.
    """
    from scrfd_ros.inference import cuda
    from scrfd_ros.inference.cuda_api import cuda_api

    names = ("tensorrt", "pycuda", "pycuda.driver")
    real = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    path = simulated_driver / "libcuda.so.1"
    driver = ctypes.CDLL(str(path))
    # cuda-python takes a library of this name that is loaded already.
    if not hasattr(ctypes.CDLL("libcuda.so.1"), "simulated_restart"):
        pytest.skip("this process has loaded the real NVIDIA driver")
    driver.simulated_restart()
    driver.simulated_memory.restype = ctypes.c_size_t
    monkeypatch.setattr(cuda, "_LIBRARY", str(path))
    monkeypatch.syspath_prepend(str(SIMULATED_GPU))
    cuda_api.cache_clear()
    yield driver
    cuda_api.cache_clear()
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(real)


@pytest.fixture
def without_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the NVIDIA driver, also where this one has it."""
    from scrfd_ros.inference import cuda

    monkeypatch.setattr(cuda, "_LIBRARY", str(tmp_path / "libcuda.so.1"))
