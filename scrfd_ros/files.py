# SPDX-License-Identifier: Apache-2.0
"""Write files, with errors that name them, and lock them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from scrfd_ros.errors import ScrfdError


def keep_others_from_writing() -> None:
    """Remove write permission for everybody from new files of this process, whatever its umask."""
    os.umask(os.umask(0o002) | 0o002)


def refuse_existing(path: Path) -> None:
    """Refuse the path of a new file or folder if something is there.

    Raises:
        ScrfdError: it exists.
    """
    if path.exists():
        raise ScrfdError(f"{path}: exists already; give another path, or remove it")


def ensure_writable(path: Path) -> None:
    """Make the folder of a result file and check it, so that mistakes are known before the work.

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
    """Write a file completely or not at all, making folders as needed.

    It is written as `.<name>.part` and then renamed. The part of a writer that was killed is
    overwritten.

    Raises:
        ScrfdError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked_file(part) as stream:
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


def write_content(path: Path, content: bytes) -> None:
    """Write a file in place, making folders as needed; `write_bytes` also survives a crash.

    Raises:
        ScrfdError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise ScrfdError(f"{path}: cannot write: {error.strerror}") from error


@contextlib.contextmanager
def locked_file(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[BinaryIO]:
    """Open a file to read and append, while no other process or thread has it open in this way.

    Args:
        on_wait: called before a wait for another process or thread.

    Raises:
        OSError: it cannot be opened.
    """
    while True:
        with path.open("a+b") as stream:
            _lock(stream, on_wait)
            if is_open_at(stream, path):
                yield stream
                return
            # The last holder of the lock has renamed or removed the file: lock its successor.


@contextlib.contextmanager
def locked_folder(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Lock a folder against other processes and threads that do the same; see `locked_file`.

    Raises:
        ScrfdError: the folder cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise ScrfdError(f"{path}: cannot open the folder: {error.strerror}") from error
    try:
        _lock(descriptor, on_wait)
        yield
    finally:
        os.close(descriptor)


def is_open_at(stream: BinaryIO, path: Path) -> bool:
    """Whether an open file still is the one at this path."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: BinaryIO | int, on_wait: Callable[[], None]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(file, fcntl.LOCK_EX)
