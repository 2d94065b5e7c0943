# SPDX-License-Identifier: Apache-2.0
"""Write files, with errors that name them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from scrfd_ros.errors import ScrfdError


def keep_others_from_writing() -> None:
    """Let nothing that this process makes be writable by everybody, whatever its umask was."""
    os.umask(os.umask(0o002) | 0o002)


def ensure_writable(path: Path) -> None:
    """Make the folder of a file that results will go to: mistakes are known before the work.

    Raises:
        ScrfdError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ScrfdError(f"{path}: cannot write: {error.strerror}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file, making folders as needed.

    Raises:
        ScrfdError: the file cannot be written.
    """
    write_content(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is there as a whole or not at all, making folders as needed.

    Until it is, it is `.<name>.part`; what a writer that was killed left of that is overwritten.

    Raises:
        ScrfdError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(part) as stream:
            try:
                stream.truncate(0)
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())  # a robot may lose power at any time
                os.replace(part, path)
            except OSError:
                part.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise ScrfdError(f"{path}: cannot write: {error.strerror}") from error


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing, with no other process or thread having it open here."""
    while True:
        with part.open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            # Who held the lock may have renamed or removed the file: then lock its successor.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(stream.fileno()), part.stat()):
                    yield stream
                    return


def write_content(path: Path, content: bytes) -> None:
    """Write a file in place, making folders as needed: `write_bytes` also survives a crash.

    Raises:
        ScrfdError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise ScrfdError(f"{path}: cannot write: {error.strerror}") from error
