# SPDX-License-Identifier: Apache-2.0
"""The backend OpenVINO: on an Intel GPU where there is one, else on the processor.

https://docs.openvino.ai/2026/openvino-workflow/running-inference.html
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.errors import BackendError, ModelError
from scrfd_ros.inference.cores import usable_cores
from scrfd_ros.inference.network import DeviceNetwork, Tensor
from scrfd_ros.inference.onnx_file import load_error, normalizes_input, one_line, read_model


@contextlib.contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Let imports not find a module."""
    known = sys.modules.get(module)
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]
        if known is not None:
            sys.modules[module] = known


try:
    with _hidden("openvino_telemetry"):  # the import alone would send a report to its maker
        import openvino
except ModuleNotFoundError as error:
    raise BackendError(
        f"running a network on OpenVINO takes the Python package {error.name}, which is not "
        f"installed: pip install openvino"
    ) from error

_BATCH = 4  # larger batches take as long for each row, and more memory

_logger = logging.getLogger(__name__)


def load(path: Path, *, threads: int, cuda_graph: bool) -> OpenVinoNetwork:
    """Load an ONNX file; see `scrfd_ros.inference`. `cuda_graph` has no effect."""
    return OpenVinoNetwork(path, threads)


class OpenVinoNetwork:
    """A `Network` from an ONNX file.

    Free sizes of the input stay free: a run at a new size takes a little longer, once.

    Args:
        path: the file, with its weights inside.
        threads: on the processor; 0 for one for each core that this process may use.

    Raises:
        ModelError: the file is missing, is not an ONNX model, has its weights in other files, or
            has inputs or outputs of another type than float32.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        self.path = path
        self.name = path.stem
        content = read_model(path)
        self.sha256 = hashlib.sha256(content).hexdigest()
        core = openvino.Core()
        try:
            model = core.read_model(content, b"")
            self._compiled, device = _compiled(core, model, threads or usable_cores())
        except Exception as error:  # its exceptions have no base class of their own
            library = f"OpenVINO {openvino.__version__}"
            raise load_error(path, library, len(content), error) from error
        for port in (*self._compiled.inputs, *self._compiled.outputs):
            if port.element_type != openvino.Type.f32:
                kind = port.element_type.get_type_name()
                raise ModelError(f"{path}: {port.any_name!r} is {kind}, expected f32")
        self.normalizes_input = normalizes_input(content)
        self.backend = f"openvino {device}"
        self.inputs = tuple(_tensor(port) for port in self._compiled.inputs)
        self.outputs = tuple(_tensor(port) for port in self._compiled.outputs)
        self.on_gpu = False  # that is for CUDA
        self.device: DeviceNetwork | None = None
        self.max_batch: int | None = _BATCH
        self._request = self._compiled.create_infer_request()

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        self._check(inputs)
        try:
            arrays = self._request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        except Exception as error:  # its exceptions have no base class of their own
            raise ModelError(f"{self.path}: {one_line(error)}") from error
        return {tensor.name: arrays[row] for row, tensor in enumerate(self.outputs)}

    def _check(self, inputs: Mapping[str, NDArray[np.float32]]) -> None:
        """Refuse what OpenVINO accepts: it converts types, and keeps the last value of an input."""
        names = {tensor.name for tensor in self.inputs}
        if inputs.keys() != names:
            raise ModelError(
                f"{self.path}: got the inputs {sorted(inputs)}, expected {sorted(names)}"
            )
        for name, array in inputs.items():
            if array.dtype != np.float32:
                raise ModelError(f"{self.path}: {name} is {array.dtype}, expected float32")

    def device_milliseconds(self) -> dict[str, float]:
        return {}


def _compiled(
    core: openvino.Core, model: openvino.Model, threads: int
) -> tuple[openvino.CompiledModel, str]:
    """The model, ready to run, and the device that runs it."""
    # As exact as on other backends; by default a processor with bfloat16 would use that.
    shared = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if "GPU" in core.available_devices:
        try:
            return core.compile_model(model, "GPU", shared), "GPU"
        except RuntimeError as error:
            _logger.warning("OpenVINO runs on the CPU, not on the GPU: %s", one_line(error))
    # Pinned threads would stay on the cores that ONNX Runtime's and OpenCV's threads need.
    own = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
    return core.compile_model(model, "CPU", {**shared, **own}), "CPU"


def _tensor(port: openvino.ConstOutput) -> Tensor:
    # A tensor can have several names. An output is a node named after that in the ONNX file.
    name = port.get_node().friendly_name.removesuffix("/sink_port_0")
    sizes = (size.get_length() if size.is_static else None for size in port.partial_shape)
    return Tensor(name, tuple(sizes))
