# SPDX-License-Identifier: Apache-2.0
"""A gallery in a file: SQLite."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.errors import GalleryError, NoGalleryError
from scrfd_ros.gallery.people import GalleryInfo
from scrfd_ros.gallery.sql import FORMAT, TABLES, Run, SqlStore, damaged, gone, name_taken
from scrfd_ros.gallery.wiping import leaves_no_copies

APPLICATION_ID = 0x53435246
"""In the file's header: "SCRF". Tells galleries from the databases of other programs."""

_TIMEOUT = 10.0  # seconds that other writers and readers may take
_POLL = 0.1  # seconds
_PRAGMAS = (
    "synchronous = FULL",  # what was acknowledged survives a power cut
    "secure_delete = ON",  # what was removed is overwritten
    "foreign_keys = ON",
    "temp_store = MEMORY",  # nothing of people in temporary files
    "trusted_schema = OFF",
)
_TABLES = [table.format(embedding="BLOB", bytes="BLOB") for table in TABLES]

_NETWORK_FILE_SYSTEMS = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs", "vboxsf"),
    *("fuse.sshfs", "fuse.glusterfs"),
}

_ADVICE = {
    "locked": "another process has kept it busy for {timeout:.0f} s; try again",
    "full": "the disk is full; nothing was changed",
    "readonly": "it cannot be written; it and its folder have to be writable for this user",
    "unable to open": "it cannot be opened; it and its folder have to be readable and writable "
    "for this user, since SQLite keeps two files beside it",
    "not a database": "it is not a gallery; give another path",
    "malformed": str(damaged()),
    "decode": str(damaged()),
    "I/O error": "it could not be read or written; look at the disk, its free space, and whether "
    "somebody removed the file",
}
"""What errors of SQLite say, and what to tell people."""


class SqliteStore(SqlStore):
    """A `scrfd_ros.gallery.store.Store` in a file, which only its owner can read.

    Each call has a connection of its own: what SQLite keeps in memory of rows and parameters is
    freed with it, see `scrfd_ros.gallery.wiping`.

    Args:
        path: of the file, made if it is missing.
        info: what a new gallery is for; None: the gallery has to exist.

    Raises:
        NoGalleryError: the file is missing or empty.
        GalleryError: it is damaged, not a gallery, or cannot be read or written.
    """

    def __init__(self, path: Path, info: GalleryInfo | None) -> None:
        self._path = _made(path, info)
        self._file = _identity(self._path)
        self._wiped = True
        self._rewritten = True
        self._wiping = threading.Lock()
        self._lock = threading.Lock()
        with self._errors():
            # Never in a transaction, so that no other process waits for it. While it is open, the
            # other connections of this process need not make SQLite's two further files.
            self._watch = self._connect()
            try:
                self._prepare(info)
                self._version = self._data_version()
            except BaseException:
                self._watch.close()
                raise

    @property
    def is_away(self) -> bool:
        return False

    @property
    def state(self) -> str:
        if not self._wiped:
            return _not_wiped(self._path)
        if _identity(self._path) != self._file:
            return _replaced(self._path)
        if self._path.stat().st_mode & 0o077:
            return (
                f"{self._path}: other users of this machine may read who is known; "
                f"run: chmod 600 {self._path}"
            )
        return ""

    def wait(self, since: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        if not self._wiped:
            self._overwrite()
        while True:
            with self._lock, self._errors():
                version = self._data_version()
            if version != self._version:
                self._version = version
                with self._reading() as run:
                    ((revision,),) = run("SELECT revision FROM gallery")
                if revision > since:
                    return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL)

    def close(self) -> None:
        with self._lock:
            self._watch.close()

    def _prepare(self, info: GalleryInfo | None) -> None:
        """Make the tables, or check them."""
        if not self._is_gallery():
            if info is None:
                raise NoGalleryError(f"{self._path}: there is no gallery, the file is empty")
            if self._journal_mode() != "wal":
                raise GalleryError(
                    f"{self._path}: its file system cannot keep a gallery; choose a local disk"
                )
            with self._writing() as run:
                if not self._is_gallery():  # another process may just have made it
                    for statement in _TABLES:
                        run(statement)
                    run("INSERT INTO gallery VALUES (?, ?, ?, ?, 0)", FORMAT, *info)
                    run(f"PRAGMA application_id = {APPLICATION_ID}")
                    run(f"PRAGMA user_version = {FORMAT}")
        with self._reading() as run:
            made = {row[0] for row in run("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
            is_sound = made == set(_TABLES) and not list(run("PRAGMA foreign_key_check"))
            rows = list(run("SELECT recognizer, recognizer_sha256, dimensions FROM gallery"))
        if not is_sound or [[type(each) for each in row] for row in rows] != [[str, str, int]]:
            raise GalleryError(f"{self._path}: {damaged()}")
        self.info = GalleryInfo(*rows[0])
        (free,) = self._watch.execute("PRAGMA freelist_count").fetchone()
        if free:  # a process was killed after somebody was forgotten, before the end of `_wipe`
            self._wiped = self._rewritten = False
            with suppress(GalleryError):  # `state` tells
                self._overwrite()
        else:
            with closing(self._connect()) as connection:
                connection.execute("PRAGMA busy_timeout = 0")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _journal_mode(self) -> str:
        """The mode of the journal, after it was set to WAL if the file system can do that."""
        deadline = time.monotonic() + _TIMEOUT
        while True:
            try:
                (mode,) = self._watch.execute("PRAGMA journal_mode = WAL").fetchone()
                return str(mode)
            except sqlite3.OperationalError as error:
                # SQLite does not wait for another one that makes the gallery just now.
                if "locked" not in str(error) or time.monotonic() >= deadline:
                    raise
            time.sleep(_POLL)

    def _is_gallery(self) -> bool:
        """Whether the file has a gallery that this version can use; False: it is empty.

        Raises:
            GalleryError: it has something else.
        """
        with closing(self._connect()) as connection:
            connection.execute("BEGIN")  # one snapshot: another process may just make the gallery
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application == 0 and tables == 0:
            return False
        if application != APPLICATION_ID:
            raise GalleryError(
                f"{self._path}: it is a database of another program, not a gallery; give another "
                f"path"
            )
        if version > FORMAT:
            raise GalleryError(
                f"{self._path}: the gallery was made by a later version of scrfd_ros (format "
                f"{version}; this one knows {FORMAT}); install that version"
            )
        return True

    def _data_version(self) -> int:
        """A number that changes when any other connection has written."""
        (version,) = self._watch.execute("PRAGMA data_version").fetchone()
        return int(version)

    @contextmanager
    def _reading(self) -> Iterator[Run]:
        with self._transaction("BEGIN") as run:
            yield run

    @contextmanager
    def _writing(self) -> Iterator[Run]:
        with self._transaction("BEGIN IMMEDIATE") as run:
            yield run

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Run]:
        with self._errors(), closing(self._connect()) as connection:

            def run(statement: str, *parameters: Any) -> Iterator[tuple[Any, ...]]:
                return connection.execute(statement, parameters)

            run(begin)
            yield run  # if it raises, closing the connection takes everything back
            run("COMMIT")

    def _connect(self) -> sqlite3.Connection:
        if _identity(self._path) != self._file:
            raise GalleryError(_replaced(self._path))
        connection = sqlite3.connect(
            self._path, timeout=_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Errors of SQLite become sentences."""
        try:
            yield
        except sqlite3.IntegrityError as error:
            if "FOREIGN KEY" in str(error):
                raise gone() from error
            if "people.name" in str(error):
                raise name_taken() from error
            raise GalleryError("it is in the gallery already") from error
        except UnicodeDecodeError as error:  # of SQLite's own message about a damaged file
            raise GalleryError(f"{self._path}: {damaged()}") from error
        except sqlite3.Error as error:
            text = next((text for key, text in _ADVICE.items() if key in str(error)), str(error))
            raise GalleryError(f"{self._path}: {text.format(timeout=_TIMEOUT)}") from error

    def _wipe(self) -> None:
        with self._wiping:
            self._wiped = self._rewritten = False
        self._overwrite()

    @leaves_no_copies
    def _overwrite(self) -> None:
        """Write the file anew, and empty the log of writes.

        What was removed is overwritten where it was. But where rows were moved from one page to
        another, SQLite leaves copies of them in the first one, which are not part of any row.

        Raises:
            GalleryError: another process reads, or the disk is full; to be called again then.
        """
        with self._wiping:
            if self._wiped:
                return  # another thread has just done it
            try:
                with self._errors(), closing(self._connect()) as connection:
                    if not self._rewritten:  # once only: the whole file goes through the log
                        connection.execute("VACUUM")
                        self._rewritten = True
                    (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except GalleryError as error:
                raise GalleryError(_not_wiped(self._path)) from error
            if busy:
                raise GalleryError(_not_wiped(self._path))
            self._wiped = True

    def _packed(self, embedding: NDArray[np.float32]) -> bytes:
        return embedding.astype("<f4").tobytes()

    def _unpacked(self, value: bytes) -> NDArray[np.float32]:
        return np.frombuffer(value, "<f4")


def _made(path: Path, info: GalleryInfo | None) -> Path:
    """Make an empty file if there is none; returns its path without symbolic links.

    Raises:
        GalleryError: it is something that cannot keep a gallery.
    """
    if path.name == ":memory:":
        raise GalleryError("a gallery is kept in a file; give the path of one, not :memory:")
    try:
        path = path.resolve()
        if info is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            if info is None:
                raise NoGalleryError(f"{path}: there is no gallery")
            # Never opened when it is there: closing it would end SQLite's locks of this process.
            try:
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
                os.fchmod(descriptor, 0o600)  # whatever the umask
                os.close(descriptor)
            except FileExistsError:
                pass  # another process has just made it
        mode = path.stat().st_mode
    except (
        OSError,
        RuntimeError,
    ) as error:  # RuntimeError: links that go round, before Python 3.13
        reason = getattr(error, "strerror", None) or error
        raise GalleryError(f"{path}: cannot open the gallery: {reason}") from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise GalleryError(f"{path}: it is {what}; give the path of a file for the gallery")
    mounts = list(_mounts())
    if str(path) in (mount.point for mount in mounts):
        raise GalleryError(
            f"{path}: this file alone is mounted here, as into a container, without the two that "
            f"SQLite keeps beside it, so that changes would be lost; mount its folder"
        )
    device = os.stat(path).st_dev
    found = (mount.file_system for mount in mounts if mount.device == device)
    if (file_system := next(found, "")) in _NETWORK_FILE_SYSTEMS:
        raise GalleryError(
            f"{path}: it is on a network share ({file_system}), where SQLite loses data; choose a "
            f"local disk, or PostgreSQL for a gallery that several machines share"
        )
    return path


class _Mount(NamedTuple):
    point: str
    device: int
    file_system: str


def _mounts() -> Iterator[_Mount]:
    """What is mounted; nothing if that is not known."""
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    for line in lines:  # proc_pid_mountinfo(5)
        mount, _, rest = line.partition(" - ")
        _, _, device, _, point, *_ = mount.split(" ")
        # Blanks, tabs, newlines and backslashes are in octal.
        point = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), point)
        yield _Mount(point, os.makedev(*map(int, device.split(":"))), rest.split()[0])


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _replaced(path: Path) -> str:
    return f"{path}: the gallery was removed or replaced while it was open; open it again"


def _not_wiped(path: Path) -> str:
    return (
        f"{path}: removed from the gallery, but its bytes are still in this file or in "
        f"{path.name}-wal, since another process reads, or the disk is full; they are overwritten "
        f"when that ends, or when the gallery is next opened"
    )
