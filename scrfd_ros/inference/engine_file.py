# SPDX-License-Identifier: Apache-2.0
"""The metadata of an engine file, in a JSON file beside it, and whether it fits this machine.

An engine itself records neither its model nor the machine it was built for; on another machine
TensorRT fails late, or crashes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scrfd_ros.errors import ModelError
from scrfd_ros.files import write_bytes
from scrfd_ros.inference.onnx_file import read_file
from scrfd_ros.inference.tensorrt_library import Platform

PRECISIONS = ("fp32", "fp16", "int8")

_FORMAT = 1
_DIMENSIONS = 4  # of an input: N, channels, height, width
_REMOVE = "remove it, and build the engine again or let `scrfd verify` write it"


@dataclass(frozen=True)
class ShapeRange:
    """Minimum, usual and maximum shape of an engine's input; all equal if the shape is fixed."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    @property
    def is_fixed(self) -> bool:
        return self.min == self.max

    @property
    def batch(self) -> str:
        """Batch sizes in the form of `scrfd convert`: "1", or "1:8:32"."""
        if self.min[0] == self.max[0]:
            return str(self.min[0])
        return f"{self.min[0]}:{self.opt[0]}:{self.max[0]}"


@dataclass(frozen=True)
class EngineMetadata:
    """The content of the JSON file beside an engine.

    Attributes:
        engine_sha256: checksum of the engine file.
        model: path of the ONNX file it was built from, as it was given.
        model_sha256: checksum of that file.
        normalizes_input: see `Network`.
        platform: what it was built for.
        precision: one of `PRECISIONS`; "unknown" if another program built it.
        shapes: of the input.
        options: of the build, by the names of `scrfd convert`'s options.
        agreement: figures of the comparison with the ONNX model, by name; see
            `scrfd_ros.engines.agreement`.
        built: date and time, UTC, ISO 8601.
    """

    engine_sha256: str
    model: str
    model_sha256: str
    normalizes_input: bool
    platform: Platform
    precision: str
    shapes: ShapeRange
    options: dict[str, Any]
    agreement: dict[str, Any]
    built: str


def metadata_path(engine: Path) -> Path:
    """The JSON file beside an engine."""
    return engine.with_name(f"{engine.name}.json")


def write_engine(engine: Path, plan: bytes, metadata: EngineMetadata) -> None:
    """Write an engine and its metadata.

    Raises:
        ScrfdError: a file cannot be written.
    """
    # If this is interrupted in between, the checksum does not match and the engine is refused.
    write_bytes(engine, plan)
    write_metadata(engine, metadata)


def write_metadata(engine: Path, metadata: EngineMetadata) -> None:
    """Write the metadata of an engine beside it.

    Raises:
        ScrfdError: the file cannot be written.
    """
    content = {"format": _FORMAT, **dataclasses.asdict(metadata)}
    write_bytes(metadata_path(engine), (json.dumps(content, indent=2) + "\n").encode())


def read_metadata(engine: Path) -> EngineMetadata | None:
    """The metadata of an engine; None if there is no JSON file, as for engines of trtexec.

    Raises:
        ModelError: the JSON file cannot be read or is malformed.
    """
    path = metadata_path(engine)
    try:
        content = json.loads(path.read_bytes())
        if content.pop("format") != _FORMAT:
            raise ValueError(f"not format {_FORMAT}: another version of scrfd_ros wrote it")
        shapes = {name: tuple(shape) for name, shape in content.pop("shapes").items()}
        platform = Platform(**content.pop("platform"))
        metadata = EngineMetadata(**content, platform=platform, shapes=ShapeRange(**shapes))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"{path}: cannot read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: not the metadata of an engine: {error!r}; {_REMOVE}") from error
    if not _has_right_types(metadata):
        raise ModelError(f"{path}: a value in it is of the wrong type; {_REMOVE}")
    return metadata


def model_sha256(path: Path) -> str:
    """SHA-256 of the ONNX file that a network comes from, in hexadecimal.

    That of the file itself, or of the model that an engine was built from; of an engine without
    metadata, that of the engine.

    Raises:
        ModelError: the file or its metadata cannot be read.
    """
    metadata = read_metadata(path)
    return metadata.model_sha256 if metadata else hashlib.sha256(read_file(path)).hexdigest()


def _has_right_types(metadata: EngineMetadata) -> bool:
    texts = [
        metadata.engine_sha256,
        metadata.model,
        metadata.model_sha256,
        metadata.precision,
        metadata.built,
    ]
    sizes = [size for shape in dataclasses.astuple(metadata.shapes) for size in shape]
    return (
        all(isinstance(text, str) for text in (*texts, *dataclasses.astuple(metadata.platform)))
        and all(len(shape) == _DIMENSIONS for shape in dataclasses.astuple(metadata.shapes))
        and all(type(size) is int and size > 0 for size in sizes)
        and isinstance(metadata.normalizes_input, bool)
        and isinstance(metadata.options, dict)
        and isinstance(metadata.agreement, dict)
        and all(type(figure) in (int, float) for figure in metadata.agreement.values())
    )


def check_metadata(engine: Path, plan: bytes, metadata: EngineMetadata, here: Platform) -> None:
    """Compare an engine with its metadata, and the metadata with this machine.

    Args:
        engine: its path.
        plan: content of the engine file.
        metadata: its metadata.
        here: this machine.

    Raises:
        ModelError: the file is not the described one, or was built for another machine; names both
            sides, and the command that rebuilds it.
    """
    rebuild = f"build it again: {rebuild_command(engine, metadata)}"
    found = hashlib.sha256(plan).hexdigest()
    if found != metadata.engine_sha256:
        raise ModelError(
            f"{engine}: damaged or replaced: {len(plan)} bytes with SHA-256 {found}, expected "
            f"{metadata.engine_sha256}; {rebuild}. If you replaced it yourself, remove "
            f"{metadata_path(engine).name}"
        )
    if differences(metadata.platform, here):
        raise ModelError(
            f"{engine}: built for another machine: for {metadata.platform}; here is {here}; "
            f"{rebuild}"
        )


def differences(built: Platform, here: Platform) -> list[str]:
    """Names of the attributes that prevent moving an engine between two platforms."""
    fields = ("gpu", "compute_capability", "tensorrt", "system")
    names = [name for name in fields if getattr(built, name) != getattr(here, name)]
    # Engines survive an update of the driver; another major version has other libraries.
    if built.cuda.split(".")[0] != here.cuda.split(".")[0]:
        names.append("cuda")
    return names


def rebuild_command(engine: Path, metadata: EngineMetadata) -> str:
    """The command line that builds an engine again."""
    *_, height, width = metadata.shapes.opt
    options = {"precision": None, **metadata.options}
    if options["precision"] is None and metadata.precision in PRECISIONS:
        options["precision"] = metadata.precision
    words = ["scrfd", "convert", metadata.model, str(engine)]
    words += ["--input-size", f"{width}x{height}", "--batch", metadata.shapes.batch]
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}", str(value)]
    return shlex.join(words)
