# SPDX-License-Identifier: Apache-2.0
"""A gallery that several robots share: PostgreSQL with pgvector."""

from __future__ import annotations

import logging
import os
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.adapt import Dumper
from psycopg.pq import Format

from scrfd_ros.errors import GalleryAwayError, GalleryError, NoGalleryError
from scrfd_ros.gallery.people import GalleryInfo, Template
from scrfd_ros.gallery.postgres_errors import failure, place, settings
from scrfd_ros.gallery.sql import FORMAT, TABLES, Run, SqlStore, gone, name_taken
from scrfd_ros.gallery.store import Changes

# It warns of what is raised as well.
logging.getLogger("psycopg").setLevel(logging.ERROR)

SCHEMA = "scrfd_gallery"
"""The schema of the tables, and the channel on which changes are told."""

OLDEST = 120000  # version of the server
_CONNECT = 5  # seconds for each address of the server
_ANSWER = 10.0  # seconds without an answer after which a connection is given up
_POLL = 0.5  # seconds; also finds changes where a pooler swallows notifications
_RETRY = (0.2, 5.0)  # seconds between attempts to connect: at first, and at most
_MAKING = 7360512  # the advisory lock for making the tables
_ROWS = 1000

# What a robot that has lost its power or its network leaves open must not block the others.
_WRITE = (
    f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '{_ANSWER - 2:g}s';"
    f" SET LOCAL idle_in_transaction_session_timeout = '{_ANSWER / 2:g}s';"
)
_LISTEN = f"LISTEN {SCHEMA}"
_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"

# What is sampled for statistics would outlive the people whom it is about.
_PRIVATE = {"people": ("name", "consent"), "templates": ("source", "embedding", "image")}
# What somebody changes by hand gets a revision too, so that every robot notices. If this
# transaction has changed the revision, it is not by hand.
_TRIGGERS = [
    f"CREATE FUNCTION changed_by_hand() RETURNS trigger LANGUAGE plpgsql SET search_path = {SCHEMA}"
    " AS $$BEGIN UPDATE gallery SET revision = revision + 1"
    " WHERE xmin::text <> (txid_current() % 4294967296)::text;"
    f" NOTIFY {SCHEMA}; RETURN NULL; END$$",
    *(
        f"CREATE TRIGGER by_hand AFTER UPDATE OR DELETE OR TRUNCATE ON {table}"
        " EXECUTE FUNCTION changed_by_hand()"
        for table in ("people", "templates")
    ),
]
_WITHOUT_STATISTICS = [
    f"ALTER TABLE {table} ALTER {column} SET STATISTICS 0"
    for table, columns in _PRIVATE.items()
    for column in columns
]


class PostgresStore(SqlStore):
    """A `scrfd_ros.gallery.store.Store` in a PostgreSQL database.

    Its tables are in a schema of their own: a database has one gallery. Nothing in it relies on
    the session, so that poolers such as PgBouncer may be in between.

    Args:
        url: postgresql://USER@HOST:PORT/DATABASE, as libpq takes it.
        info: what a new gallery is for; None: the gallery has to exist.
        waits: the server need not be there yet.

    Raises:
        NoGalleryError: there is no gallery in the database.
        GalleryAwayError: the server cannot be reached.
        GalleryError: it refuses, or lacks pgvector.
    """

    def __init__(self, url: str, info: GalleryInfo | None, *, waits: bool = False) -> None:
        self._settings = settings(url)
        self._place = place(self._settings)
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._state = ""
        self._connection: psycopg.Connection[Any] | None = None
        self._listener: psycopg.Connection[Any] | None = None
        self._pause = _RETRY[0]
        self._next_try = 0.0
        self._is_prepared = False
        self._wanted = info
        try:
            with self._failures():
                self._connection = self._prepared()
        except GalleryAwayError:
            if info is None or not waits:
                raise
            self.info = info

    @property
    def state(self) -> str:
        return self._state

    @property
    def is_away(self) -> bool:
        return bool(self._state)

    def read(self, since: int, take: Callable[[Sequence[Template]], None]) -> Changes:
        try:
            return super().read(since, take)
        except NoGalleryError:
            if not since:
                raise
            # What the server has no longer, no robot has.
            return Changes(0, True, [], [], [], [])

    def wait(self, since: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not self._closed.is_set():
            try:
                with self._failures():
                    if self._is_news(since):
                        return True
            except NoGalleryError as error:
                self._state = str(error)
                if since:
                    return True
            except GalleryError as error:
                self._state = self._state or str(error)
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if self._listener is None:
                self._closed.wait(min(left, _POLL))
            else:
                told = select.poll()
                told.register(self._listener, select.POLLIN)
                told.poll(1000 * min(left, _POLL))
        return False

    def close(self) -> None:
        self._closed.set()
        for connection in (self._connection, self._listener):
            if connection is not None:
                connection.close()

    def _is_news(self, since: int) -> bool:
        """Whether there may be another revision than this one."""
        if self._listener is None:
            if time.monotonic() < self._next_try:
                return False
            self._pause = min(2 * self._pause, _RETRY[1])
            self._next_try = time.monotonic() + self._pause * random.uniform(0.5, 1.0)
            listener = self._connected()
            listener.add_notify_handler(lambda _: None)  # without one, psycopg keeps them all
            with _Limit(listener):
                listener.execute(_LISTEN)
            self._listener, self._pause = listener, _RETRY[0]
            return True  # whatever may have happened meanwhile
        try:
            with _Limit(self._listener):
                rows = list(self._listener.execute(f"SELECT revision FROM {SCHEMA}.gallery"))
        except BaseException:
            self._listener.close()
            self._listener = None
            raise
        if not rows:
            raise NoGalleryError(f"{self._place}: the gallery was emptied by other means")
        self._state = ""
        return bool(rows[0][0] != since)

    @contextmanager
    def _reading(self) -> Iterator[Run]:
        with self._transaction(_READ) as (connection, limit):

            def run(statement: str, *parameters: Any) -> Iterator[tuple[Any, ...]]:
                with connection.cursor() as cursor:
                    rows = cursor.stream(statement.replace("?", "%s"), parameters, binary=True)
                    for count, row in enumerate(rows):
                        if count % _ROWS == 0:
                            limit.extend()
                        yield row

            yield run
            connection.execute("COMMIT")

    @contextmanager
    def _writing(self) -> Iterator[Run]:
        with self._transaction(_WRITE) as (connection, limit):

            def run(statement: str, *parameters: Any) -> Iterator[tuple[Any, ...]]:
                limit.extend()
                return iter(
                    connection.execute(statement.replace("?", "%s"), parameters, binary=True)
                )

            with connection.pipeline():  # a statement need not wait for the one before
                yield run
            try:
                connection.execute(f"NOTIFY {SCHEMA}; COMMIT")
            except psycopg.OperationalError:
                if not connection.broken:
                    raise
                raise GalleryAwayError(
                    f"{self._place}: the connection broke before the server had confirmed the "
                    f"change; look whether it was made when the server is there again"
                ) from None

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[tuple[psycopg.Connection[Any], _Limit]]:
        with self._lock, self._failures():
            if self._closed.is_set():
                raise GalleryError("the gallery is closed")
            connection = self._begun(begin)
            try:
                with _Limit(connection) as limit:
                    yield connection, limit
            except BaseException:
                connection.close()  # takes everything back, whatever state it is in
                raise
            self._state = ""

    def _begun(self, begin: str) -> psycopg.Connection[Any]:
        """The connection, in a transaction; a new one if the server has closed it meanwhile."""
        begin += f" SET LOCAL search_path = {SCHEMA}"
        if self._connection is not None:
            try:
                with _Limit(self._connection):
                    self._connection.execute(begin)
                return self._connection
            except psycopg.OperationalError:
                self._connection.close()
        self._connection = None
        connection = self._connected() if self._is_prepared else self._prepared()
        with _Limit(connection):
            connection.execute(begin)
        self._connection = connection
        return connection

    def _prepared(self) -> psycopg.Connection[Any]:
        """A connection, after the tables were made or checked."""
        wanted = self._wanted
        connection = self._connected()
        try:
            with _Limit(connection):
                if not _has_gallery(connection):
                    if wanted is None:
                        raise NoGalleryError(f"{self._place}: there is no gallery in the database")
                    self._make(connection, wanted)
                ((version, *values),) = connection.execute(
                    "SELECT format, recognizer, recognizer_sha256, dimensions"
                    f" FROM {SCHEMA}.gallery"
                )
            if version > FORMAT:
                raise GalleryError(
                    f"{self._place}: the gallery was made by a later version of scrfd_ros (format "
                    f"{version}; this one knows {FORMAT}); install that version"
                )
            info = GalleryInfo(*values)
            if wanted is not None:
                info.ensure_recognizer(wanted)
            self.info = info
        except BaseException:
            connection.close()
            raise
        self._is_prepared = True
        return connection

    def _wipe(self) -> None:
        with self._lock, self._failures():
            connection = self._connected()
            skipped: list[str] = []
            connection.add_notice_handler(lambda notice: skipped.append(notice.severity or ""))
            try:
                for table in _PRIVATE:
                    connection.execute(f"VACUUM FULL {SCHEMA}.{table}")
            finally:
                connection.close()
        if skipped:
            raise GalleryError(
                f"{self._place}: removed, but the bytes are still in the server's files: let the "
                f"owner of the tables run: VACUUM FULL {SCHEMA}.people; "
                f"VACUUM FULL {SCHEMA}.templates"
            )

    def _packed(self, embedding: NDArray[np.float32]) -> _Vector:
        head = len(embedding).to_bytes(2, "big") + b"\0\0"
        return _Vector(head + embedding.astype(">f4").tobytes())

    def _unpacked(self, value: bytes) -> NDArray[np.float32]:
        return np.frombuffer(value, ">f4", offset=4).astype(np.float32)

    def _connected(self) -> psycopg.Connection[Any]:
        connection: psycopg.Connection[Any] = psycopg.connect(
            **{
                "connect_timeout": _CONNECT,
                "keepalives_idle": int(_ANSWER),
                "tcp_user_timeout": int(1000 * _ANSWER),
                "application_name": "scrfd_ros",
                **self._settings,
                "client_encoding": "UTF8",
            },
            autocommit=True,
            prepare_threshold=None,
        )
        connection.adapters.register_dumper(_Vector, _VectorDumper)
        if connection.info.server_version < OLDEST:
            connection.close()
            raise GalleryError(
                f"{self._place}: the server is older than PostgreSQL {OLDEST // 10000}"
            )
        return connection

    def _make(self, connection: psycopg.Connection[Any], info: GalleryInfo) -> None:
        """Make the tables, unless another robot has made them meanwhile."""
        with connection.transaction():
            connection.execute(f"SELECT pg_advisory_xact_lock({_MAKING})")
            if _has_gallery(connection):
                return
            if connection.info.parameter_status("server_encoding") != "UTF8":
                raise GalleryError(
                    f"{self._place}: the database cannot keep every name: make it anew, with the "
                    f"encoding UTF8"
                )
            if not list(connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'")):
                connection.execute("CREATE EXTENSION vector")
            ((schema,),) = connection.execute(
                "SELECT quote_ident(nspname) FROM pg_extension e"
                " JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'vector'"
            )
            if not list(connection.execute(f"SELECT 1 FROM pg_namespace WHERE nspname='{SCHEMA}'")):
                connection.execute(f"CREATE SCHEMA {SCHEMA}")
            connection.execute(f"SET LOCAL search_path = {SCHEMA}")
            types = {"embedding": f"{schema}.vector({info.dimensions})", "bytes": "BYTEA"}
            for statement in (
                *(each.format(**types) for each in TABLES),
                *_TRIGGERS,
                *_WITHOUT_STATISTICS,
            ):
                connection.execute(statement)
            connection.execute("INSERT INTO gallery VALUES (%s, %s, %s, %s, 0)", (FORMAT, *info))

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turns errors of psycopg into ours, and notes whether the server is away."""
        try:
            yield
        except psycopg.errors.ForeignKeyViolation:
            raise gone() from None
        except psycopg.errors.UniqueViolation as error:
            if error.diag.constraint_name == "people_name_key":
                raise name_taken() from None
            raise GalleryError("it is in the gallery already") from None
        except psycopg.Error as error:
            known = failure(error, self._settings)
            if isinstance(known, GalleryAwayError) and not self._state:
                who = (
                    "people are recognized from memory" if self._is_prepared else "nobody is known"
                )
                now = time.strftime("%H:%M:%S")
                self._state = f"{known}; since {now} {who}, and changes are refused"
            raise known from None


class _Limit:
    """Cuts a connection whose server has not answered for long: nothing else would end a wait."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._start()

    def __enter__(self) -> _Limit:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._timer.cancel()

    def extend(self) -> None:
        """Give it the full time again."""
        with self._lock:
            self._timer.cancel()
        self._start()

    def _start(self) -> None:
        self._timer = threading.Timer(_ANSWER, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def _cut(self) -> None:
        with self._lock:
            if not self._connection.closed and not self._timer.finished.is_set():
                with socket.socket(fileno=os.dup(self._connection.fileno())) as end:
                    end.shutdown(socket.SHUT_RDWR)


class _Vector(bytes):
    """A vector as pgvector sends it: the number of values and 0 as int16, then float32."""


class _VectorDumper(Dumper):
    """Sends it without a type: the number of pgvector's type differs between databases."""

    format = Format.BINARY

    def dump(self, obj: _Vector) -> bytes:
        return obj


def _has_gallery(connection: psycopg.Connection[Any]) -> bool:
    return bool(
        list(
            connection.execute(
                f"SELECT 1 FROM pg_tables WHERE schemaname = '{SCHEMA}' AND tablename = 'gallery'"
            )
        )
    )
