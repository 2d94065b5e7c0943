# SPDX-License-Identifier: Apache-2.0
"""Stands in for TensorRT where there is no GPU: an "engine" is an ONNX file run by ONNX Runtime.

It shows that scrfd_ros follows TensorRT's rules, not that TensorRT works as expected:
inference/test_tensorrt_names.py compares the used names with the real bindings, and the tests in
gpu/ run real engines. As in real engines, outputs have another order than in the ONNX file, and
failures are None or False with a message in the log. Work is queued on the simulated driver's
stream, and a graph is void once its execution context has changed.

SIMULATED_TENSORRT makes it misbehave: "build fails", "no engine", "no context", "execute fails",
"breaks the device", "fp16 gives NaN", "fp16 and fp32 give NaN", "does not start".
SIMULATED_TENSORRT_VERSION is its version.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import json
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from scrfd_ros.inference import cuda

__version__ = os.environ.get("SIMULATED_TENSORRT_VERSION", "10.3.0")
_VERSION = tuple(map(int, __version__.split(".")[:2]))

Shape = tuple[int, ...]


_SCRATCH = 1 << 20  # bytes
_ALIGNMENT = 16  # of memory of the simulated driver
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int)
_recorded: list[object] = []  # work in graphs is kept
_lost: list[object] = []


@functools.cache  # what is deleted after a test still finds the driver
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL(cuda._LIBRARY)


def _is_on_device(address: int, size: int) -> bool:
    function = _driver().simulated_is_on_device
    return bool(function(ctypes.c_void_p(address), ctypes.c_size_t(size)))


def _misbehaves(how: str) -> bool:
    return os.environ.get("SIMULATED_TENSORRT") == how


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


def _fail(log: ILogger, message: str) -> None:
    log.log(ILogger.Severity.INFO, "[I] something harmless")
    log.log(ILogger.Severity.ERROR, message)


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class BuilderFlag(enum.Enum):
    FP16 = 0
    INT8 = 1


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH = 0


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class OnnxParserFlag(enum.Enum):
    NATIVE_INSTANCENORM = 0


class _InputTensor:
    def __init__(self, name: str, shape: Shape) -> None:
        self.name, self.shape = name, shape

    def set_dimension_name(self, axis: int, name: str) -> None:
        pass


class _NetworkDefinition:
    def __init__(self) -> None:
        self.content = b""
        self.inputs: list[_InputTensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, number: int) -> _InputTensor:
        return self.inputs[number]


class OnnxParser:
    def __init__(self, network: _NetworkDefinition, log: ILogger) -> None:
        self._network = network
        self._errors: list[str] = []

    def set_flag(self, flag: OnnxParserFlag) -> None:
        pass

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, number: int) -> str:
        return self._errors[number]

    def parse(self, content: bytes) -> bool:
        try:
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        except Exception as error:
            self._errors.append(f"In node -1: {error}")
            return False
        self._network.content = content
        self._network.inputs = [
            _InputTensor(tensor.name, tuple(v if isinstance(v, int) else -1 for v in tensor.shape))
            for tensor in session.get_inputs()
        ]
        return True


class _TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return b"times"


class _Profile:
    def __init__(self) -> None:
        self.shapes: list[Shape] = []

    def set_shape(self, name: str, low: Shape, usual: Shape, high: Shape) -> None:
        self.shapes = [low, usual, high]


class _BuilderConfig:
    def __init__(self) -> None:
        self.flags: list[BuilderFlag] = []
        self.workspace: int | None = None
        self.profile: _Profile | None = None
        self._cache: _TimingCache | None = None

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.append(flag)

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        assert size < 1 << 63
        self.workspace = size

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.profile = profile
        return 0

    def create_timing_cache(self, content: bytes) -> _TimingCache | None:
        return _TimingCache(content) if content in (b"", b"times", b"of another GPU") else None

    def set_timing_cache(self, cache: _TimingCache, ignore_mismatch: bool) -> bool:
        if cache.content == b"of another GPU":
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> _TimingCache | None:
        return self._cache


def init_libnvinfer_plugins(log: ILogger, namespace: str) -> bool:
    return True


def _start(log: ILogger) -> None:
    if _misbehaves("does not start"):
        log.log(ILogger.Severity.WARNING, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")


class Builder:
    def __init__(self, log: ILogger) -> None:
        _start(log)
        self._log = log

    def create_network(self, flags: int) -> _NetworkDefinition:
        assert flags == 1 << NetworkDefinitionCreationFlag.EXPLICIT_BATCH
        return _NetworkDefinition()

    def create_builder_config(self) -> _BuilderConfig:
        return _BuilderConfig()

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(
        self, network: _NetworkDefinition, config: _BuilderConfig
    ) -> bytes | None:
        shape = network.inputs[0].shape
        if _misbehaves("build fails") or (-1 in shape and config.profile is None):
            _fail(self._log, "[E] Error Code 4: no implementation for node Conv_0")
            return None
        # Counts builds, for tests.
        if "SIMULATED_BUILDS" in os.environ:
            with Path(os.environ["SIMULATED_BUILDS"]).open("a") as stream:
                stream.write(f"{[flag.name for flag in config.flags]} {config.workspace}\n")
        head = {
            "shape": shape,
            "profile": config.profile.shapes if config.profile else None,
            "nan": (_misbehaves("fp16 gives NaN") and BuilderFlag.FP16 in config.flags)
            or _misbehaves("fp16 and fp32 give NaN"),
        }
        return json.dumps(head).encode() + b"\n" + network.content


class Runtime:
    def __init__(self, log: ILogger) -> None:
        _start(log)
        self._log = log

    def deserialize_cuda_engine(self, plan: bytes) -> _Engine | None:
        head, _, content = plan.partition(b"\n")
        if _misbehaves("no engine") or not head.startswith(b'{"shape"'):
            _fail(self._log, "[E] Error Code 1: Serialization (magicTag does not match)")
            return None
        try:
            return _Engine(self._log, json.loads(head), content)
        except Exception:  # ONNX Runtime's own
            _fail(self._log, "[E] Error Code 1: Serialization (an engine of another length)")
            return None


class _Engine:
    def __init__(self, log: ILogger, head: dict[str, Any], content: bytes) -> None:
        self.log, self.head = log, head
        self.shapes: dict[Shape, dict[str, Shape]] = {}
        self.contexts: weakref.WeakSet[_ExecutionContext] = weakref.WeakSet()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name
        self.names = [self.input, *(out.name for out in reversed(self.session.get_outputs()))]

    @property
    def num_io_tensors(self) -> int:
        return len(self.names)

    def get_tensor_name(self, number: int) -> str:
        return self.names[number]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == self.input else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT

    def get_tensor_shape(self, name: str) -> Shape:
        if name == self.input:
            return tuple(self.head["shape"])
        shape = self.output_shape(name, self.largest)
        return (-1, *shape[1:]) if -1 in self.head["shape"] else shape

    def output_shape(self, name: str, shape: Shape) -> Shape:
        """Of an output, for a shape of the input; found by running it once."""
        if shape not in self.shapes:
            outputs = self.run(np.zeros(shape, np.float32))
            self.shapes[shape] = {name: array.shape for name, array in outputs.items()}
        return self.shapes[shape][name]

    @property
    def largest(self) -> Shape:
        profile = self.head["profile"]
        return tuple(profile[2] if profile else self.head["shape"])

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[Shape]:
        assert name == self.input and profile == 0
        return [tuple(shape) for shape in self.head["profile"]]

    @property
    def device_memory_size_v2(self) -> int:
        return _SCRATCH

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy
    ) -> _ExecutionContext | None:
        assert strategy == ExecutionContextAllocationStrategy.USER_MANAGED
        assert _driver().simulated_has_context()
        if _misbehaves("no context"):
            _fail(self.log, "[E] Error Code 2: OutOfMemory")
            return None
        return _ExecutionContext(self)

    def run(self, array: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        names = self.names[1:]
        outputs = dict(zip(names, self.session.run(names, {self.input: array}), strict=True))
        if self.head["nan"]:
            outputs = {name: out * np.float32("nan") for name, out in outputs.items()}
        return outputs


class _ExecutionContext:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        # Before 10.0 the profile of an engine with free sizes is that of one context at a time.
        is_free = engine.head["profile"] is not None
        self._has_profile = _VERSION >= (10, 0) or not is_free or not engine.contexts
        engine.contexts.add(self)
        self._shape = engine.largest
        self._addresses: dict[str, int] = {}
        self._changes = 0  # of shapes and addresses; a graph lasts until the next
        self._ran = -1  # after so many changes
        self._scratch = 0
        self._work: list[object] = []  # what the driver may call is kept

    def __del__(self) -> None:
        # The real one frees memory of the device, which takes a current context.
        if not _driver().simulated_has_context():
            _lost.append(self)

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= _SCRATCH
        self._set_memory(memory)

    def _set_memory(self, memory: int) -> None:
        assert _is_on_device(memory, _SCRATCH)
        self._scratch = memory

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        engine = self._engine
        low, _, high = engine.head["profile"] or [engine.head["shape"]] * 3
        fits = len(shape) == len(low) and all(
            a <= b <= c for a, b, c in zip(low, shape, high, strict=True)
        )
        if not fits or not self._has_profile:
            reason = "shape not in the profile" if self._has_profile else "no profile is set"
            _fail(engine.log, f"[E] Error Code 3: API Usage Error ({reason})")
            return False
        self._shape = tuple(shape)
        self._changes += 1
        return True

    def get_tensor_shape(self, name: str) -> Shape:
        if name == self._engine.input:
            return self._shape
        return self._engine.output_shape(name, self._shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert name in self._engine.names
        assert address % _ALIGNMENT == 0
        self._addresses[name] = address
        self._changes += 1
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert _driver().simulated_has_context()
        if _misbehaves("execute fails"):
            _fail(self._engine.log, "[E] Error Code 1: Cuda Runtime (an illegal memory access)")
            return False
        sizes = {name: 4 * int(np.prod(self.get_tensor_shape(name))) for name in self._engine.names}
        sizes = {name: size for name, size in sizes.items() if size}
        if not self._scratch or not all(
            _is_on_device(self._addresses.get(name, 0), size) for name, size in sizes.items()
        ):
            _fail(self._engine.log, "[E] Error Code 3: API Usage Error (tensors without memory)")
            return False
        is_recording = _driver().simulated_is_recording(ctypes.c_void_p(stream))
        if is_recording and self._ran != self._changes:
            _fail(self._engine.log, "[E] Error Code 1: the first run after a change is recorded")
            return False
        work = _CALLBACK(self._work_of(self._changes if is_recording else None))
        self._work = [*self._work[-100:], work]
        if is_recording:
            _recorded.append(work)
        self._ran = self._changes
        return _driver().simulated_enqueue(ctypes.c_void_p(stream), work) == 0

    def _work_of(self, changes: int | None) -> Callable[[], int]:
        """What a run does with today's shape and addresses; recorded, only until they change."""
        engine, shape, addresses = self._engine, self._shape, dict(self._addresses)
        context = weakref.ref(self)  # in no cycle, so that it is gone with its last reference

        def work() -> int:
            changed = getattr(context(), "_changes", None) != changes
            if (changes is not None and changed) or _misbehaves("breaks the device"):
                return 1
            size = int(np.prod(shape))
            memory = (ctypes.c_float * size).from_address(addresses[engine.input])
            outputs = engine.run(np.ctypeslib.as_array(memory).reshape(shape))
            for name, array in outputs.items():
                array = np.ascontiguousarray(array)
                ctypes.memmove(addresses[name], array.ctypes.data, array.nbytes)
            return 0

        return work


# What older versions lack, and have instead.
if _VERSION < (10, 1):
    _Engine.device_memory_size = _Engine.device_memory_size_v2  # type: ignore[attr-defined]
    _ExecutionContext.device_memory = property(  # type: ignore[attr-defined]
        fset=lambda self, memory: _ExecutionContext._set_memory(self, memory)
    )
    del _Engine.device_memory_size_v2, _ExecutionContext.set_device_memory
if _VERSION < (10, 0):
    _Engine.create_execution_context_without_device_memory = (  # type: ignore[attr-defined]
        lambda self: _ExecutionContext(self)
    )
    del _Engine.create_execution_context, ExecutionContextAllocationStrategy
