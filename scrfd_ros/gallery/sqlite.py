# SPDX-License-Identifier: Apache-2.0
"""A gallery in a file: SQLite."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.errors import NoGalleryError
from scrfd_ros.gallery.people import GalleryInfo
from scrfd_ros.gallery.sql import FORMAT, TABLES, Run, SqlStore, name_taken

_TIMEOUT = 10.0  # seconds that another writer may take
_POLL = 0.1  # seconds


class SqliteStore(SqlStore):
    """A `scrfd_ros.gallery.store.Store` in a file, which only its owner can read.

    Args:
        path: of the file, made if it is missing.
        info: what a new gallery is for; None: the gallery has to exist.

    Raises:
        NoGalleryError: the file is missing.
        GalleryError: it is damaged, not a gallery, or cannot be read or written.
    """

    def __init__(self, path: Path, info: GalleryInfo | None) -> None:
        self._path = path
        self._lock = threading.RLock()
        if info is None and not path.exists():
            raise NoGalleryError(f"{path}: there is no gallery")
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._connection = sqlite3.connect(
            path, timeout=_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute("PRAGMA foreign_keys = ON")
        with self._writing() as run:
            if not list(run("SELECT 1 FROM sqlite_master WHERE name = 'gallery'")):
                assert info is not None
                for table in TABLES:
                    run(table.format(embedding="BLOB", bytes="BLOB"))
                run("INSERT INTO gallery VALUES (?, ?, ?, ?, 0)", FORMAT, *info)
            ((_, *values),) = run(
                "SELECT format, recognizer, recognizer_sha256, dimensions FROM gallery"
            )
        self.info = GalleryInfo(*values)

    @property
    def state(self) -> str:
        return ""

    def wait(self, since: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            with self._reading() as run:
                ((revision,),) = run("SELECT revision FROM gallery")
            if revision > since or time.monotonic() >= deadline:
                return bool(revision > since)
            time.sleep(_POLL)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def _reading(self) -> Iterator[Run]:
        with self._lock:
            self._connection.execute("BEGIN")
            try:
                yield self._run
            finally:
                self._connection.execute("ROLLBACK")

    @contextmanager
    def _writing(self) -> Iterator[Run]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._run
                    self._connection.execute("COMMIT")
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.IntegrityError as error:
                raise name_taken() from error

    def _run(self, statement: str, *parameters: Any) -> Iterator[tuple[Any, ...]]:
        return self._connection.execute(statement, parameters)

    def _wipe(self) -> None:
        with self._lock:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _packed(self, embedding: NDArray[np.float32]) -> bytes:
        return embedding.astype("<f4").tobytes()

    def _unpacked(self, value: bytes) -> NDArray[np.float32]:
        return np.frombuffer(value, "<f4")
