"""What is known of an engine file: a JSON file beside it, and whether it fits this machine.

An engine tells neither which model it came from nor what it was built for; TensorRT fails late on
the wrong machine, or crashes.
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
from scrfd_ros.networks.build import PRECISIONS, ShapeRange
from scrfd_ros.networks.tensorrt_library import Platform

_FORMAT = 1
_DIMENSIONS = 4  # of an input: N, channels, height, width
_REMOVE = "remove it, and build the engine anew or let `scrfd verify` write it"


@dataclass(frozen=True)
class EngineFacts:
    """What the JSON file beside an engine says.

    Attributes:
        engine_sha256: checksum of the engine file.
        model: the ONNX file it was built from, as it was given.
        model_sha256: checksum of that file.
        normalizes_input: see `Network`.
        platform: what it was built for.
        precision: one of `build.PRECISIONS`; "unknown" where another program built it.
        shapes: of the input.
        options: what was asked of the build, by the names of `scrfd convert`'s options.
        agreement: how far it agrees with the ONNX model, figures by name; see
            `scrfd_ros.evaluation.parity`.
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


def facts_path(engine: Path) -> Path:
    """The JSON file beside an engine."""
    return engine.with_name(f"{engine.name}.json")


def write_engine(engine: Path, plan: bytes, facts: EngineFacts) -> None:
    """Write an engine and its facts.

    Raises:
        ScrfdError: a file cannot be written.
    """
    # Were this to stop half way, the checksum would not match, and the engine would be refused.
    write_bytes(engine, plan)
    write_facts(engine, facts)


def write_facts(engine: Path, facts: EngineFacts) -> None:
    """Write the facts of an engine beside it.

    Raises:
        ScrfdError: the file cannot be written.
    """
    content = {"format": _FORMAT, **dataclasses.asdict(facts)}
    write_bytes(facts_path(engine), (json.dumps(content, indent=2) + "\n").encode())


def read_facts(engine: Path) -> EngineFacts | None:
    """The facts of an engine; None where there is no JSON file, as for engines of trtexec.

    Raises:
        ModelError: the JSON file cannot be read or is malformed.
    """
    path = facts_path(engine)
    try:
        content = json.loads(path.read_bytes())
        if content.pop("format") != _FORMAT:
            raise ValueError(f"not of format {_FORMAT}, another version of scrfd_ros wrote it")
        shapes = {name: tuple(shape) for name, shape in content.pop("shapes").items()}
        platform = Platform(**content.pop("platform"))
        facts = EngineFacts(**content, platform=platform, shapes=ShapeRange(**shapes))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"{path}: cannot read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: not the facts of an engine: {error!r}; {_REMOVE}") from error
    if not _has_right_types(facts):
        raise ModelError(f"{path}: a value in it is of the wrong type; {_REMOVE}")
    return facts


def _has_right_types(facts: EngineFacts) -> bool:
    texts = [facts.engine_sha256, facts.model, facts.model_sha256, facts.precision, facts.built]
    sizes = [size for shape in dataclasses.astuple(facts.shapes) for size in shape]
    return (
        all(isinstance(text, str) for text in (*texts, *dataclasses.astuple(facts.platform)))
        and all(len(shape) == _DIMENSIONS for shape in dataclasses.astuple(facts.shapes))
        and all(type(size) is int and size > 0 for size in sizes)
        and isinstance(facts.normalizes_input, bool)
        and isinstance(facts.options, dict)
        and isinstance(facts.agreement, dict)
        and all(type(figure) in (int, float) for figure in facts.agreement.values())
    )


def check_facts(engine: Path, plan: bytes, facts: EngineFacts, here: Platform) -> None:
    """Hold an engine against its facts and this machine.

    Args:
        engine: its path.
        plan: content of the engine file.
        facts: its facts.
        here: this machine.

    Raises:
        ModelError: the file is not the one described, or was built for something else; names
            both sides, and the command that rebuilds it.
    """
    rebuild = f"build it anew: {rebuild_command(engine, facts)}"
    found = hashlib.sha256(plan).hexdigest()
    if found != facts.engine_sha256:
        raise ModelError(
            f"{engine}: damaged or replaced: {len(plan)} bytes with SHA-256 {found}, expected "
            f"{facts.engine_sha256}; {rebuild}. If you replaced it yourself, remove "
            f"{facts_path(engine).name}"
        )
    if differences(facts.platform, here):
        raise ModelError(
            f"{engine}: built for another machine: for {facts.platform}; here is {here}; {rebuild}"
        )


def differences(built: Platform, here: Platform) -> list[str]:
    """Names of what differs between two platforms such that an engine cannot be carried over."""
    fields = ("gpu", "compute_capability", "tensorrt", "system")
    names = [name for name in fields if getattr(built, name) != getattr(here, name)]
    # An update of the driver does no harm; another major version comes with other libraries.
    if built.cuda.split(".")[0] != here.cuda.split(".")[0]:
        names.append("cuda")
    return names


def rebuild_command(engine: Path, facts: EngineFacts) -> str:
    """The command line that builds an engine anew."""
    *_, height, width = facts.shapes.opt
    options = {"precision": None, **facts.options}
    if options["precision"] is None and facts.precision in PRECISIONS:
        options["precision"] = facts.precision
    words = ["scrfd", "convert", facts.model, str(engine)]
    words += ["--input-size", f"{width}x{height}", "--batch", facts.shapes.batch]
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}", str(value)]
    return shlex.join(words)
