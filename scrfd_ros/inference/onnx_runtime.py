# SPDX-License-Identifier: Apache-2.0
"""The backend ONNX Runtime: on the CPU anywhere, on CUDA where its provider is installed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.errors import BackendError, ModelError
from scrfd_ros.inference.cores import usable_cores
from scrfd_ros.inference.cuda import cuda_device
from scrfd_ros.inference.network import DeviceNetwork, Tensor
from scrfd_ros.inference.onnx_file import load_error, normalizes_input, one_line, read_model

try:
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel
except ModuleNotFoundError as error:
    raise BackendError(
        f"running a network takes the Python package {error.name}, which is not installed: "
        f"pip install onnxruntime"
    ) from error

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_LOG_NOTHING = 4  # errors are raised, and w600k_mbf, with a batch of 1, warns about larger ones

_CPU_BATCH = 4  # larger batches take as long for each row, and more memory
_MAX_READS = 3  # of a file that is replaced while it is being read

_logger = logging.getLogger(__name__)


def load(path: Path, *, threads: int, cuda_graph: bool) -> OnnxRuntimeNetwork:
    """Load an ONNX file; see `scrfd_ros.inference`. `cuda_graph` has no effect."""
    return OnnxRuntimeNetwork(path, threads)


def uses_processor() -> bool:
    """Whether networks run on the processor; False where CUDA may run them."""
    return _PROVIDERS[0] not in onnxruntime.get_available_providers()


def output_shapes(
    content: bytes, inputs: Mapping[str, NDArray[np.float32]]
) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's outputs, of any type, in a run on the processor, by name.

    Args:
        content: an ONNX model with its weights inside.
        inputs: float32 arrays by input name.

    Raises:
        ModelError: ONNX Runtime cannot load or run it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.log_severity_level = _LOG_NOTHING
    try:
        session = onnxruntime.InferenceSession(content, options, providers=_PROVIDERS[-1:])
        names = [tensor.name for tensor in session.get_outputs()]
        arrays = session.run(names, dict(inputs))
        return {name: array.shape for name, array in zip(names, arrays, strict=True)}
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise ModelError(one_line(error)) from error


class OnnxRuntimeNetwork:
    """A `Network` from an ONNX file.

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
        options = onnxruntime.SessionOptions()
        # ONNX Runtime's own default is the machine's cores, even in a container with fewer.
        options.intra_op_num_threads = threads or usable_cores()
        options.log_severity_level = _LOG_NOTHING
        # Threads that spin after a run take the processor from the other network. Without it,
        # detector and recognizer in turns take 0.6 of the time, and each alone the same time.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # It lays out a block of memory for each batch size: no faster, and 50 MiB more.
        options.enable_mem_pattern = False
        # Networks run in turns, so that one's scratch memory serves the other.
        if _shares_memory():
            options.add_session_config_entry("session.use_env_allocators", "1")
        facts, self._session = _load(path, options)
        self.sha256 = facts.sha256
        for tensor in (*self._session.get_inputs(), *self._session.get_outputs()):
            if tensor.type != "tensor(float)":
                raise ModelError(
                    f"{path}: {tensor.name!r} is {tensor.type}, expected tensor(float)"
                )
        if facts.normalizes_input is None:
            raise ModelError(f"{path}: not a whole ONNX model, {facts.size} bytes; fetch it again")
        self.normalizes_input = facts.normalizes_input
        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        self.backend = f"onnxruntime {provider}"
        self.inputs = tuple(_tensor(tensor) for tensor in self._session.get_inputs())
        self.outputs = tuple(_tensor(tensor) for tensor in self._session.get_outputs())
        # Four 640x640 images at once in 500m: 1.00 to 1.02 times the time of one by one.
        self.on_gpu = provider != "CPU"
        self.device: DeviceNetwork | None = None
        self.max_batch = None if self.on_gpu else _CPU_BATCH
        self._output_names = [tensor.name for tensor in self.outputs]

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        try:
            arrays = self._session.run(self._output_names, dict(inputs))
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise ModelError(f"{self.path}: {one_line(error)}") from error
        return dict(zip(self._output_names, arrays, strict=True))

    def device_milliseconds(self) -> dict[str, float]:
        return {}


@functools.cache  # once for the process
def _shares_memory() -> bool:
    """Whether all networks of this process allocate from one place."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    # No limit, and blocks of the size that is asked for.
    settings = onnxruntime.OrtArenaCfg(0, 1, -1, -1)
    try:
        onnxruntime.create_and_register_allocator(memory, settings)
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        _logger.debug("networks have memory of their own: %s", one_line(error))
        return False
    return True


class _Facts(NamedTuple):
    """What is known of a model file without ONNX Runtime.

    Attributes:
        size: bytes.
        sha256: lower-case hexadecimal.
        normalizes_input: see `Network`; None if the file is damaged.
    """

    size: int
    sha256: str
    normalizes_input: bool | None


def _facts(path: Path) -> _Facts:
    content = read_model(path)
    normalizes: bool | None = None
    with contextlib.suppress(ModelError):  # ONNX Runtime says more about what is wrong
        normalizes = normalizes_input(content)
    return _Facts(len(content), hashlib.sha256(content).hexdigest(), normalizes)


def _load(
    path: Path, options: onnxruntime.SessionOptions
) -> tuple[_Facts, onnxruntime.InferenceSession]:
    """What is known of a model file, and a session of exactly that content.

    ONNX Runtime reads the file itself: from bytes it takes 6 to 11 MiB more for 2.5g and w600k_mbf.
    So the file's state is compared before and after. The content is freed before the session is
    made, when most memory is in use.
    """
    available = onnxruntime.get_available_providers()
    providers = [name for name in _PROVIDERS if name in available]
    for _ in range(_MAX_READS):
        before = _state(path)
        facts = _facts(path)
        try:
            session = _session(path, options, providers)
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            if _state(path) != before:
                continue
            library = f"ONNX Runtime {onnxruntime.__version__}"
            raise load_error(path, library, facts.size, error) from error
        if _state(path) == before:
            missing = set(providers) - set(session.get_providers())
            if missing:
                _log_fallback(", ".join(sorted(missing)), session.get_providers()[0])
            return facts, session
    raise ModelError(
        f"{path}: was replaced {_MAX_READS} times while it was being loaded; load it when it is "
        f"complete"
    )


def _session(
    path: Path, options: onnxruntime.SessionOptions, providers: list[str]
) -> onnxruntime.InferenceSession:
    """A session, with the channels where the file has them if another layout has no kernel.

    That is so for MaxPool in FP16, such as in 2.5g, on aarch64 with FP16: ONNX Runtime 1.32.
    """
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except NoKernel:
        return onnxruntime.InferenceSession(
            str(path), options, providers=providers, disabled_optimizers=["NhwcTransformer"]
        )


def _state(path: Path) -> tuple[int, ...]:
    """Values that change when a file is written or replaced."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot read the model file: {error.strerror}") from error
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@functools.cache  # once for all networks
def _log_fallback(missing: str, provider: str) -> None:
    """Log that ONNX Runtime uses another provider, which it does silently."""
    try:
        device = cuda_device().name
    except BackendError as error:
        _logger.info("ONNX Runtime runs on %s, not on %s: %s", provider, missing, error)
        return
    _logger.warning(
        "ONNX Runtime runs on %s: its %s does not start on this %s. It needs the CUDA and cuDNN "
        "that ONNX Runtime %s was built for: "
        "https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html",
        provider,
        missing,
        device,
        onnxruntime.__version__,
    )


def _tensor(tensor: onnxruntime.NodeArg) -> Tensor:
    return Tensor(
        tensor.name, tuple(size if isinstance(size, int) else None for size in tensor.shape)
    )
