# SPDX-License-Identifier: Apache-2.0
"""The backend TensorRT, which runs engines."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.errors import BackendError, ModelError
from scrfd_ros.inference.cuda_api import CudaApi, CudaGraph, Resource, cuda_api
from scrfd_ros.inference.engine_file import (
    EngineMetadata,
    ShapeRange,
    check_metadata,
    metadata_path,
    read_metadata,
)
from scrfd_ros.inference.network import DeviceNetwork, Tensor
from scrfd_ros.inference.tensorrt_library import (
    cuda_failures,
    load_tensorrt,
    message_log,
    product,
)

_PARTS = ("copy_in", "network", "copy_out")
_MAX_GRAPHS = 8  # of an engine, one for each shape of its input; each takes some memory
_FLOAT = 4  # bytes
_ALIGNMENT = 256  # bytes, of the tensors on the device


def load(path: Path, *, threads: int, cuda_graph: bool) -> TensorRtNetwork:
    """Load an engine file; see `scrfd_ros.inference`. `threads` has no effect.

    Metadata beside it, see `engine_file`, is compared with this machine before TensorRT reads the
    engine.

    Raises:
        BackendError: there is no CUDA device, TensorRT, cuda-python or pycuda.
        ModelError: the engine cannot be read, is for another machine, or TensorRT refuses it.
    """
    trt, here = load_tensorrt()
    plan = read_plan(path)
    metadata = read_metadata(path)
    if metadata is None:
        logging.getLogger(__name__).warning(
            "%s: nothing is known about this engine, as there is no %s; it is given normalized "
            "pixels. To compare it with its model and write that file: scrfd verify %s "
            "--onnx MODEL.onnx",
            path,
            metadata_path(path).name,
            path,
        )
    else:
        check_metadata(path, plan, metadata, here)
    return TensorRtNetwork(trt, path, plan, metadata, cuda_graph=cuda_graph)


def read_plan(path: Path) -> bytes:
    """The content of an engine file.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot read the engine: {error.strerror}") from error


class TensorRtNetwork:
    """A `Network` from an engine. The next call overwrites the arrays that a call returned.

    The CUDA context is the device's primary one, which TensorRT uses too. It is current only
    within a call, so any thread may call, one at a time. Memory on the device is freed with the
    object.

    Args:
        trt: TensorRT, see `load_tensorrt`.
        path: the engine's file.
        plan: content of that file.
        metadata: of the engine; None if there is none.
        cuda_graph: record the work of the first call and replay it in all others, which saves
            launching kernels one by one. Of an engine with free sizes, the first 8 shapes, from
            TensorRT 10 on.

    Attributes:
        shapes: of its input.

    Raises:
        BackendError: there is neither cuda-python nor pycuda.
        ModelError: TensorRT refuses the engine, or the device has too little memory.
    """

    def __init__(
        self,
        trt: ModuleType,
        path: Path,
        plan: bytes,
        metadata: EngineMetadata | None,
        *,
        cuda_graph: bool = False,
    ) -> None:
        self.path = path
        self.name = Path(metadata.model).stem if metadata else path.stem
        self.sha256 = metadata.model_sha256 if metadata else hashlib.sha256(plan).hexdigest()
        self.normalizes_input = metadata is not None and metadata.normalizes_input
        self.backend = product(trt) + (f" {metadata.precision}" if metadata else "")
        self.on_gpu = True
        self._cuda = cuda_api()
        self._log = message_log(trt)
        self._graphs: dict[tuple[int, ...], CudaGraph | None] = {}
        with self._current():
            device = DeviceEngine(trt, self._cuda, path, plan, _MAX_GRAPHS if cuda_graph else 0)
            # Pinned, so that the device copies it without the processor. For the largest shapes;
            # smaller ones use a part of it.
            self._host_input = self._cuda.pinned(device.input_size // _FLOAT, np.float32)
            self._host_outputs = self._cuda.pinned(device.output_size, np.uint8)
            self._events = [self._cuda.event() for _ in (*_PARTS, "end")]
        self._device = device
        self.device: DeviceNetwork | None = device
        self.inputs, self.outputs, self.shapes = device.inputs, device.outputs, device.shapes
        self.max_batch = self.shapes.max[0] if self.inputs[0].shape[0] is None else None

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        array = inputs[self.inputs[0].name]
        cuda, device = self._cuda, self._device
        start, copied_in, done, end = self._events
        with self._current():
            prepared = device.prepare(array.shape)
            host = self._host_input[: array.size]
            np.copyto(host.reshape(array.shape), array)
            cuda.record(start, device.stream)
            cuda.copy_in(prepared.address(self.inputs[0].name), host, device.stream)
            cuda.record(copied_in, device.stream)
            graph = self._graphs.get(array.shape)
            if graph is None:
                prepared.enqueue()
            else:
                graph.launch()
            cuda.record(done, device.stream)
            outputs = self._host_outputs[: prepared.output_size]
            cuda.copy_out(outputs, prepared.address(self.outputs[0].name), device.stream)
            cuda.record(end, device.stream)
            cuda.synchronize(device.stream)
            if prepared.is_lasting and array.shape not in self._graphs:
                # Not the first run, in which TensorRT does things that cannot be recorded.
                self._graphs[array.shape] = self._record_graph(prepared)
        return prepared.split(outputs)

    def _record_graph(self, prepared: PreparedEngine) -> CudaGraph | None:
        try:
            return self._cuda.graph(self._device.stream, prepared.enqueue)
        except ModelError as error:
            logging.getLogger(__name__).warning(
                "%s runs without a CUDA graph: %s", self.path, error
            )
            return None

    def device_milliseconds(self) -> dict[str, float]:
        with self._current():
            return {
                part: self._cuda.milliseconds(start, end)
                for part, start, end in zip(_PARTS, self._events, self._events[1:], strict=False)
            }

    @contextlib.contextmanager
    def _current(self) -> Iterator[None]:
        """Make the CUDA context current in this thread; what CUDA refuses becomes `ModelError`."""
        self._log.forget()
        try:
            with self._cuda.current():
                yield
        except BackendError as error:
            raise ModelError(f"{self.path}: {error}") from error


class DeviceEngine:
    """An engine whose inputs and outputs are on the device: a `DeviceNetwork`.

    Args:
        trt: TensorRT.
        cuda: the driver; its context is current.
        path: the engine's file.
        plan: content of that file.
        max_lasting: for how many shapes of the input it keeps what it prepares. TensorRT wants an
            execution context for each graph: a graph is void once its context is changed.

    Attributes:
        inputs, outputs: see `Network`.
        shapes: of the input.
        input_size, output_size: bytes of the largest input, and of its outputs.
        cuda, stream: see `DeviceNetwork`.

    Raises:
        BackendError: the device has too little memory.
        ModelError: TensorRT refuses the engine, or it is not one of ours.
    """

    def __init__(
        self, trt: ModuleType, cuda: CudaApi, path: Path, plan: bytes, max_lasting: int
    ) -> None:
        self.cuda = cuda
        self._trt, self._path, self._log = trt, path, message_log(trt)
        self._max_lasting = max_lasting
        with cuda_failures(trt):
            runtime = trt.Runtime(self._log)
        trt.init_libnvinfer_plugins(self._log, "")  # trtexec may have built layers as plugins
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise _failure(path, self._log, f"{product(trt)} cannot load this engine")
        # TensorRT frees memory in the current context, as `Resource` does.
        self._loaded = Resource(cuda, engine)
        self.inputs, self.outputs = _tensors(trt, path, engine)
        name, declared = self.inputs[0].name, self.inputs[0].shape
        fixed = engine.get_tensor_shape(name)
        ranges = engine.get_tensor_profile_shape(name, 0) if None in declared else (fixed,) * 3
        self.shapes = ShapeRange(*map(tuple, ranges))
        is_shared = hasattr(trt, "ExecutionContextAllocationStrategy")  # from TensorRT 10.0 on
        if max_lasting and None in declared and not is_shared:
            # Its contexts cannot have the one profile of such an engine in common.
            self._max_lasting = 0
            logging.getLogger(__name__).warning(
                "%s runs without a CUDA graph: with free sizes that takes TensorRT 10 or newer",
                path,
            )
        self.stream = cuda.stream()
        # Scratch memory of all execution contexts, which run one after another.
        if hasattr(engine, "device_memory_size_v2"):  # from TensorRT 10.1 on
            size = engine.device_memory_size_v2
        elif hasattr(engine, "device_memory_size"):
            size = engine.device_memory_size
        self._scratch_size = max(size, 1)
        self._scratch = cuda.memory(self._scratch_size)
        self._lasting: dict[tuple[int, ...], PreparedEngine] = {}
        self._other = self._new_prepared(is_lasting=False)
        self._other.set_shape(self.shapes.max)
        # For the largest shapes; smaller ones use a part of it.
        self.input_size = math.prod(self.shapes.max) * _FLOAT
        self.output_size = self._other.output_size
        self._input_memory = cuda.memory(self.input_size)
        self._output_memory = cuda.memory(self.output_size)
        self._other.bind(int(self._input_memory), int(self._output_memory))

    def prepare(self, shape: tuple[int, ...]) -> PreparedEngine:
        prepared = self._lasting.get(shape)
        if prepared is None:
            is_lasting = len(self._lasting) < self._max_lasting
            prepared = self._new_prepared(is_lasting=True) if is_lasting else self._other
            if is_lasting or shape != prepared.shapes.get(self.inputs[0].name):
                prepared.set_shape(shape)
                prepared.bind(int(self._input_memory), int(self._output_memory))
            if is_lasting:
                self._lasting[shape] = prepared
        return prepared

    def _new_prepared(self, is_lasting: bool) -> PreparedEngine:
        trt, engine = self._trt, self._loaded.native
        strategies = getattr(trt, "ExecutionContextAllocationStrategy", None)  # from 10.0 on
        if strategies is not None:
            context = engine.create_execution_context(strategies.USER_MANAGED)
        elif hasattr(engine, "create_execution_context_without_device_memory"):
            context = engine.create_execution_context_without_device_memory()
        if context is None:
            trouble = "no execution context, perhaps for lack of memory on the device"
            raise _failure(self._path, self._log, trouble)
        set_memory = getattr(context, "set_device_memory", None)  # from 10.1 on
        if set_memory is None:
            context.device_memory = int(self._scratch)
        else:
            set_memory(int(self._scratch), self._scratch_size)
        names = self.inputs[0].name, [tensor.name for tensor in self.outputs]
        kept = Resource(self.cuda, context)
        return PreparedEngine(self._path, self._log, kept, self.stream, *names, is_lasting)


class PreparedEngine:
    """An execution context of an engine, for one shape of its input: a `PreparedNetwork`.

    The outputs lie one after another, so that they come to the host as one copy.

    Args:
        path: the engine's file.
        log: see `message_log`.
        kept: TensorRT's execution context.
        stream: to run on.
        input_name, output_names: of the tensors.
        is_lasting: see `PreparedNetwork`.

    Attributes:
        shapes, is_lasting: see `PreparedNetwork`.
        output_size: bytes from the first output to the end of the last.
    """

    def __init__(
        self,
        path: Path,
        log: Any,
        kept: Resource,
        stream: Resource,
        input_name: str,
        output_names: list[str],
        is_lasting: bool,
    ) -> None:
        self._path, self._log, self._kept, self._stream = path, log, kept, stream
        self._input, self._outputs = input_name, output_names
        self.is_lasting = is_lasting
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.output_size = 0
        self._offsets: dict[str, int] = {}
        self._addresses: dict[str, int] = {}

    def set_shape(self, shape: tuple[int, ...]) -> None:
        """Set the shape of the input, and with it those of the outputs.

        Raises:
            ModelError: the engine does not take it.
        """
        context = self._kept.native
        self.shapes = {}
        if not context.set_input_shape(self._input, shape):
            trouble = f"the engine does not take {self._input!r} as {list(shape)}"
            raise _failure(self._path, self._log, trouble)
        self.output_size = 0
        for name in self._outputs:
            self.shapes[name] = tuple(context.get_tensor_shape(name))
            self._offsets[name] = -(-self.output_size // _ALIGNMENT) * _ALIGNMENT
            self.output_size = self._offsets[name] + math.prod(self.shapes[name]) * _FLOAT
        self.shapes[self._input] = shape

    def bind(self, input_address: int, output_address: int) -> None:
        """Set where the input and the first output lie on the device."""
        context = self._kept.native
        self._addresses = {name: output_address + self._offsets[name] for name in self._outputs}
        self._addresses[self._input] = input_address
        for name, address in self._addresses.items():
            context.set_tensor_address(name, address)

    def address(self, name: str) -> int:
        return self._addresses[name]

    def enqueue(self) -> None:
        context = self._kept.native
        if not context.execute_async_v3(int(self._stream)):
            raise _failure(self._path, self._log, "the engine does not run")

    def split(self, memory: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """The outputs in a copy of their memory, by name."""
        return {
            name: memory[start : start + math.prod(self.shapes[name]) * _FLOAT]
            .view(np.float32)
            .reshape(self.shapes[name])
            for name, start in self._offsets.items()
        }


def _tensors(
    trt: ModuleType, path: Path, engine: Any
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The inputs and the outputs of an engine.

    Raises:
        ModelError: they are of another kind than our networks have.
    """
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    for name in [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]:
        dtype = engine.get_tensor_dtype(name)
        if dtype != trt.DataType.FLOAT:
            raise ModelError(
                f"{path}: {name!r} is {dtype}, expected {trt.DataType.FLOAT}; build it "
                f"with inputs and outputs of 32 bit"
            )
        shape = tuple(size if size >= 0 else None for size in engine.get_tensor_shape(name))
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        (inputs if is_input else outputs).append(Tensor(name, shape))
    if [len(tensor.shape) for tensor in inputs] != [4]:
        found = ", ".join(map(str, inputs))
        raise ModelError(f"{path}: expected one input [N, channels, height, width], found {found}")
    return tuple(inputs), tuple(outputs)


def _failure(path: Path, log: Any, trouble: str) -> ModelError:
    return ModelError(f"{path}: {trouble}: {log.errors()}")
