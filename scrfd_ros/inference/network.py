# SPDX-License-Identifier: Apache-2.0
"""The contract between those who use a network, such as the detector, and the backend that runs it.

`scrfd_ros.inference.load` has the backends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.inference.cuda_api import CudaApi, Resource


@dataclass(frozen=True)
class Tensor:
    """An input or output: its name and declared shape, None where a size is free."""

    name: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name} {list(self.shape)}"


class PreparedNetwork(Protocol):
    """A network that is set up for one shape of its input, with its tensors on the device.

    Attributes:
        shapes: of all tensors, by name.
        is_lasting: its work may be recorded as a CUDA graph, after it has run once. Else use the
            object for one run only: the next may change it.
    """

    shapes: dict[str, tuple[int, ...]]
    is_lasting: bool

    def address(self, name: str) -> int:
        """Address on the device of a tensor, float32, contiguous."""
        ...

    def enqueue(self) -> None:
        """Queue a run on the network's stream.

        Raises:
            ModelError: the backend fails.
        """
        ...


class DeviceNetwork(Protocol):
    """A network whose input is written, and whose outputs are read, on the device.

    Inputs of all shapes share their memory, so runs come one after another, on one stream.

    Attributes:
        cuda: the driver. Its context has to be current in all calls.
        stream: on which the network is queued.
    """

    cuda: CudaApi
    stream: Resource

    def prepare(self, shape: tuple[int, ...]) -> PreparedNetwork:
        """The network for a shape of its input. Call it before each run.

        Raises:
            ModelError: it does not take this shape.
        """
        ...


class Network(Protocol):
    """A network that is loaded and ready to run. Not thread-safe: use it from one thread.

    Attributes:
        path: the file it was loaded from.
        name: of the model: its ONNX file's name without the suffix.
        sha256: checksum of the model's ONNX file, lower-case hexadecimal.
        backend: what runs it, for people, such as "onnxruntime CPU".
        inputs, outputs: its tensors. Declared shapes of outputs can be wrong in real files.
        normalizes_input: the graph itself subtracts the mean and scales, so it takes raw pixels,
            0 to 255.
        on_gpu: it runs on a CUDA device, where a batch takes less time than its rows one by one.
        device: for an engine, what runs it on arrays that are on the device already; else None.
        max_batch: maximum batch size to give to an input with a free one; None for no limit.
    """

    path: Path
    name: str
    sha256: str
    backend: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    normalizes_input: bool
    on_gpu: bool
    device: DeviceNetwork | None
    max_batch: int | None

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Run the network.

        Args:
            inputs: float32 arrays by input name.

        Returns:
            float32 arrays by output name. The next call may overwrite them.

        Raises:
            ModelError: the backend refuses these inputs or fails.
        """
        ...

    def device_milliseconds(self) -> dict[str, float]:
        """Milliseconds that the last call took on the device: copy_in, network, copy_out.

        Empty where the backend does not measure them.
        """
        ...
