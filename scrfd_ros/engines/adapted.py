# SPDX-License-Identifier: Apache-2.0
"""Model files that are changed for this package, once, and kept beside their originals.

The changed file has its original's name, in the folder `adapted/<change>` beside it. A JSON file
beside it has the checksums of both. It is written last, after the changed model has agreed with its
original; so what is there without it, or does not fit it, is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from scrfd_ros.errors import ModelError, ScrfdError
from scrfd_ros.files import ensure_writable, locked_folder, write_bytes
from scrfd_ros.inference.load import load_network
from scrfd_ros.inference.network import Network
from scrfd_ros.inference.onnx_file import read_file, read_model

_FOLDER = "adapted"
_FORMAT = 1

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adaptation:
    """A change of models.

    Attributes:
        name: of the folder for the changed files.
        version: to be raised whenever the change makes other files.
        change: from the content of an ONNX file to the changed one, the same on every machine.
            Raises ModelError with the reason where a model does not allow the change, and
            ValueError where the file is malformed.
        check: compares the changed network with its original. Raises ModelError where they
            disagree.
    """

    name: str
    version: int
    change: Callable[[bytes], bytes]
    check: Callable[[Network, Network], None]


class AdaptedModel(NamedTuple):
    """A changed model.

    Attributes:
        path: the changed file.
        sha256: its checksum.
        original_sha256: that of the file it was made from.
    """

    path: Path
    sha256: str
    original_sha256: str


def adapted_model(model: Path, adaptation: Adaptation) -> AdaptedModel:
    """The changed file of a model, made and checked if it is not there yet.

    Args:
        model: an ONNX file.
        adaptation: the change.

    Raises:
        ModelError: the model does not allow the change, or the changed one disagrees with it.
        ScrfdError: a file cannot be read or written.
    """
    adapted = find_adapted(model, adaptation)
    if adapted is not None:
        return adapted
    path = _path(model, adaptation)
    ensure_writable(path)
    with locked_folder(
        path.parent,
        lambda: _logger.warning("waiting for another process that writes in %s", path.parent),
    ):
        adapted = find_adapted(model, adaptation)  # the other process may have made this one
        return adapted or _make(path, model, adaptation)


def find_adapted(model: Path, adaptation: Adaptation) -> AdaptedModel | None:
    """The changed file of a model; None if there is none, or it does not fit.

    Raises:
        ModelError: the model cannot be read.
    """
    original, path = read_file(model), _path(model, adaptation)
    try:
        found = json.loads(metadata_path(path).read_bytes())
        adapted = AdaptedModel(
            path,
            hashlib.sha256(path.read_bytes()).hexdigest(),
            hashlib.sha256(original).hexdigest(),
        )
    except (OSError, ValueError, RecursionError):
        return None
    return adapted if found == _metadata(adapted, adaptation) else None


def load_adapted(
    model: Path, adaptation: Adaptation, backend: str | None = None, *, threads: int = 0
) -> Network:
    """The changed model as a network, which has the checksum of its original.

    Args:
        model, adaptation: see `adapted_model`.
        backend, threads: see `load_network`.

    Raises:
        BackendError: the backend's library is missing on this machine.
        ModelError, ScrfdError: see `adapted_model`; or a file was replaced meanwhile.
    """
    adapted = adapted_model(model, adaptation)
    network = load_network(adapted.path, backend, threads=threads)
    if network.sha256 != adapted.sha256:
        raise ModelError(f"{adapted.path}: was replaced while it was being loaded; try again")
    network.sha256 = adapted.original_sha256
    return network


def original_sha256(path: Path, content: bytes) -> str:
    """The checksum of the model that a file was made from; its own if it is not a changed one."""
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        found = json.loads(metadata_path(path).read_bytes())
        if found["format"] == _FORMAT and found["sha256"] == sha256:
            return str(found["original_sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return sha256


def metadata_path(path: Path) -> Path:
    """The JSON file beside a changed file."""
    return path.with_name(f"{path.name}.json")


def _path(model: Path, adaptation: Adaptation) -> Path:
    return model.parent / _FOLDER / adaptation.name / model.name


def _metadata(adapted: AdaptedModel, adaptation: Adaptation) -> dict[str, str | int]:
    return {
        "format": _FORMAT,
        "adaptation": adaptation.name,
        "version": adaptation.version,
        "sha256": adapted.sha256,
        "original_sha256": adapted.original_sha256,
    }


def _make(path: Path, model: Path, adaptation: Adaptation) -> AdaptedModel:
    original = read_model(model)
    try:
        content = adaptation.change(original)
    except ValueError as error:
        raise ModelError(f"not a whole ONNX model: {error}") from error
    adapted = AdaptedModel(
        path, hashlib.sha256(content).hexdigest(), hashlib.sha256(original).hexdigest()
    )
    metadata = metadata_path(path)
    try:
        metadata.unlink(missing_ok=True)
        write_bytes(path, content)
        try:
            adaptation.check(load_network(path), load_network(model))
        except ScrfdError:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ScrfdError(f"{path}: cannot write: {error.strerror}") from error
    described = json.dumps(_metadata(adapted, adaptation), indent=2)
    write_bytes(metadata, f"{described}\n".encode())
    _logger.info("%s: changed (%s) and checked, once: %s", model.name, adaptation.name, path)
    return adapted
