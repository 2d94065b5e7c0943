# SPDX-License-Identifier: Apache-2.0
"""cuda-python and pycuda, each where it is installed, on a real GPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from adder import ADD, Adder

from scrfd_ros.errors import BackendError
from scrfd_ros.inference.cuda import cuda_device
from scrfd_ros.inference.cuda_api import CudaApi, CudaPython, PyCuda

try:
    cuda_device()
except BackendError as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture(params=[CudaPython, PyCuda])
def cuda(request: pytest.FixtureRequest) -> Iterator[CudaApi]:
    try:
        api: CudaApi = request.param()
    except ImportError as error:
        pytest.skip(str(error))
    with api.current():
        yield api


def test_a_kernel_and_its_graph(cuda: CudaApi) -> None:
    adder = Adder(cuda)
    adder.array[:] = range(10)
    adder.add(5)
    cuda.synchronize(adder.stream)
    np.testing.assert_array_equal(adder.array, np.arange(10) + 5)
    graph = cuda.graph(adder.stream, adder.add)
    for _ in range(3):
        graph.launch()
    cuda.synchronize(adder.stream)
    np.testing.assert_array_equal(adder.array, np.arange(10) + 20)


def test_times(cuda: CudaApi) -> None:
    adder, start, end = Adder(cuda), cuda.event(), cuda.event()
    cuda.record(start, adder.stream)
    adder.add()
    cuda.record(end, adder.stream)
    cuda.synchronize(adder.stream)
    assert 0 < cuda.milliseconds(start, end) < 1000


def test_everything_is_given_back_in_any_thread(cuda: CudaApi) -> None:
    for _ in range(20):  # together more memory than most GPUs have
        things = [Adder(cuda), cuda.memory(1 << 30), cuda.pinned(1 << 20, np.uint8)]
        thread = threading.Thread(target=things.clear)
        thread.start()
        thread.join()


def test_failures(cuda: CudaApi) -> None:
    with pytest.raises(BackendError, match=r"^cuMemAlloc failed.*out of memory"):
        cuda.memory(1 << 50)
    with pytest.raises(BackendError, match=r"^cuModuleLoadData"):
        cuda.module(b"garbage")
    with pytest.raises(BackendError, match=r"^cuModuleGetFunction failed"):
        cuda.kernel(cuda.module(ADD), "subtract")
