# SPDX-License-Identifier: Apache-2.0
"""What the stores in SQLite and in PostgreSQL share: the tables, and every statement."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.config import shown
from scrfd_ros.errors import GalleryError, NoGalleryError
from scrfd_ros.gallery.people import GalleryInfo, Person, Template, is_id
from scrfd_ros.gallery.store import Changes

FORMAT = 1
"""Version of the tables. A store with a later one is refused."""

TABLES = (
    "CREATE TABLE gallery (format INTEGER NOT NULL, recognizer TEXT NOT NULL,"
    " recognizer_sha256 TEXT NOT NULL, dimensions INTEGER NOT NULL, revision BIGINT NOT NULL)",
    "CREATE TABLE people (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, consent TEXT NOT NULL,"
    " created DOUBLE PRECISION NOT NULL, expires DOUBLE PRECISION, merged_into TEXT NOT NULL,"
    " revision BIGINT NOT NULL)",
    "CREATE TABLE templates (id TEXT PRIMARY KEY, person_id TEXT NOT NULL REFERENCES people (id),"
    " embedding {embedding} NOT NULL, quality DOUBLE PRECISION NOT NULL, source TEXT NOT NULL,"
    " created DOUBLE PRECISION NOT NULL, is_negative INTEGER NOT NULL, image {bytes} NOT NULL,"
    " added BIGINT NOT NULL, moved BIGINT NOT NULL)",
    # What was decided about whom, with ids only. It stays after people are forgotten: other
    # processes learn from it that they are.
    "CREATE TABLE decisions (revision BIGINT NOT NULL, time DOUBLE PRECISION NOT NULL,"
    " kind TEXT NOT NULL, subject TEXT NOT NULL)",
    "CREATE INDEX people_merged ON people (merged_into)",
    "CREATE INDEX templates_person ON templates (person_id)",
    "CREATE INDEX templates_added ON templates (added)",
    "CREATE INDEX decisions_revision ON decisions (revision)",
)
"""The columns added and moved are the revisions of when a template came, and came to its person."""

_BATCH = 2000  # templates

_PERSON = "id, name, consent, created, expires, merged_into"
_TEMPLATE = "id, person_id, embedding, quality, source, created, is_negative"

Run: TypeAlias = Callable[..., Iterator[tuple[Any, ...]]]
"""Runs a statement with parameters for its question marks; returns the rows."""


class SqlStore(ABC):
    """A `Store` in a database that speaks SQL.

    Attributes:
        info: what the gallery is made for.
    """

    info: GalleryInfo
    _last_read: tuple[int, float | None] = (0, None)  # the revision, and when it was made

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Run]:
        """A transaction that sees one snapshot."""

    @abstractmethod
    def _writing(self) -> AbstractContextManager[Run]:
        """A transaction that excludes other writers from its beginning, and is durable at its end.

        Raises:
            GalleryError: it fails; a name that is taken becomes `name_taken`.
        """

    @abstractmethod
    def _wipe(self) -> None:
        """Overwrite the bytes of removed rows, wherever the database keeps them."""

    @abstractmethod
    def _packed(self, embedding: NDArray[np.float32]) -> Any:
        """An embedding as a parameter of a statement."""

    @abstractmethod
    def _unpacked(self, value: Any) -> NDArray[np.float32]:
        """An embedding from a row; the way back from `_packed`."""

    def read(self, since: int, take: Callable[[Sequence[Template]], None]) -> Changes:
        with self._reading() as run:
            revision = self._revision(run)
            if not self._is_past(run, since, revision):
                since = 0
            people = [
                _person(row)
                for row in run(f"SELECT {_PERSON} FROM people WHERE revision > ?", since)
            ]
            batch: list[Template] = []
            for row in run(f"SELECT {_TEMPLATE} FROM templates WHERE added > ?", since):
                batch.append(self._template(row))
                if len(batch) == _BATCH:
                    take(batch)
                    batch = []
            take(batch)
            gone: dict[str, list[str]] = {"forget": [], "remove": []}
            moved: list[tuple[str, str]] = []
            if since:
                moved = [
                    (template_id, person_id)
                    for template_id, person_id in run(
                        "SELECT id, person_id FROM templates WHERE moved > ? AND added <= ?",
                        since,
                        since,
                    )
                ]
                for kind, subject in run(
                    "SELECT kind, subject FROM decisions"
                    " WHERE revision > ? AND kind IN ('forget', 'remove')",
                    since,
                ):
                    gone[kind].append(subject)
            self._last_read = revision, self._made(run, revision)
        return Changes(revision, not since, people, moved, gone["forget"], gone["remove"])

    def templates_of(self, person_id: str) -> list[Template]:
        with self._reading() as run:
            return self._templates_of(run, person_id)

    def export(self) -> Iterator[tuple[Person, list[Template]]]:
        with self._reading() as run:
            for row in list(run(f"SELECT {_PERSON} FROM people ORDER BY created, id")):
                yield _person(row), self._templates_of(run, row[0])

    def add(self, people: Iterable[Person], templates: Iterable[Template]) -> int:
        with self._edit() as (run, revision):
            ids = []
            for person in people:
                self._ensure_free(run, person.name)
                run("INSERT INTO people VALUES (?, ?, ?, ?, ?, ?, ?)", *person, revision)
                ids.append(person.id)
            known = set(ids)
            for each in templates:
                if each.person_id not in known:
                    self._ensure_person(run, each.person_id)
                    known.add(each.person_id)
                run(
                    "INSERT INTO templates VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    each.id,
                    each.person_id,
                    self._packed(each.embedding),
                    each.quality,
                    each.source,
                    each.created,
                    int(each.is_negative),
                    each.image,
                    revision,
                    revision,
                )
                ids.append(each.id)
            self._log(run, revision, "add", ids)
        return revision

    def rename(self, person_id: str, name: str) -> int:
        with self._edit() as (run, revision):
            self._ensure_person(run, person_id)
            self._ensure_free(run, name)
            run("UPDATE people SET name = ?, revision = ? WHERE id = ?", name, revision, person_id)
            self._log(run, revision, "rename", [person_id])
        return revision

    def merge(self, person_id: str, into: str) -> int:
        with self._edit() as (run, revision):
            merged_into = self._merged_into(run, person_id)
            if into and merged_into:
                raise GalleryError("the person was merged into another one a moment ago")
            root = into
            while root:  # another process may just have merged the two the other way round
                if root == person_id:
                    raise GalleryError("the two are one person already")
                root = self._merged_into(run, root)
            run(
                "UPDATE people SET merged_into = ?, revision = ? WHERE id = ?",
                into,
                revision,
                person_id,
            )
            self._log(run, revision, "merge" if into else "split", [person_id])
        return revision

    def move(self, template_ids: Sequence[str], person_id: str) -> int:
        with self._edit() as (run, revision):
            self._ensure_person(run, person_id)
            self._ensure_templates(run, template_ids)
            for each in template_ids:
                run(
                    "UPDATE templates SET person_id = ?, moved = ? WHERE id = ?",
                    person_id,
                    revision,
                    each,
                )
            self._log(run, revision, "move", template_ids)
        return revision

    def remove(self, template_ids: Sequence[str]) -> int:
        with self._edit() as (run, revision):
            self._ensure_templates(run, template_ids)
            for each in template_ids:
                run("DELETE FROM templates WHERE id = ?", each)
            self._log(run, revision, "remove", template_ids)
        self._wipe()
        return revision

    def forget(self, person_ids: Sequence[str]) -> int:
        with self._edit() as (run, revision):
            all_gone: dict[str, None] = {}
            waiting = list(person_ids)
            while waiting:
                each = waiting.pop()
                if each not in all_gone and list(run("SELECT 1 FROM people WHERE id = ?", each)):
                    all_gone[each] = None
                    waiting += [
                        row[0] for row in run("SELECT id FROM people WHERE merged_into = ?", each)
                    ]
            for each in all_gone:
                run("DELETE FROM templates WHERE person_id = ?", each)
                run("DELETE FROM people WHERE id = ?", each)
            self._log(run, revision, "forget", list(all_gone) or person_ids)
        self._wipe()
        return revision

    @contextmanager
    def _edit(self) -> Iterator[tuple[Run, int]]:
        """A writing transaction, and its revision."""
        with self._writing() as run:
            run("UPDATE gallery SET revision = revision + 1")
            yield run, self._revision(run)

    def _revision(self, run: Run) -> int:
        rows = list(run("SELECT revision, recognizer_sha256 FROM gallery"))
        if not rows:
            raise NoGalleryError("the gallery was emptied by other means; make a new one")
        ((revision, recognizer_sha256),) = rows
        if recognizer_sha256 != self.info.recognizer_sha256:
            raise NoGalleryError("the gallery was replaced by one for another recognizer")
        if not isinstance(revision, int):
            raise damaged()
        return revision

    def _is_past(self, run: Run, since: int, revision: int) -> bool:
        """Whether the decisions lead from a revision that was read to the present one.

        They do not after a backup was restored, which may have other decisions under the same
        numbers, nor after somebody changed the tables by hand.
        """
        ((decided,),) = run(
            "SELECT count(DISTINCT revision) FROM decisions WHERE revision > ?", since
        )
        is_complete: bool = decided == revision - since
        return is_complete and self._last_read == (since, self._made(run, since))

    @staticmethod
    def _made(run: Run, revision: int) -> float | None:
        """When a revision was made; None for the first one."""
        ((made,),) = run("SELECT min(time) FROM decisions WHERE revision = ?", revision)
        return None if made is None else float(made)

    @staticmethod
    def _log(run: Run, revision: int, kind: str, subjects: Sequence[str]) -> None:
        """Write into the log of decisions what was done, and to whom."""
        for each in subjects:
            run("INSERT INTO decisions VALUES (?, ?, ?, ?)", revision, time.time(), kind, each)

    def _templates_of(self, run: Run, person_id: str) -> list[Template]:
        rows = run(f"SELECT {_TEMPLATE}, image FROM templates WHERE person_id = ?", person_id)
        return [self._template(row[:7])._replace(image=bytes(row[7])) for row in rows]

    def _template(self, row: tuple[Any, ...]) -> Template:
        id_, person_id, value, quality, source, created, is_negative = row
        try:
            embedding = self._unpacked(value)
            with np.errstate(all="ignore"):  # damaged ones may have any values
                length = float(embedding @ embedding)
        except (TypeError, ValueError) as error:
            raise damaged() from error
        if not (
            len(embedding) == self.info.dimensions
            and abs(length - 1) < 1e-3
            and type(id_) is type(person_id) is type(source) is str
            and type(quality) is type(created) is float
            and is_id(id_)
        ):
            raise damaged()
        return Template(id_, person_id, embedding, quality, source, created, bool(is_negative))

    @staticmethod
    def _merged_into(run: Run, person_id: str) -> str:
        rows = list(run("SELECT merged_into FROM people WHERE id = ?", person_id))
        if not rows:
            raise gone()
        return str(rows[0][0])

    @staticmethod
    def _ensure_free(run: Run, name: str) -> None:
        """Check a name here: a server would write the one that it refuses into its log."""
        if list(run("SELECT 1 FROM people WHERE name = ?", name)):
            raise name_taken()

    @staticmethod
    def _ensure_templates(run: Run, template_ids: Sequence[str]) -> None:
        for each in template_ids:
            if not list(run("SELECT 1 FROM templates WHERE id = ?", each)):
                raise GalleryError(f"there is no template {shown(each)} in the gallery")

    @staticmethod
    def _ensure_person(run: Run, person_id: str) -> None:
        if not list(run("SELECT 1 FROM people WHERE id = ?", person_id)):
            raise gone()


def _person(row: tuple[Any, ...]) -> Person:
    person = Person(*row)
    texts = (person.id, person.name, person.consent, person.merged_into)
    times = (person.created, person.expires or 0.0)
    if [*map(type, texts + times)] != [str] * 4 + [float] * 2 or not is_id(person.id):
        raise damaged()
    return person


def damaged() -> GalleryError:
    return GalleryError(
        "the gallery is damaged; take a copy of it, or make a new one and enroll the people anew"
    )


def gone() -> GalleryError:
    return GalleryError("the person is no longer in the gallery: forgotten a moment ago")


def name_taken() -> GalleryError:
    return GalleryError("another person has this name; give another one, or merge the two")


def new_id() -> str:
    """A random UUID for a person or template."""
    return str(uuid.uuid4())
