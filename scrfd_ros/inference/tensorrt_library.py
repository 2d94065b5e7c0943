# SPDX-License-Identifier: Apache-2.0
"""TensorRT as a library: import, version and log.

Supports TensorRT 8.5 to 11 and TensorRT-RTX. TensorRT reports a failure by returning None and
writing to its log, so errors quote the log.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import platform
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from scrfd_ros.errors import BackendError
from scrfd_ros.inference.cuda import cuda_device

# TensorRT-RTX without its meta package has only the last one.
_MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
OLDEST = (8, 5)
_MESSAGES_KEPT = 5
_BOARD = Path("/proc/device-tree/model")


@dataclass(frozen=True)
class Platform:
    """What an engine is built for, and needs to run.

    Attributes:
        gpu: name of the GPU, on a Jetson with that of the board.
        compute_capability: of the GPU, such as "8.7".
        tensorrt: product and version, such as "tensorrt 10.3.0".
        cuda: newest CUDA version that the driver supports.
        system: operating system and processor architecture, such as "Linux aarch64".
    """

    gpu: str
    compute_capability: str
    tensorrt: str
    cuda: str
    system: str

    def __str__(self) -> str:
        return (
            f"{self.gpu} (compute capability {self.compute_capability}), {self.tensorrt}, "
            f"CUDA {self.cuda}, {self.system}"
        )


def load_tensorrt() -> tuple[ModuleType, Platform]:
    """TensorRT's module and this machine, checked for a CUDA device first.

    Raises:
        BackendError: there is no CUDA device or no usable TensorRT.
    """
    try:
        device = cuda_device()
        trt = import_tensorrt()
    except BackendError as error:
        raise BackendError(
            f"{error}. Engines cannot be built or run here; .onnx files run on ONNX Runtime"
        ) from error
    # "Orin" is three GPUs of different sizes; the board's name tells them apart.
    board = _BOARD.read_text().rstrip("\0") if _BOARD.exists() else ""
    return trt, Platform(
        gpu=", ".join(filter(None, (device.name, board))),
        compute_capability=device.compute_capability,
        tensorrt=product(trt),
        cuda=device.cuda,
        system=f"{platform.system()} {platform.machine()}",
    )


def import_tensorrt() -> ModuleType:
    """TensorRT's module. Before CUDA has been probed, only its version may be used.

    Raises:
        BackendError: it is not installed, does not load, or is too old.
    """
    troubles = []
    for name in _MODULES:
        try:
            trt = importlib.import_module(name)
            break
        except ModuleNotFoundError as error:
            if error.name != name:
                troubles.append(f"{name}: {error}")
        except (ImportError, OSError) as error:  # a shared library is missing
            troubles.append(f"{name}: {error}")
    else:
        reason = "; ".join(troubles) or f"no Python module {' or '.join(_MODULES[:2])}"
        raise BackendError(
            f"TensorRT is not installed for this Python ({reason}); on a Jetson: apt install "
            f"python3-libnvinfer, elsewhere: pip install tensorrt"
        )
    for trouble in troubles:
        logging.getLogger(__name__).warning("using %s, because of %s", product(trt), trouble)
    if not is_rtx(trt) and version(trt) < OLDEST:
        raise BackendError(f"TensorRT {trt.__version__} is too old; 8.5 or newer is needed")
    return trt


def is_rtx(trt: ModuleType) -> bool:
    """Whether this is TensorRT-RTX, which has version numbers of its own."""
    return "rtx" in trt.__name__


def version(trt: ModuleType) -> tuple[int, ...]:
    """Major and minor version, such as (10, 3)."""
    return tuple(int(number) for number in re.findall(r"\d+", trt.__version__)[:2])


def product(trt: ModuleType) -> str:
    """Name and version, such as "tensorrt 10.3.0"."""
    return f"{'tensorrt_rtx' if is_rtx(trt) else 'tensorrt'} {trt.__version__}"


def is_strongly_typed(trt: ModuleType) -> bool:
    """Whether a precision can only be chosen by the types in the ONNX file."""
    return not hasattr(trt.BuilderFlag, "FP16")


@contextlib.contextmanager
def cuda_failures(trt: ModuleType) -> Iterator[None]:
    """For the creation of a Builder or Runtime, which raises TypeError if CUDA does not start.

    Raises:
        BackendError: it did not; quotes TensorRT's log.
    """
    log = message_log(trt)
    log.forget()
    try:
        yield
    except TypeError as error:
        raise BackendError(
            f"{product(trt)} does not start: {log.errors()}; is the NVIDIA driver too old for the "
            f"CUDA version of this TensorRT?"
        ) from error


@functools.cache
def message_log(trt: ModuleType) -> Any:
    """The `trt.ILogger` of this process: TensorRT keeps the first one that it gets.

    Its method `errors()` returns the errors since `forget()` as one line, or the last warning if
    there are none. Other messages go to Python's logging at level debug.
    """
    warning = int(trt.ILogger.Severity.WARNING)

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.forget()

        def log(self, severity: Any, message: str) -> None:
            line = " ".join(message.split())
            if int(severity) < warning:
                self._errors.append(line)
                return
            if int(severity) == warning:
                self._warning = line
            logging.getLogger(__name__).debug("%s", line)

        def errors(self) -> str:
            return "; ".join(self._errors) or self._warning or "TensorRT gave no reason"

        def forget(self) -> None:
            self._errors: deque[str] = deque(maxlen=_MESSAGES_KEPT)
            self._warning = ""

    return Log()
