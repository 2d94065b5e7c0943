"""TensorRT as a library: found and imported, its version, and what it says.

One code for TensorRT 8.5 to 11 and TensorRT-RTX. TensorRT reports failures by returning None and
writing to its log, so the log is kept for the error.
"""

from __future__ import annotations

import functools
import importlib
import logging
import platform
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from scrfd_ros.errors import BackendError
from scrfd_ros.networks.cuda import cuda_device

# TensorRT-RTX without its meta package has but the last.
_MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
_OLDEST = (8, 5)
_MESSAGES_KEPT = 5


@dataclass(frozen=True)
class Platform:
    """What an engine is built for and cannot do without.

    Attributes:
        gpu: name of the GPU.
        compute_capability: of the GPU, such as "8.7".
        tensorrt: product and version, such as "tensorrt 10.3.0".
        cuda: newest CUDA version that the driver serves.
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
    """TensorRT's module and what it runs on, once a CUDA device has been found.

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
    return trt, Platform(
        gpu=device.name,
        compute_capability=device.compute_capability,
        tensorrt=product(trt),
        cuda=device.cuda,
        system=f"{platform.system()} {platform.machine()}",
    )


def import_tensorrt() -> ModuleType:
    """TensorRT's module. Nothing of it may be used before CUDA has been probed, but its version.

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
        except (ImportError, OSError) as error:  # a library it is linked to is missing
            troubles.append(f"{name}: {error}")
    else:
        reason = "; ".join(troubles) or f"no Python module {' or '.join(_MODULES[:2])}"
        raise BackendError(
            f"TensorRT is not installed for this Python ({reason}); on a Jetson: apt install "
            f"python3-libnvinfer, elsewhere: pip install tensorrt"
        )
    if not is_rtx(trt) and version(trt) < _OLDEST:
        raise BackendError(f"TensorRT {trt.__version__} is too old; 8.5 or newer is needed")
    return trt


def is_rtx(trt: ModuleType) -> bool:
    """Whether this is TensorRT-RTX, which counts its versions anew."""
    return "rtx" in trt.__name__


def version(trt: ModuleType) -> tuple[int, ...]:
    """Major and minor version, such as (10, 3)."""
    return tuple(int(number) for number in trt.__version__.split(".")[:2])


def product(trt: ModuleType) -> str:
    """Name and version, such as "tensorrt 10.3.0"."""
    return f"{'tensorrt_rtx' if is_rtx(trt) else 'tensorrt'} {trt.__version__}"


def is_strongly_typed(trt: ModuleType) -> bool:
    """Whether the types in the ONNX file are the only way to choose a precision."""
    return not hasattr(trt.BuilderFlag, "FP16")


@functools.cache
def message_log(trt: ModuleType) -> Any:
    """The `trt.ILogger` of this process: TensorRT keeps the first one it is given.

    Its method `errors()` gives the errors since it was last called, as one line. Warnings and the
    rest go to Python's logging at level debug.
    """
    worst_harmless = int(trt.ILogger.Severity.WARNING)

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) < worst_harmless:
                self._errors.append(" ".join(message.split()))
            else:
                logging.getLogger(__name__).debug("%s", message)

        def errors(self) -> str:
            errors, self._errors = self._errors, []
            return "; ".join(errors[-_MESSAGES_KEPT:]) or "TensorRT gave no reason"

    return Log()
