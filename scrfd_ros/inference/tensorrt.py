# SPDX-License-Identifier: Apache-2.0
"""The backend TensorRT, which runs engines, through pycuda."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import importlib
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.errors import BackendError, ModelError
from scrfd_ros.inference.cuda import CudaGraph
from scrfd_ros.inference.engine_file import (
    EngineMetadata,
    ShapeRange,
    check_metadata,
    metadata_path,
    read_metadata,
)
from scrfd_ros.inference.network import Tensor
from scrfd_ros.inference.tensorrt_library import (
    cuda_failures,
    load_tensorrt,
    message_log,
    product,
)

_PARTS = ("copy_in", "network", "copy_out")


def load(path: Path, *, threads: int, cuda_graph: bool) -> TensorRtNetwork:
    """Load an engine file; see `scrfd_ros.inference`. `threads` has no effect.

    Metadata beside it, see `engine_file`, is compared with this machine before TensorRT reads the
    engine.

    Raises:
        BackendError: there is no CUDA device, TensorRT or pycuda.
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
            launching kernels one by one. Has no effect on engines with free sizes.

    Attributes:
        shapes: of its input.

    Raises:
        BackendError: there is no pycuda.
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
        self._log = message_log(trt)
        self._driver = import_pycuda()
        self._cuda = primary_context()
        with self._current():
            self._load(trt, plan)
        self._graph: CudaGraph | None = None
        self._records_graph = cuda_graph and self.shapes.is_fixed

    def _load(self, trt: ModuleType, plan: bytes) -> None:
        with cuda_failures(trt):
            runtime = trt.Runtime(self._log)
        trt.init_libnvinfer_plugins(self._log, "")  # trtexec may have built layers as plugins
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self._error(f"{product(trt)} cannot load this engine")
        self._context = context = engine.create_execution_context()
        if context is None:
            raise self._error("no execution context, perhaps for lack of memory on the device")
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        inputs: list[Tensor] = []
        outputs: list[Tensor] = []
        for name in names:
            dtype = engine.get_tensor_dtype(name)
            if dtype != trt.DataType.FLOAT:
                raise ModelError(
                    f"{self.path}: {name!r} is {dtype}, expected {trt.DataType.FLOAT}; build it "
                    f"with inputs and outputs of 32 bit"
                )
            shape = tuple(size if size >= 0 else None for size in engine.get_tensor_shape(name))
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            (inputs if is_input else outputs).append(Tensor(name, shape))
        if [len(tensor.shape) for tensor in inputs] != [4]:
            found = ", ".join(map(str, inputs))
            raise ModelError(
                f"{self.path}: expected one input [N, channels, height, width], found {found}"
            )
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self._input = inputs[0].name
        fixed = engine.get_tensor_shape(self._input)
        is_free = None in inputs[0].shape
        ranges = engine.get_tensor_profile_shape(self._input, 0) if is_free else (fixed,) * 3
        self.shapes = ShapeRange(*map(tuple, ranges))
        self.on_gpu = True
        self.max_batch = self.shapes.max[0] if inputs[0].shape[0] is None else None
        self._set_shape(self.shapes.max)
        # Memory for the largest shapes; smaller ones use a part of it. Memory on the host is
        # pinned, so the device copies it without the processor.
        self._host: dict[str, NDArray[np.float32]] = {}
        self._device: dict[str, Any] = {}
        self._arrays: dict[str, NDArray[np.float32]] = {}
        for name in names:
            largest = tuple(context.get_tensor_shape(name))
            host = self._driver.pagelocked_empty(math.prod(largest), np.float32)
            self._host[name], self._arrays[name] = host, host.reshape(largest)
            self._device[name] = self._driver.mem_alloc(host.nbytes)
            context.set_tensor_address(name, int(self._device[name]))
        self._stream = self._driver.Stream()
        self._events = [self._driver.Event() for _ in (*_PARTS, "end")]

    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        array = inputs[self._input]
        with self._current():
            if array.shape != self._arrays[self._input].shape:
                self._set_shape(array.shape)
                for name, host in self._host.items():
                    shape = tuple(self._context.get_tensor_shape(name))
                    self._arrays[name] = host[: math.prod(shape)].reshape(shape)
            np.copyto(self._arrays[self._input], array)
            start, copied_in, done, end = self._events
            start.record(self._stream)
            self._driver.memcpy_htod_async(
                self._device[self._input], self._arrays[self._input], self._stream
            )
            copied_in.record(self._stream)
            if self._graph is None:
                self._execute()
            else:
                self._graph.launch()
            done.record(self._stream)
            for output in self.outputs:
                self._driver.memcpy_dtoh_async(
                    self._arrays[output.name], self._device[output.name], self._stream
                )
            end.record(self._stream)
            self._stream.synchronize()
            if self._records_graph and self._graph is None:
                # Not the first run, in which TensorRT does things that cannot be recorded.
                self._record_graph()
        return {output.name: self._arrays[output.name] for output in self.outputs}

    def _record_graph(self) -> None:
        try:
            self._graph = CudaGraph(self._stream.handle, self._execute)
        except ModelError as error:
            logging.getLogger(__name__).warning(
                "%s runs without a CUDA graph: %s", self.path, error
            )
            self._records_graph = False

    def _set_shape(self, shape: tuple[int, ...]) -> None:
        if not self._context.set_input_shape(self._input, shape):
            raise self._error(f"the engine does not take {self._input!r} as {list(shape)}")

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise self._error("the engine does not run")

    def device_milliseconds(self) -> dict[str, float]:
        with self._current():
            return {
                part: start.time_till(end)
                for part, start, end in zip(_PARTS, self._events, self._events[1:], strict=False)
            }

    @contextlib.contextmanager
    def _current(self) -> Iterator[None]:
        """Make the CUDA context current in this thread; what CUDA raises becomes `ModelError`."""
        self._log.forget()
        try:
            self._cuda.push()
            try:
                yield
            finally:
                self._cuda.pop()
        except self._driver.Error as error:
            raise ModelError(f"{self.path}: {error}") from error

    def _error(self, trouble: str) -> ModelError:
        return ModelError(f"{self.path}: {trouble}: {self._log.errors()}")

    def __del__(self) -> None:
        cuda = self.__dict__.get("_cuda")
        if cuda is not None:
            # Any thread may delete it, and pycuda frees memory only where its context is current.
            cuda.push()
            self.__dict__.clear()
            cuda.pop()


def import_pycuda() -> Any:
    """pycuda.driver, initialized.

    Raises:
        BackendError: it is not installed or does not load.
    """
    try:
        driver = importlib.import_module("pycuda.driver")
    except (ImportError, OSError) as error:
        raise BackendError(
            f"pycuda is not installed for this Python ({error}); with the CUDA toolkit installed "
            f"and its nvcc in PATH: pip install pycuda"
        ) from error
    try:
        driver.init()
    except driver.Error as error:
        raise BackendError(f"pycuda does not start: {error}") from error
    return driver


@functools.cache
def primary_context() -> Any:
    """The primary CUDA context of the first device, kept until the process ends.

    Raises:
        BackendError: there is no pycuda, or the device gives no context.
    """
    driver = import_pycuda()
    try:
        context = driver.Device(0).retain_primary_context()
    except driver.Error as error:
        raise BackendError(f"the device gives no CUDA context: {error}") from error
    atexit.register(primary_context.cache_clear)
    return context
