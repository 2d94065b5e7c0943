# SPDX-License-Identifier: Apache-2.0
"""The contract between the detector and recognizer and whatever runs their networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tensor:
    """An input or output: its name and declared shape, None where a size is free."""

    name: str
    shape: tuple[int | None, ...]


class Network(Protocol):
    """A network that is loaded and ready to run. Not thread-safe: use it from one thread.

    Attributes:
        path: the file it came from.
        name: the model's, that is of its ONNX file without the suffix.
        sha256: checksum of the model's ONNX file, lower-case hexadecimal.
        backend: what runs it, for people, such as "onnxruntime CPU".
        inputs, outputs: its tensors. Declared shapes of outputs can be wrong in real files.
        normalizes_input: the graph itself subtracts the mean and scales, so that it takes raw
            pixels, 0 to 255.
        on_gpu: it runs on a CUDA device, where a batch takes less time than its rows one by one.
        max_batch: most rows to give to an input with a free batch at once; None for no limit.
    """

    path: Path
    name: str
    sha256: str
    backend: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    normalizes_input: bool
    on_gpu: bool
    max_batch: int | None

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Run the network: arrays by input name in, arrays by output name out.

        What comes out may be overwritten by the next call.

        Raises:
            ModelError: the backend refuses these inputs or fails.
        """
        ...

    def device_milliseconds(self) -> dict[str, float]:
        """What the last call spent on the device: copy_in, network, copy_out.

        Empty where the backend does not tell.
        """
        ...
