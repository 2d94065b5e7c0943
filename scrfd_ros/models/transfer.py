# SPDX-License-Identifier: Apache-2.0
"""Downloads from HTTPS addresses, continued after interruptions, with limits on waiting.

The size that a server sends is compared with the announced one; download.py verifies the content.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from tqdm import tqdm

_CHUNK = 1 << 18
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

MAX_BYTES = 1 << 30
"""Of a download, and of a file in an archive: three times the largest in the catalogue.

Larger ones are refused before they fill the disk.
"""


@dataclass
class DownloadSession:
    """Limits of one run, and the hosts that did not answer in it, which are not tried again.

    Attributes:
        connect_seconds: maximum wait for a host, including the name look-up.
        stall_seconds: maximum silence of a connected host.
        attempts: maximum number of attempts for each address, if another one can succeed.
        pause_seconds: wait before the second attempt; doubles with each further one.
        unreachable: by host, why it did not answer.
    """

    connect_seconds: float = 5.0
    stall_seconds: float = 20.0
    attempts: int = 3
    pause_seconds: float = 1.0
    unreachable: dict[str, str] = field(default_factory=dict)


class SourceError(Exception):
    """A source does not provide the file."""


class _RetryableError(SourceError):
    """A source does not provide the file now, but may do so soon."""


def download(url: str, out: BinaryIO, size: int | None, session: DownloadSession) -> None:
    """Append the missing rest of the content at `url` to `out`, in several attempts if needed."""
    _refuse_plain_text(url)
    _check_host(url, session)
    for attempt in range(1, session.attempts + 1):
        try:
            return _receive(url, out, size, session)
        except _RetryableError:
            if attempt == session.attempts:
                raise
            time.sleep(session.pause_seconds * 2 ** (attempt - 1))


def _check_host(url: str, session: DownloadSession) -> None:
    """Check within `connect_seconds` that a host, or the proxy in front of it, can be reached.

    The time-out of urllib limits neither the name look-up nor the attempts at several addresses of
    one host; without a network they can take minutes.
    """
    target = urlsplit(url)
    host = target.netloc
    proxy = urllib.request.getproxies().get("https")
    if proxy and not urllib.request.proxy_bypass(host):
        target = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        host = f"the proxy {target.hostname}"
    for known in (urlsplit(url).netloc, host):
        if known in session.unreachable:
            raise SourceError(f"{known} was found unreachable: {session.unreachable[known]}")
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
        raise SourceError(f"{host} cannot be reached: {trouble[0]}")


def _refuse_plain_text(url: str) -> None:
    if not url.startswith("https://"):
        raise SourceError(f"leads to {url}, which is not HTTPS")


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
        _refuse_plain_text(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _receive(url: str, out: BinaryIO, size: int | None, session: DownloadSession) -> None:
    """One attempt to append the missing rest; `size` is of the whole content, if known."""
    start = size_of(out)
    request = urllib.request.Request(url, headers={"User-Agent": "scrfd_ros"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        opener = urllib.request.build_opener(_HttpsOnly)
        response: http.client.HTTPResponse = opener.open(request, timeout=session.stall_seconds)
    except HTTPError as error:
        error.close()
        if error.code == 416:
            out.truncate(0)  # the content is shorter than what was downloaded before
        again = error.code in (416, 429, 500, 502, 503, 504)
        raise (_RetryableError if again else SourceError)(f"{error}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, TimeoutError):
            session.unreachable[urlsplit(url).netloc] = _words(reason, session)
        again = isinstance(reason, (ConnectionError, http.client.HTTPException))
        raise (_RetryableError if again else SourceError)(_words(reason, session)) from error
    with response:
        received = start if response.status == 206 else 0
        total = size if response.length is None else received + response.length
        if size is not None and total != size:
            raise SourceError(f"has {total:,} bytes, expected {size:,}")
        if total is not None and total > MAX_BYTES:
            raise SourceError(f"has {total:,} bytes, expected at most {MAX_BYTES:,}")
        out.truncate(received)
        name = urlsplit(url).path.rpartition("/")[2]
        with progress_bar(desc=name, total=total, initial=received) as bar:
            while total is None or received < total:
                try:
                    chunk = response.read1(_CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    raise _RetryableError(_words(error, session)) from error
                if not chunk:
                    break
                received += len(chunk)
                if received > MAX_BYTES:
                    raise SourceError(f"does not end, expected at most {MAX_BYTES:,} bytes")
                out.write(chunk)
                bar.update(len(chunk))
        if total is not None and received < total:
            raise _RetryableError(f"connection closed after {received:,} of {total:,} bytes")


def _words(reason: object, session: DownloadSession) -> str:
    if isinstance(reason, TimeoutError):
        return f"no data for {session.stall_seconds:g} s"
    return str(reason) or type(reason).__name__


def unpack_zip(
    archive: Path | BinaryIO, member: str, out: BinaryIO, max_bytes: int = MAX_BYTES
) -> None:
    """`unpack` for a zip archive."""
    with _readable():
        files = zipfile.ZipFile(archive)
    # Other methods allocate as much memory as the archive claims to need.
    if any(entry.compress_type not in _COMPRESSIONS for entry in files.infolist()):
        raise SourceError("not a usable archive: expected compression by deflate, or none")
    with files:
        unpack(files.namelist(), files.open, member, out, max_bytes)


def unpack(
    names: list[str],
    open_file: Callable[[str], IO[bytes] | None],
    member: str,
    out: BinaryIO,
    max_bytes: int = MAX_BYTES,
) -> None:
    """Write the file with this name in an archive, in whichever of its folders, to `out`.

    Nothing else is unpacked, and no path in the archive is used.

    Raises:
        SourceError: the archive is damaged, does not have exactly one such file, or one of more
            than `max_bytes`.
    """
    found = [name for name in names if f"/{name}".endswith(f"/{member}")]
    content = None
    if len(found) == 1:
        with _readable():
            content = open_file(found[0])
    if content is None:
        raise SourceError(f"the archive has {len(found)} files named {member}, expected one")
    out.truncate(0)
    size = 0
    with content:
        while True:
            with _readable():
                chunk = content.read(_CHUNK)
            if not chunk:
                return
            size += len(chunk)
            if size > max_bytes:
                raise SourceError(f"{member} in the archive has more than {max_bytes:,} bytes")
            out.write(chunk)


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a damaged archive raises exceptions of nearly any class
        raise SourceError(f"not a usable archive: {error}") from error


def size_of(stream: BinaryIO) -> int:
    return stream.seek(0, os.SEEK_END)


def progress_bar(**options: Any) -> tqdm[NoReturn]:
    """A progress bar on stderr; none if that is not a terminal."""
    return tqdm(unit="B", unit_scale=True, leave=False, disable=None, **options)
