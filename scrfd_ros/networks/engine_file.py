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


@dataclass(frozen=True)
class EngineFacts:
    """What the JSON file beside an engine says.

    Attributes:
        engine_sha256: checksum of the engine file.
        model: file name of the ONNX model it was built from.
        model_sha256: checksum of that file.
        normalizes_input: see `Network`.
        platform: what it was built for.
        precision: one of `build.PRECISIONS`; "unknown" where another program built it.
        shapes: of the input.
        options: what else was asked of the build.
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
        shapes = {name: tuple(map(int, shape)) for name, shape in content.pop("shapes").items()}
        platform = Platform(**content.pop("platform"))
        facts = EngineFacts(**content, platform=platform, shapes=ShapeRange(**shapes))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"{path}: cannot read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path}: not the facts of an engine ({error}); build the engine anew"
        ) from error
    return facts


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
            f"{facts.engine_sha256}; {rebuild}"
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
    """The command line that builds an engine anew; the model is expected where it usually is."""
    folder = engine.parent.parent if engine.parent.name == "engines" else engine.parent
    *_, height, width = facts.shapes.opt
    words = ["scrfd", "convert", str(folder / facts.model), str(engine)]
    words += ["--input-size", f"{width}x{height}", "--batch", facts.shapes.batch]
    if facts.precision in PRECISIONS:
        words += ["--precision", facts.precision]
    return shlex.join(words)
