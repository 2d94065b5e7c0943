"""Databases of SQLite in which rosbag2 keeps messages, whole or damaged."""

from __future__ import annotations

import sqlite3
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from shlex import quote
from typing import Any, Final

from scrfd_ros.bag_file import Record, Topic, UnreadableError

MAGIC: Final = b"SQLite format 3\0"

_STEP: Final = 1_000_000  # instructions of SQLite between two looks at how many there were
_SMALLEST_ROW: Final = 16  # bytes of a message in the file, no matter how small
_LONGEST_GAP: Final = 1_000_000
"""Messages in a row that cannot be read, after which none is expected any more. The page of a
damaged index of SQLite stands for some tens of thousands."""

_ALL = "SELECT id, topic_id, timestamp FROM messages"
_DATA = "SELECT data FROM messages WHERE id = ?"


class SqliteFile:
    """A .db3 file of rosbag2; a `BagFile`."""

    def __init__(self, path: Path) -> None:
        """Find the topics and count the messages of each.

        Raises:
            OSError: the file cannot be opened.
            UnreadableError: it is no database with messages, or nothing in it can be read.
        """
        self.path = path
        self.damage: list[str] = []
        self.claims: dict[str, int] = {}
        self.start = 2**63
        self._topics: dict[int, Topic] = {}
        self._rows: tuple[array[int], array[int], array[int]] | None = None
        with path.open("rb"):  # an error of the system says more than one of SQLite
            self._size = path.stat().st_size
        journals = (path.with_name(f"{path.name}{end}") for end in ("-wal", "-journal"))
        self._journal = next((file for file in journals if _has_content(file)), None)
        try:
            with self._opened() as database:
                self._read_topics(database)
                counts = self._count(database)
        except sqlite3.Error as error:
            raise UnreadableError(str(error)) from error
        self.counts = {topic: counts[number] for number, topic in self._topics.items()}

    def records(self, topics: Collection[Topic]) -> Iterator[Record]:
        numbers = [number for number, topic in self._topics.items() if topic in topics]
        last = (-(2**63), 0)  # time and id of the message before
        with self._opened() as database:
            if self._rows is None:
                try:
                    rows = database.execute(
                        f"SELECT id, topic_id, timestamp, data FROM messages WHERE topic_id IN "
                        f"({','.join(map(str, numbers))}) ORDER BY timestamp, id"
                    )
                    for row, number, time, data in rows:
                        if not isinstance(time, int):
                            time = last[0]  # of a damaged row
                        last = (time, row)
                        yield self._record(number, time, data)
                    return
                except sqlite3.Error as error:
                    self._search(database, error)
            assert self._rows is not None
            for time, row, number in sorted(zip(*self._rows, strict=True)):
                if number in numbers and (time, row) > last:
                    try:
                        found = database.execute(_DATA, (row,)).fetchone()
                    except sqlite3.Error:
                        found = None
                    yield self._record(number, time, found[0] if found else b"")

    def _record(self, number: int, time: int, data: Any) -> Record:
        topic = self._topics[number]
        return Record(topic.name, topic.kind, time, data if isinstance(data, bytes) else b"")

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        index = self.path.with_name(f"{self.path.name}-shm")
        there = index.exists()
        try:
            with closing(self._connect()) as database:
                yield database
        finally:
            if not there:  # SQLite leaves it where a log was read
                index.unlink(missing_ok=True)

    def _connect(self) -> sqlite3.Connection:
        address = f"{self.path.absolute().as_uri()}?mode=ro"
        if self._journal is not None:
            try:
                return self._prepared(sqlite3.connect(address, uri=True))
            except sqlite3.Error as error:
                self._damaged(
                    f"what is in {self._journal.name} cannot be used ({error}); where the file may "
                    f"be written, this takes it in: sqlite3 {quote(str(self.path))} "
                    f"'SELECT 1 FROM topics'"
                )
                self._journal = None
        # Nothing is written beside it, and it is read where nothing can be.
        return self._prepared(sqlite3.connect(f"{address}&immutable=1", uri=True))

    def _prepared(self, database: sqlite3.Connection) -> sqlite3.Connection:
        try:
            # Without the first, a file that is shorter than it says is not opened at all.
            for pragma in ("writable_schema = ON", "trusted_schema = OFF", "cell_size_check = ON"):
                database.execute(f"PRAGMA {pragma}")
            database.text_factory = lambda text: text.decode(errors="replace")
            steps = iter(range(10 + 20 * self._size // _STEP))  # damaged trees can be endless
            database.set_progress_handler(lambda: next(steps, None) is None, _STEP)
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            database.close()
            raise
        return database

    def _read_topics(self, database: sqlite3.Connection) -> None:
        tables = {
            name
            for name, text in database.execute("SELECT name, sql FROM sqlite_master")
            if str(text).upper().startswith("CREATE TABLE")
        }
        if missing := sorted({"messages", "topics"} - tables):
            raise UnreadableError(f"a database without the table {' and '.join(missing)}")
        columns = {row[1] for row in database.execute("PRAGMA table_info(topics)")}
        hashes = "type_description_hash" if "type_description_hash" in columns else "''"
        try:
            for number, *fields in database.execute(
                f"SELECT id, name, type, serialization_format, {hashes} FROM topics ORDER BY id"
            ):
                if isinstance(number, int):
                    self._topics[number] = Topic(*(str(field or "") for field in fields))
                else:
                    self._damaged("not all topics can be read")
        except sqlite3.Error as error:
            if not self._topics:
                raise
            self._damaged(f"not all topics can be read ({error})")

    def _count(self, database: sqlite3.Connection) -> Counter[int]:
        """The number of messages by topic."""
        counts: Counter[int] = Counter()
        try:
            for number, count, start in database.execute(
                "SELECT topic_id, count(*), min(timestamp) FROM messages GROUP BY topic_id"
            ):
                counts[number] = count
                if isinstance(start, int):
                    self.start = min(self.start, start)
        except sqlite3.Error as error:
            counts.clear()
            times, _, numbers = self._search(database, error)
            counts.update(numbers)
            self.start = min(times, default=self.start)
        if nameless := sum(counts[number] for number in counts.keys() - self._topics.keys()):
            self._damaged(f"{nameless} messages are of topics that it does not name")
        return counts

    def _search(
        self, database: sqlite3.Connection, error: sqlite3.Error
    ) -> tuple[array[int], array[int], array[int]]:
        """Look for the messages of a damaged database one by one: times, ids and topics."""
        self._rows = times, rows, numbers = array("q"), array("q"), array("q")
        lost = 0

        def add(row: object, number: object, time: object) -> bool:
            if not (isinstance(row, int) and isinstance(number, int) and isinstance(time, int)):
                return False
            for column, value in zip((times, rows, numbers), (time, row, number), strict=True):
                column.append(value)
            return True

        last, most = 0, self._size // _SMALLEST_ROW
        while len(rows) <= most:
            try:
                for found in database.execute(f"{_ALL} WHERE id > ? ORDER BY id", (last,)):
                    lost += not add(*found)
                    last = found[0]
                    if len(rows) > most:
                        break
                break
            except sqlite3.Error:
                failed = 0
                for row in range(last + 1, last + 2 + min(most, _LONGEST_GAP)):
                    try:
                        found = database.execute(f"{_ALL} WHERE id = ?", (row,)).fetchone()
                    except sqlite3.Error:
                        failed += 1
                        continue
                    if found:
                        lost += failed + (not add(*found))
                        last = row
                        break
                else:
                    break
        at_least = f"; {lost} messages at least cannot be read" if lost else ""
        self._damaged(f"{error}{at_least}")
        return self._rows

    def _damaged(self, phrase: str) -> None:
        if phrase not in self.damage:
            self.damage.append(phrase)


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
