# SPDX-License-Identifier: Apache-2.0
"""Faults end in an error that says what is wrong, not in a crash, and leave the rest usable."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from onnx_files import write_recognizer

from gpu.engines import engine
from gpu.outcomes import Failure, NotRun
from scrfd_ros.engines.convert import Settings, convert
from scrfd_ros.errors import BackendError, ScrfdError
from scrfd_ros.inference.cuda_api import CudaApi, cuda_api
from scrfd_ros.inference.engine_file import metadata_path, read_metadata, write_metadata
from scrfd_ros.inference.load import load_network

_ENGINE = "w600k_mbf"  # the model whose engine is misused
_BOARD = Path("/proc/device-tree/model")
_LARGEST, _SMALLEST = 1 << 40, 1 << 20  # bytes, of the blocks that fill the device's memory
_SCRFD = "import sys; from scrfd_ros.cli.main import main; sys.exit(main(sys.argv[1:]))"
_KEPT = 0.5  # of a damaged engine
_HEAD = 64  # bytes, where an engine has its version


def of_another_version(folder: Path) -> dict[str, Any]:
    """An engine that another TensorRT built, by its metadata, is refused before it is read."""
    with _copy(folder) as path:
        metadata = read_metadata(path)
        assert metadata is not None
        other = dataclasses.replace(metadata.platform, tensorrt="tensorrt 8.6.1")
        write_metadata(path, dataclasses.replace(metadata, platform=other))
        return _refused(path, r"built for another machine: .*8\.6\.1.*build it again: scrfd")


def truncated(folder: Path) -> dict[str, Any]:
    """Half of an engine is refused by its checksum."""
    with _copy(folder) as path:
        content = path.read_bytes()
        path.write_bytes(content[: int(_KEPT * len(content))])
        return _refused(path, "damaged or replaced: .*build it again: scrfd convert")


def truncated_without_metadata(folder: Path) -> dict[str, Any]:
    """Half of an engine of which nothing is known is refused by TensorRT."""
    with _copy(folder) as path:
        content = path.read_bytes()
        path.write_bytes(content[: int(_KEPT * len(content))])
        metadata_path(path).unlink()
        return _refused(path, "cannot load this engine: ")


def other_head_without_metadata(folder: Path) -> dict[str, Any]:
    """An engine with another version in its first bytes is refused by TensorRT."""
    with _copy(folder) as path:
        content = bytearray(path.read_bytes())
        content[:_HEAD] = bytes(byte ^ 0x55 for byte in content[:_HEAD])
        path.write_bytes(content)
        metadata_path(path).unlink()
        return _refused(path, "cannot load this engine: ")


def wrong_shape(folder: Path) -> dict[str, Any]:
    """More faces than an engine takes are refused, and the next call works."""
    network = load_network(engine(folder, _ENGINE))
    (tensor,) = network.inputs
    assert network.max_batch is not None
    try:
        network({tensor.name: np.zeros((network.max_batch + 1, 3, 112, 112), np.float32)})
    except ScrfdError as error:
        figures = {"error": str(error)}
    else:
        raise Failure("the engine took more faces than it was built for")
    network({tensor.name: np.zeros((1, 3, 112, 112), np.float32)})
    return figures


def memory_full(folder: Path) -> dict[str, Any]:
    """An engine does not load while the device's memory is full, and does afterwards."""
    if _BOARD.exists():
        raise NotRun("on this board the GPU's memory is the system's, which would stop")
    path = engine(folder, _ENGINE)
    load_network(path)
    cuda = cuda_api()
    with cuda.current():
        blocks = _all_memory(cuda)
    try:
        figures = _refused(path, "memory")
    finally:
        with cuda.current():
            blocks.clear()
    load_network(path)
    return figures


def _all_memory(cuda: CudaApi) -> list[Any]:
    """All of the device's memory that is free."""
    blocks, size = [], _LARGEST
    while size >= _SMALLEST:
        try:
            blocks.append(cuda.memory(size))
        except BackendError:
            size //= 2
    return blocks


def bad_timing_cache(folder: Path) -> dict[str, Any]:
    """An engine is built without a timing cache, and with one that is damaged."""
    with tempfile.TemporaryDirectory() as made:
        model = write_recognizer(Path(made) / "small.onnx")
        path, cache = model.with_suffix(".engine"), Path(made) / "timing.cache"
        convert(model, path, Settings("fp32", batch=(1, 2, 4)))
        kept = cache.exists()
        cache.write_bytes(b"damaged")
        convert(model, path, Settings("fp32", batch=(1, 2, 4)))
        load_network(path)
    return {"a timing cache is kept": kept}


def no_device(folder: Path) -> dict[str, Any]:
    """Without a visible device a program says so, rather than crash in TensorRT."""
    path = engine(folder, _ENGINE)
    result = subprocess.run(
        [sys.executable, "-c", _SCRFD, "verify", str(path)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
    )
    return _as_expected(f"{result.stdout}{result.stderr}", "no CUDA device: ")


@contextlib.contextmanager
def _copy(folder: Path) -> Iterator[Path]:
    """A copy of an engine with its metadata."""
    source = engine(folder, _ENGINE)
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "copy.engine"
        for before, after in ((source, path), (metadata_path(source), metadata_path(path))):
            after.write_bytes(before.read_bytes())
        yield path


def _refused(path: Path, pattern: str) -> dict[str, Any]:
    """The error with which an engine does not load."""
    try:
        network = load_network(path)
        (tensor,) = network.inputs
        network({tensor.name: np.zeros((1, 3, 112, 112), np.float32)})
    except ScrfdError as error:
        return _as_expected(str(error), pattern)
    raise Failure("the engine was loaded and run")


def _as_expected(error: str, pattern: str) -> dict[str, Any]:
    figures = {"error": error}
    if not re.search(pattern, error, re.DOTALL):
        raise Failure(f"expected an error like {pattern!r}, got: {error}", figures)
    return figures
