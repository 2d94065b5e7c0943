"""Networks run by ONNX Runtime: on the CPU anywhere, on CUDA where its provider is installed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from scrfd_ros.errors import ModelError
from scrfd_ros.networks.network import Tensor
from scrfd_ros.networks.onnx_file import normalizes_input

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_LOG_ERRORS_ONLY = 3  # w600k_mbf declares a batch of 1 and warns about every larger one

_CPU_BATCH = 4  # faces; more at once take as long for each, and more memory


class OnnxRuntimeNetwork:
    """A `Network` from an ONNX file.

    Raises:
        ModelError: the file is missing, is not an ONNX model, or takes or gives other than float32.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem
        content = _read(path)
        self.sha256 = hashlib.sha256(content).hexdigest()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _LOG_ERRORS_ONLY
        # Threads that spin after a run take the processor from the other network: detector and
        # recogniser in turns take 0.6 of the time without, each alone as long as with.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # One block of memory laid out for each size of batch: no faster, and 50 MiB more.
        options.enable_mem_pattern = False
        available = onnxruntime.get_available_providers()
        try:
            # Its content would take 6 to 11 MiB more for 2.5g and w600k_mbf.
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=[name for name in _PROVIDERS if name in available]
            )
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise ModelError(
                f"{path}: not an ONNX model that ONNX Runtime {onnxruntime.__version__} can load "
                f"({len(content)} bytes): {_one_line(error)}. Fetch the file again, or check "
                f"its path"
            ) from error
        for tensor in (*self._session.get_inputs(), *self._session.get_outputs()):
            if tensor.type != "tensor(float)":
                raise ModelError(
                    f"{path}: {tensor.name!r} is {tensor.type}, expected tensor(float)"
                )
        self.normalizes_input = normalizes_input(content)
        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        self.backend = f"onnxruntime {provider}"
        self.inputs = tuple(_tensor(tensor) for tensor in self._session.get_inputs())
        self.outputs = tuple(_tensor(tensor) for tensor in self._session.get_outputs())
        # Four 640x640 pictures at once in 500m: 1.00 to 1.02 times the time of one by one.
        self.on_gpu = provider != "CPU"
        self.max_batch = None if self.on_gpu else _CPU_BATCH
        self._output_names = [tensor.name for tensor in self.outputs]

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        try:
            arrays = self._session.run(self._output_names, dict(inputs))
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise ModelError(f"{self.path}: {_one_line(error)}") from error
        return dict(zip(self._output_names, arrays, strict=True))

    def device_milliseconds(self) -> dict[str, float]:
        return {}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot read the model file: {error.strerror}") from error


def _tensor(tensor: onnxruntime.NodeArg) -> Tensor:
    return Tensor(
        tensor.name, tuple(size if isinstance(size, int) else None for size in tensor.shape)
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
