# SPDX-License-Identifier: Apache-2.0
"""Read rosbag2's SQLite databases, whole or damaged.

The index of times is not used: a damaged index would hide messages without an error.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from shlex import quote
from typing import Any, ClassVar, Final

import numpy as np

from scrfd_ros.bags.bag_file import Record, Topic, UnreadableError

MAGIC: Final = b"SQLite format 3\0"

_STEP: Final = 1_000_000  # instructions of SQLite between two checks of their number
_SMALLEST_ROW: Final = 16  # minimum bytes of a message in the file
_LONGEST_GAP: Final = 1_000_000
"""Number of unreadable messages in a row after which the search ends. A damaged page of SQLite's
index stands for some tens of thousands."""

_ALL = "SELECT id, topic_id, timestamp FROM messages"
_DATA = "SELECT data FROM messages WHERE id = ?"


class SqliteFile:
    """A .db3 file of rosbag2; a `BagFile`."""

    storage: ClassVar[str] = "sqlite3"

    def __init__(self, path: Path, kinds: Collection[str]) -> None:
        self.path = path
        self.damage: list[str] = []
        self.claims: dict[str, int] = {}
        self.start = 2**63
        self._topics: dict[int, Topic] = {}
        self._kinds = kinds
        # Columns of the messages that can be read later.
        self._times, self._rows, self._numbers = array("q"), array("q"), array("q")
        with path.open("rb"):  # an error of the system says more than one of SQLite
            self._size = path.stat().st_size
        journals = (path.with_name(f"{path.name}{end}") for end in ("-wal", "-journal"))
        self._journal = next((file for file in journals if _has_content(file)), None)
        try:
            with self._opened() as database:
                self._read_topics(database)
                counts = self._find(database)
        except sqlite3.Error as error:
            raise UnreadableError(str(error)) from error
        self.counts = {topic: counts[number] for number, topic in self._topics.items()}

    def records(self, topics: Collection[Topic]) -> Iterator[Record]:
        wanted = [number for number, topic in self._topics.items() if topic in topics]
        times, rows, numbers = (
            np.frombuffer(column, np.int64) for column in (self._times, self._rows, self._numbers)
        )
        (chosen,) = np.nonzero(np.isin(numbers, wanted))
        order = chosen[np.lexsort((rows[chosen], times[chosen]))]
        with self._opened() as database:
            for index in order.tolist():
                data = None
                try:
                    found = database.execute(_DATA, (self._rows[index],)).fetchone()
                    data = found[0] if found else None
                except sqlite3.Error as error:
                    self._damaged(str(error))
                yield self._record(self._numbers[index], self._times[index], data)

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
            if not there:  # SQLite leaves this file after reading a log
                index.unlink(missing_ok=True)

    def _connect(self) -> sqlite3.Connection:
        address = f"{self.path.absolute().as_uri()}?mode=ro"
        if self._journal is not None:
            try:
                return self._prepared(sqlite3.connect(address, uri=True))
            except sqlite3.Error as error:
                self._damaged(
                    f"the content of {self._journal.name} cannot be used ({error}); if the file is "
                    f"writable, this includes it: sqlite3 {quote(str(self.path))} "
                    f"'SELECT 1 FROM topics'"
                )
                self._journal = None
        # Nothing is written next to the file, so that it is readable in a read-only folder.
        return self._prepared(sqlite3.connect(f"{address}&immutable=1", uri=True))

    def _prepared(self, database: sqlite3.Connection) -> sqlite3.Connection:
        try:
            # Without the first, SQLite refuses a file that is shorter than its header says.
            for pragma in ("writable_schema = ON", "trusted_schema = OFF", "cell_size_check = ON"):
                database.execute(f"PRAGMA {pragma}")
            database.text_factory = lambda text: text.decode(errors="replace")
            steps = iter(range(10 + 20 * self._size // _STEP))  # a damaged tree can be endless
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
            raise UnreadableError(f"the database has no table {' and '.join(missing)}")
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

    def _find(self, database: sqlite3.Connection) -> Counter[int]:
        """Find the messages, one by one in damaged pages; returns their number by topic."""
        counts: Counter[int] = Counter()
        readable = {number for number, topic in self._topics.items() if topic.kind in self._kinds}
        lost = 0
        problem = ""

        def add(row: int, number: object, time: object) -> bool:
            if not (isinstance(number, int) and isinstance(time, int)):
                return False
            counts[number] += 1
            self.start = min(self.start, time)
            if number in readable:
                self._times.append(time)
                self._rows.append(row)
                self._numbers.append(number)
            return True

        last, maximum = -(2**63), self._size // _SMALLEST_ROW
        if self._journal is not None:
            maximum += self._journal.stat().st_size // _SMALLEST_ROW
        while counts.total() <= maximum:
            try:
                for found in database.execute(f"{_ALL} WHERE id > ? ORDER BY id", (last,)):
                    lost += not add(*found)
                    last = found[0]
                    if counts.total() > maximum:
                        break
                break
            except sqlite3.Error as error:
                problem = str(error)
                failed = 0
                last = max(last, 0)
                for row in range(last + 1, min(last + 2 + min(maximum, _LONGEST_GAP), 2**63)):
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
        if lost:
            problem = f"{problem or 'damaged rows'}; at least {lost} messages cannot be read"
        if problem:
            self._damaged(problem)
        if nameless := sum(counts[number] for number in counts.keys() - self._topics.keys()):
            self._damaged(f"{nameless} messages belong to topics that it does not name")
        return counts

    def _damaged(self, phrase: str) -> None:
        if phrase not in self.damage:
            self.damage.append(phrase)


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
