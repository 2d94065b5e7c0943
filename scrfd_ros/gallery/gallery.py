# SPDX-License-Identifier: Apache-2.0
"""The gallery: enroll people, find out who somebody is, correct, forget."""

from __future__ import annotations

import difflib
import threading
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.config import shown
from scrfd_ros.errors import GalleryAwayError, GalleryError
from scrfd_ros.gallery.people import Candidate, GalleryInfo, Look, Person, Template, is_id
from scrfd_ros.gallery.search import TemplateIndex
from scrfd_ros.gallery.sql import new_id
from scrfd_ros.gallery.store import Changes, Store
from scrfd_ros.gallery.wiping import leaves_no_copies

MAX_NAME = 200
"""Characters of a name or a note of consent."""

FOREVER = 253402214400.0
"""Seconds from the epoch to the last day of the year 9999, which all time zones can write."""

_MAX_SOURCE = 1000  # characters
_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
_INVISIBLE = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}  # categories of Unicode

_WAIT = 0.25  # seconds


class Gallery:
    """People with their templates, in memory for searching, and in a store that keeps them.

    What other processes change is seen after `refresh`, or soon after `follow`. May be used by
    several threads.

    Args:
        store: is closed with the gallery.

    Raises:
        GalleryError: the store cannot be read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._refreshing = threading.Lock()
        self._closing = threading.Event()
        self._follower: threading.Thread | None = None
        self._trouble = ""
        self._revision = 0
        self._forgotten = 0
        self._people: dict[str, Person] = {}
        self._index = TemplateIndex(store.info.dimensions)
        self._load()

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
        """What the gallery is for."""
        return self._store.info

    @property
    def state(self) -> str:
        """What is wrong with the store, in a sentence; "" if nothing is."""
        return self._store.state or self._trouble

    @property
    def is_away(self) -> bool:
        """Whether the store's server cannot be used now; people are found all the same."""
        return self._store.is_away

    @property
    def revision(self) -> int:
        """Of the store, as far as it is taken over; grows with each change."""
        return self._revision

    @property
    def forgotten(self) -> int:
        """How many people were forgotten since the gallery was opened."""
        return self._forgotten

    @property
    def people(self) -> list[Person]:
        """Everybody who is not merged into another, by name."""
        with self._lock:
            own = [each for each in self._people.values() if not each.merged_into]
        return sorted(own, key=lambda each: each.name.casefold())

    @property
    def person_count(self) -> int:
        """The number of people, without those who are merged into others."""
        with self._lock:
            return sum(not each.merged_into for each in self._people.values())

    @property
    def template_count(self) -> int:
        """The number of all templates, with negative examples."""
        with self._lock:
            return len(self._index)

    def template_counts(self) -> dict[str, int]:
        """The number of templates of each person by id, with those of people merged into it."""
        with self._lock:
            counts = dict.fromkeys((each.id for each in self.people), 0)
            for person_id, count in self._index.counts().items():
                counts[self._root(person_id)] += count
        return counts

    def merged(self, person_id: str) -> list[Person]:
        """The people who are merged into a person, directly or over others."""
        with self._lock:
            return [
                each
                for each in self._people.values()
                if each.id != person_id and self._root(each.id) == person_id
            ]

    def merged_names(self) -> dict[str, list[str]]:
        """The names of the people who are merged into others, by the id of who they are now."""
        names: dict[str, list[str]] = {}
        with self._lock:
            for each in self._people.values():
                if each.merged_into:
                    names.setdefault(self._root(each.id), []).append(each.name)
        return names

    def find(self, name: str) -> Person:
        """The person of this name or id; who is merged into another is found too.

        Raises:
            GalleryError: there is none; names the nearest.
        """
        wanted = _normalized(name)
        with self._lock:
            if wanted in self._people:
                return self._people[wanted]
            if (person := self._named(wanted)) is not None:
                return person
            names = {each.name.casefold(): each.name for each in self._people.values()}
        near = difflib.get_close_matches(wanted.casefold()[:MAX_NAME], names, n=1, cutoff=0.6)
        hint = f"; did you mean {names[near[0]]}?" if near else ""
        raise GalleryError(f"nobody in the gallery is called {shown(wanted)}{hint}")

    def person(self, person_id: str) -> Person | None:
        """The person of an id, or None if it was forgotten."""
        with self._lock:
            return self._people.get(person_id)

    def templates_of(self, person: Person) -> list[Template]:
        """The templates of a person's own, with their images, from the store.

        Raises:
            GalleryError: the store cannot be read.
        """
        return self._store.templates_of(person.id)

    def export(self) -> Iterator[tuple[Person, list[Template]]]:
        """Everybody with all templates and their images, from the store, as of one moment.

        Raises:
            GalleryError: the store cannot be read.
        """
        return self._store.export()

    @leaves_no_copies
    def restore(self, people: Sequence[Person], templates: Iterable[Template]) -> None:
        """Add people and templates as they are, such as those of an export: all of them, or none.

        Raises:
            GalleryError: an id or name is taken, or the store cannot be written.
        """
        with self._edit():
            self._store.add(people, templates)

    def nearest(self, embedding: NDArray[np.float32], count: int = 2) -> list[Candidate]:
        """The people an embedding is most similar to, the most similar first.

        Args:
            embedding: float32 [D], of unit length.
            count: maximum number of people.
        """
        with self._lock:
            return self._index.nearest(embedding, count)

    @leaves_no_copies
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
            GalleryError: the name or something else cannot be used, the person is there and has
                another note of consent or time to expire, or the store cannot be written.
        """
        name, now = checked_name(name), time.time()
        check_consent(consent)
        if expires is not None and not now < expires < FOREVER:
            raise GalleryError("the time when a person is to be forgotten has to be in the future")
        if not looks:
            raise GalleryError("there is no look at a face to enroll")
        self.refresh()
        try:
            return self._enroll(name, looks, source, consent, expires, now)
        except GalleryError:
            # Another process may just have enrolled somebody of this name.
            self.refresh()
            if self._named(name) is None:
                raise
            return self._enroll(name, looks, source, consent, expires, now)

    def _enroll(
        self,
        name: str,
        looks: Sequence[Look],
        source: str,
        consent: str,
        expires: float | None,
        now: float,
    ) -> Person:
        known = self._named(name)
        if known is not None and (
            consent not in ("", known.consent) or expires not in (None, known.expires)
        ):
            raise GalleryError(
                f"{name} is in the gallery already, with another note of consent or time to "
                f"expire; enroll without these, or forget the person first"
            )
        person = known or Person(new_id(), name, consent, now, expires)
        templates = [self._template(person, look, source, now) for look in looks]
        self._store.add([] if known else [person], templates)
        self.refresh()
        return person

    @leaves_no_copies
    def rename(self, name: str, new_name: str) -> None:
        """Give a person another name.

        Raises:
            GalleryError: nobody has the name, the new one cannot be used or is taken.
        """
        new_name = checked_name(new_name)
        with self._edit():
            person = self.find(name)
            if person.name != new_name:
                self._store.rename(person.id, new_name)

    def merge(self, name: str, into: str) -> None:
        """Note that two people are one. `split` ends that.

        Raises:
            GalleryError: nobody has one of the names, or they are one person already.
        """
        with self._edit():
            person, other = self.find(name), self.find(into)
            person_root, other_root = self._root(person.id), self._root(other.id)
            if person_root == other_root:
                raise GalleryError(f"{person.name} and {other.name} are one person already")
            self._store.merge(person_root, other_root)

    def split(self, name: str) -> None:
        """Make somebody who was merged into another a person of its own again.

        Raises:
            GalleryError: nobody has the name, or it is not merged into another.
        """
        with self._edit():
            person = self.find(name)
            if not person.merged_into:
                raise GalleryError(f"{person.name} is not merged into another person")
            self._store.merge(person.id, "")

    def move(self, template_ids: Sequence[str], name: str) -> None:
        """Have templates belong to another person.

        Raises:
            GalleryError: nobody has the name, or there is no such template.
        """
        with self._edit():
            self._store.move(template_ids, self.find(name).id)

    @leaves_no_copies
    def remove(self, template_ids: Sequence[str]) -> None:
        """Remove templates for good.

        Raises:
            GalleryError: there is no such template.
        """
        with self._edit():
            self._store.remove(template_ids)

    @leaves_no_copies
    def reject(self, name: str, looks: Sequence[Look], source: str) -> None:
        """Keep looks as negative examples: faces that were taken for a person, and are not.

        Raises:
            GalleryError: nobody has the name.
        """
        now = time.time()
        with self._edit():
            person = self.find(name)
            rejected = [
                self._template(person, look._replace(crop=None), source, now) for look in looks
            ]
            self._store.add([], [each._replace(is_negative=True) for each in rejected])

    @leaves_no_copies
    def forget(self, name: str) -> None:
        """Forget a person, and those merged into it, for good: their bytes are overwritten.

        Raises:
            GalleryError: nobody has the name, the person is merged into another one, or the bytes
                could not be overwritten yet.
        """
        with self._edit():
            person = self.find(name)
            if person.merged_into:
                whole = self._people[self._root(person.id)].name
                raise GalleryError(
                    f"{person.name} is merged into {whole}: forget {whole}, which forgets both, or "
                    f"split {person.name} first"
                )
            self._forget([person.id])

    def forget_expired(self) -> int:
        """Forget the people whose time is over, and those merged into them; returns how many.

        Raises:
            GalleryError: the store cannot be written, or the bytes not be overwritten yet.
        """
        now = time.time()
        with self._lock:
            before = len(self._people)
            expired = [
                each.id
                for each in self._people.values()
                if each.expires is not None and each.expires <= now
            ]
        if not expired:
            return 0
        with self._edit():
            self._forget(expired)
        return before - len(self._people)

    @leaves_no_copies
    def _forget(self, person_ids: Sequence[str]) -> None:
        self._store.forget(person_ids)

    @leaves_no_copies
    def refresh(self) -> None:
        """Take over what has changed in the store.

        Raises:
            GalleryError: the store cannot be read.
        """
        with self._refreshing:
            batches: list[Sequence[Template]] = []
            changes = self._store.read(self._revision, batches.append)
            if changes.revision != self._revision or changes.is_whole:
                self._apply(changes, batches)

    def follow(self) -> None:
        """Keep up with other processes from now on, and forget people when they expire.

        A thread does so within about a second, until the gallery is closed. `state` tells if it
        cannot.
        """
        self._follower = threading.Thread(target=self._follow, name="gallery", daemon=True)
        self._follower.start()

    def ensure_recognizer(self, info: GalleryInfo) -> None:
        """Check that the gallery is for a recognizer.

        Raises:
            GalleryError: it is for another one.
        """
        self.info.ensure_recognizer(info)

    def close(self) -> None:
        """Close the store. The gallery cannot be used any more."""
        self._closing.set()
        if self._follower is not None:
            self._follower.join()
        self._store.close()

    def _follow(self) -> None:
        while not self._closing.is_set():
            try:
                if self._store.wait(self._revision, _WAIT):
                    self.refresh()
                self.forget_expired()
                self._trouble = ""
            except GalleryError as error:
                self._trouble = str(error)
                self._closing.wait(_WAIT)

    @leaves_no_copies
    def _load(self) -> None:
        # Unlike in `refresh`, nobody uses the index yet, and there may be much to take over.
        try:
            self._apply(self._store.read(0, self._index.add), [])
        except GalleryAwayError:
            # `state` says so, and the gallery takes everything over when it follows.
            self._index = TemplateIndex(self.info.dimensions)

    @contextmanager
    def _edit(self) -> Iterator[None]:
        """A change to what is in the store now, which memory takes over whatever becomes of it."""
        self.refresh()
        try:
            yield
        finally:
            self.refresh()

    def _apply(self, changes: Changes, added: Sequence[Sequence[Template]]) -> None:
        with self._lock:
            # What is gone comes first: people who were forgotten may have been imported again.
            gone = set(changes.forgotten)
            if changes.is_whole:
                gone |= self._people.keys() - {person.id for person in changes.people}
                self._index.forget(list(self._people))
                self._people.clear()
            self._index.forget(changes.forgotten)
            self._index.remove(changes.removed)
            for person_id in changes.forgotten:
                self._people.pop(person_id, None)
            self._forgotten += len(gone)
            for batch in added:
                self._index.add(batch)
            for person in changes.people:
                self._people[person.id] = person
            for template_id, person_id in changes.moved:
                self._index.move(template_id, person_id)
            merged = [each for each, person in self._people.items() if person.merged_into]
            self._index.merge({each: self._root(each) for each in merged})
            self._revision = changes.revision

    def _named(self, name: str) -> Person | None:
        with self._lock:
            return next((each for each in self._people.values() if each.name == name), None)

    def _root(self, person_id: str) -> str:
        """The person that a person is merged into in the end."""
        seen: set[str] = set()  # circles and gaps are only in damaged galleries
        while (into := self._people[person_id].merged_into) in self._people and into not in seen:
            seen.add(into)
            person_id = into
        return person_id

    def _template(self, person: Person, look: Look, source: str, now: float) -> Template:
        """A look as a template of a person.

        Raises:
            GalleryError: its embedding is not a vector of unit length as in this gallery.
        """
        embedding = look.embedding
        dimensions = self.info.dimensions
        if embedding.shape != (dimensions,) or not abs(float(embedding @ embedding) - 1) < 1e-3:
            raise GalleryError(
                f"a look has no embedding of {dimensions} numbers and of unit length: the face was "
                f"not embedded by the recognizer of the gallery"
            )
        image = b"" if look.crop is None else _png(look.crop)
        return Template(
            new_id(),
            person.id,
            embedding,
            look.quality,
            shown_source(look.source or source),
            now,
            is_negative=False,
            image=image,
        )


def checked_name(name: str) -> str:
    """A name as it is kept: in Unicode's composed form, with single blanks, none around it.

    Raises:
        GalleryError: it is empty, too long, in the form of an id, or has characters that are
            invisible or change the direction of writing.
    """
    name = _normalized(name)
    if not 0 < len(name) <= MAX_NAME:
        raise GalleryError(f"a name has 1 to {MAX_NAME} characters, and this one {len(name)}")
    if not _is_text(name):
        raise GalleryError(
            "a name has no control characters, and none that change the direction of writing"
        )
    if is_id(name.lower()):
        raise GalleryError("a name cannot look like an id; give another one")
    return name


def check_consent(consent: str) -> None:
    """Check a note of consent.

    Raises:
        GalleryError: it is too long, or has more than one line or characters that cannot be shown.
    """
    if len(consent) > MAX_NAME or not _is_text(consent):
        raise GalleryError(
            f"a note of consent has at most {MAX_NAME} characters, in one line and all visible"
        )


def shown_source(source: str) -> str:
    """Where a template is from, as it is kept: what cannot be shown becomes a question mark."""
    return "".join(each if _is_text(each) else "?" for each in source)[-_MAX_SOURCE:]


def _normalized(name: str) -> str:
    return unicodedata.normalize("NFC", " ".join(name.split()))


def _is_text(text: str) -> bool:
    """Whether a text shows as what it is: it has no control or formatting characters.

    Joiners are part of Persian and Indic names and of emoji; unassigned characters may be assigned
    in a later version of Unicode than Python's.
    """
    return all(
        character in _JOINERS or unicodedata.category(character) not in _INVISIBLE
        for character in text
    )


def _png(crop: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".png", crop)[1])
