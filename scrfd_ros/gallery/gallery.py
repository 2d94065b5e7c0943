# SPDX-License-Identifier: Apache-2.0
"""The gallery: enroll people, find out who somebody is, correct, forget."""

from __future__ import annotations

import difflib
import threading
import time
import unicodedata
from collections.abc import Sequence
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.errors import GalleryError
from scrfd_ros.gallery.people import Candidate, GalleryInfo, Look, Person, Template
from scrfd_ros.gallery.search import TemplateIndex
from scrfd_ros.gallery.sql import new_id
from scrfd_ros.gallery.store import Store

MAX_NAME = 200
"""Characters of a name or a note of consent."""


class Gallery:
    """People with their templates, in memory for searching, and in a store that keeps them.

    What another process changes is seen after `refresh`. May be used by several threads.

    Args:
        store: is closed with the gallery.

    Raises:
        GalleryError: the store cannot be read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._revision = 0
        self._people: dict[str, Person] = {}
        self._roots: dict[str, str] = {}
        self._index = TemplateIndex(store.info.dimensions)
        self.refresh()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def info(self) -> GalleryInfo:
        return self._store.info

    @property
    def state(self) -> str:
        """What is wrong with the store, in a sentence; "" if it works."""
        return self._store.state

    @property
    def people(self) -> list[Person]:
        """Everybody who is not merged into another, by name."""
        with self._lock:
            own = [each for each in self._people.values() if not each.merged_into]
        return sorted(own, key=lambda each: each.name.casefold())

    @property
    def template_count(self) -> int:
        with self._lock:
            return len(self._index)

    def template_counts(self) -> dict[str, int]:
        """The number of templates of each person by id, with those of people merged into it."""
        with self._lock:
            counts = dict.fromkeys((each.id for each in self.people), 0)
            for person_id, count in self._index.counts().items():
                counts[self._roots[person_id]] += count
        return counts

    def merged(self, person_id: str) -> list[Person]:
        """The people who are merged into a person, directly or over others."""
        with self._lock:
            return [
                each
                for each in self._people.values()
                if each.id != person_id and self._roots[each.id] == person_id
            ]

    def find(self, name: str) -> Person:
        """The person of this name or id; who is merged into another is found too.

        Raises:
            GalleryError: there is none; names the nearest.
        """
        wanted = unicodedata.normalize("NFC", name.strip())
        with self._lock:
            if wanted in self._people:
                return self._people[wanted]
            for each in self._people.values():
                if each.name == wanted:
                    return each
            names = [each.name for each in self._people.values()]
        near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise GalleryError(f"nobody in the gallery is called {wanted!r}{hint}")

    def person(self, person_id: str) -> Person | None:
        """The person of an id, or None if it was forgotten."""
        with self._lock:
            return self._people.get(person_id)

    def nearest(self, embedding: NDArray[np.float32], count: int = 2) -> list[Candidate]:
        """The people an embedding is most similar to, the most similar first.

        Args:
            embedding: float32 [D], of unit length.
            count: maximum number of people.
        """
        with self._lock:
            return self._index.nearest(embedding, self._roots, count)

    def enroll(
        self,
        name: str,
        looks: Sequence[Look],
        *,
        source: str,
        consent: str = "",
        expires: float | None = None,
    ) -> Person:
        """Add looks as templates of a person, who is made if nobody has the name.

        The looks are taken as they are. If they have crops, these are kept.

        Args:
            name: of the person.
            looks: at least one.
            source: where the looks are from that do not say it themselves, such as a file's name.
            consent, expires: of a new person, see `Person`.

        Raises:
            GalleryError: the name cannot be used, or the store cannot be written.
        """
        name = checked_name(name)
        now = time.time()
        with self._lock:
            known = next((each for each in self._people.values() if each.name == name), None)
        person = known or Person(new_id(), name, consent, now, expires)
        templates = [
            Template(
                id=new_id(),
                person_id=person.id,
                embedding=look.embedding,
                quality=look.quality,
                source=look.source or source,
                created=now,
                image=b"" if look.crop is None else _png(look.crop),
            )
            for look in looks
        ]
        self._store.add([] if known else [person], templates)
        self.refresh()
        return person

    def rename(self, name: str, new_name: str) -> None:
        """Give a person another name.

        Raises:
            GalleryError: nobody has the name, the new one cannot be used or is taken.
        """
        self._store.rename(self.find(name).id, checked_name(new_name))
        self.refresh()

    def merge(self, name: str, into: str) -> None:
        """Note that two people are one. `split` ends that.

        Raises:
            GalleryError: nobody has one of the names, or they are one person already.
        """
        person, other = self.find(name), self.find(into)
        with self._lock:
            if self._roots[person.id] == self._roots[other.id]:
                raise GalleryError(f"{person.name} and {other.name} are one person already")
            person_root, other_root = self._roots[person.id], self._roots[other.id]
        self._store.merge(person_root, other_root)
        self.refresh()

    def split(self, name: str) -> None:
        """Make somebody who was merged into another a person of its own again.

        Raises:
            GalleryError: nobody has the name, or it is not merged into another.
        """
        person = self.find(name)
        if not person.merged_into:
            raise GalleryError(f"{person.name} is not merged into another person")
        self._store.merge(person.id, "")
        self.refresh()

    def move(self, template_ids: Sequence[str], name: str) -> None:
        """Have templates belong to another person.

        Raises:
            GalleryError: nobody has the name, or there is no such template.
        """
        self._store.move(template_ids, self.find(name).id)
        self.refresh()

    def remove(self, template_ids: Sequence[str]) -> None:
        """Remove templates for good."""
        self._store.remove(template_ids)
        self.refresh()

    def reject(self, name: str, looks: Sequence[Look], source: str) -> None:
        """Keep looks as negative examples: faces that were taken for a person, and are not.

        Raises:
            GalleryError: nobody has the name.
        """
        person, now = self.find(name), time.time()
        self._store.add(
            [],
            [
                Template(
                    new_id(), person.id, look.embedding, look.quality, source, now, is_negative=True
                )
                for look in looks
            ],
        )
        self.refresh()

    def forget(self, name: str) -> None:
        """Forget a person, and those merged into it, for good: their bytes are overwritten.

        Raises:
            GalleryError: nobody has the name.
        """
        person = self.find(name)
        self._store.forget([person.id, *(each.id for each in self.merged(person.id))])
        self.refresh()

    def forget_expired(self) -> int:
        """Forget the people whose time is over; returns how many."""
        now = time.time()
        with self._lock:
            expired = [
                each.id
                for each in self._people.values()
                if each.expires is not None and each.expires <= now
            ]
        if expired:
            self._store.forget(expired)
            self.refresh()
        return len(expired)

    def refresh(self) -> None:
        """Take over what has changed in the store."""
        with self._lock:
            changes = self._store.read(self._revision, self._index.add)
            self._index.forget(changes.forgotten)
            self._index.remove(changes.removed)
            for person_id in changes.forgotten:
                self._people.pop(person_id, None)
            for person in changes.people:
                self._people[person.id] = person
            for template_id, person_id in changes.moved:
                self._index.move(template_id, person_id)
            self._roots = {each: self._root(each) for each in self._people}
            self._revision = changes.revision

    def ensure_recognizer(self, info: GalleryInfo) -> None:
        """Check that the gallery is for a recognizer.

        Raises:
            GalleryError: it is for another one.
        """
        if info.recognizer_sha256 != self.info.recognizer_sha256:
            raise GalleryError(
                f"the gallery is for the recognizer {self.info.recognizer}, not for "
                f"{info.recognizer}, whose embeddings cannot be compared with it: choose that "
                f"recognizer, or enroll the people in another gallery"
            )

    def close(self) -> None:
        """Close the store. The gallery cannot be used any more."""
        self._store.close()

    def _root(self, person_id: str) -> str:
        """The person that a person is merged into in the end."""
        seen = set()
        while (into := self._people[person_id].merged_into) and into not in seen:
            seen.add(into)
            person_id = into
        return person_id


def checked_name(name: str) -> str:
    """A name as it is kept: without blanks around it, in Unicode's composed form.

    Raises:
        GalleryError: it is empty, too long, or has characters that cannot be printed.
    """
    name = unicodedata.normalize("NFC", name.strip())
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise GalleryError(
            f"a name has 1 to {MAX_NAME} characters that can be printed, and this one has not"
        )
    return name


def _png(crop: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".png", crop)[1])
