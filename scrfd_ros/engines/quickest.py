# SPDX-License-Identifier: Apache-2.0
"""Whether ONNX Runtime or OpenVINO runs a model faster here: measured once, and kept beside it.

The measurements of a model are in a JSON file beside it. They hold for the model, the size of its
input, the threads, the machine and the versions that they name; others are measured anew.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import onnxruntime

from scrfd_ros.errors import ScrfdError
from scrfd_ros.files import write_bytes
from scrfd_ros.inference.cores import processor_name, usable_cores
from scrfd_ros.inference.onnx_file import read_model

BACKENDS: Final = ("onnxruntime", "openvino")
"""Those that are compared."""

_GAIN = 0.95  # of the time: OpenVINO takes 60 MiB more memory
_FORMAT, _KEPT = 1, 8
_TIMEOUT = 60  # seconds

_logger = logging.getLogger(__name__)


def quickest_backend(
    model: Path, input_size: tuple[int, int] | None, any_size: bool, threads: int
) -> str:
    """The one of `BACKENDS` that runs a model faster; ONNX Runtime if that cannot be measured.

    It is measured in a process of its own, which takes about two seconds, as what a backend once
    has in memory stays there. The choice and its reason are logged.

    Args:
        model: an ONNX file.
        input_size, any_size, threads: see `scrfd_ros.engines.open.open_network`, by which the
            model will be loaded.

    Raises:
        ModelError: the file cannot be read.
    """
    conditions = {
        "model_sha256": hashlib.sha256(read_model(model)).hexdigest(),
        "input_size": list(input_size) if input_size else None,
        "any_size": any_size,
        "threads": threads or usable_cores(),
        "machine": f"{processor_name()}, {platform.machine()}",
        "versions": {
            "onnxruntime": onnxruntime.__version__,
            "openvino": _openvino_version(),
        },
    }
    path = model.with_name(f"{model.name}.speed.json")
    known = _read(path)
    milliseconds = next(
        (found for each in known if (found := _times(each, conditions)) is not None), None
    )
    when = "measured earlier"
    if milliseconds is None:
        when = "measured now"
        try:
            milliseconds = _measure(model, input_size, any_size, threads)
        except ScrfdError as error:
            _logger.warning(
                "%s runs on ONNX Runtime, as it could not be compared with OpenVINO: %s. It is "
                "tried again at every start; to stop that, choose the backend onnxruntime",
                model.name,
                error,
            )
            return "onnxruntime"
        _keep(path, [{**conditions, "milliseconds": milliseconds}, *known][:_KEPT])
    is_quicker = milliseconds["openvino"] < _GAIN * milliseconds["onnxruntime"]
    backend = "openvino" if is_quicker else "onnxruntime"
    figures = ", ".join(f"{name} {milliseconds[name]:.1f} ms" for name in BACKENDS)
    _logger.info("%s: taking %s, %s: %s", model.name, backend, when, figures)
    return backend


def _openvino_version() -> str | None:
    """None where it comes from an archive, which has no data about a package."""
    try:
        return metadata.version("openvino")
    except metadata.PackageNotFoundError:
        return None


def _read(path: Path) -> list[dict[str, Any]]:
    """The measurements in a file; none if it is not there, or not as this module writes it."""
    try:
        content = json.loads(path.read_bytes())
        if content["format"] == _FORMAT:
            return [each for each in content["measurements"] if isinstance(each, dict)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return []


def _times(measurement: dict[str, Any], conditions: dict[str, Any]) -> dict[str, float] | None:
    """The times of a measurement if it was made under these conditions, and is whole."""
    times = measurement.get("milliseconds")
    if {**measurement, "milliseconds": None} != {**conditions, "milliseconds": None}:
        return None
    if not isinstance(times, dict) or times.keys() != set(BACKENDS):
        return None
    return times if all(isinstance(each, float) and each > 0 for each in times.values()) else None


def _keep(path: Path, measurements: list[dict[str, Any]]) -> None:
    content = json.dumps({"format": _FORMAT, "measurements": measurements}, indent=1)
    try:
        write_bytes(path, f"{content}\n".encode())
    except ScrfdError as error:
        _log_not_kept(str(error))


@functools.cache  # once for each reason
def _log_not_kept(reason: str) -> None:
    _logger.warning("OpenVINO and ONNX Runtime are compared at every start: %s", reason)


def _measure(
    model: Path, input_size: tuple[int, int] | None, any_size: bool, threads: int
) -> dict[str, float]:
    """Milliseconds of a run with each of `BACKENDS`, by `scrfd_ros.engines.race`.

    Raises:
        ScrfdError: it failed; says why.
    """
    arguments = [str(model), *map(str, input_size or (0, 0)), str(int(any_size)), str(threads)]
    try:
        process = subprocess.run(
            [sys.executable, "-m", "scrfd_ros.engines.race", *arguments],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
        )
        times = json.loads(process.stdout) if process.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise ScrfdError(" ".join(str(error).split())) from error
    if times is None:
        last = (process.stderr.strip().splitlines() or [f"status {process.returncode}"])[-1]
        raise ScrfdError(last)
    return {name: float(times[name]) for name in BACKENDS}
