# SPDX-License-Identifier: Apache-2.0
"""What a gallery expects of the place where it is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from scrfd_ros.gallery.people import GalleryInfo, Person, Template


class Changes(NamedTuple):
    """What differs between two revisions of a store.

    Attributes:
        revision: the later one.
        is_whole: everything that is there is told; whatever else was known is gone. After an older
            state of the store was restored, for one.
        people: new and changed ones.
        moved: ids of templates that were there and now belong to another person, with its id.
        forgotten: ids of people who are gone, with all their templates.
        removed: ids of single templates that are gone.
    """

    revision: int
    is_whole: bool
    people: Sequence[Person]
    moved: Sequence[tuple[str, str]]
    forgotten: Sequence[str]
    removed: Sequence[str]


class Store(Protocol):
    """Keeps people and templates, for several processes at once.

    Each writing call is one transaction: when it returns, what it wrote survives the end of the
    process and of the machine; if it raises or is killed, nothing has changed. Each writes into the
    log of decisions what was done, with ids and without names, and returns the new revision.
    Revisions are numbers that grow by one with each transaction, in the order in which these become
    visible.

    Raises:
        GalleryError: the store cannot be read or written, a name is taken, or an id is unknown, as
            another process has just forgotten it.
    """

    @property
    def info(self) -> GalleryInfo: ...

    def read(self, since: int, take: Callable[[Sequence[Template]], None]) -> Changes:
        """What changed after a revision, as one snapshot; after 0, everything that is there.

        Everything too if the revision is not of this store's past, or the store was changed by
        other means than these calls.

        Args:
            take: gets the new templates without their images, some thousand at a time, so that a
                large gallery is not in memory twice.
        """
        ...

    def templates_of(self, person_id: str) -> list[Template]:
        """The templates of a person's own, with their images."""
        ...

    def export(self) -> Iterator[tuple[Person, list[Template]]]:
        """Everybody with all templates and their images, as one snapshot."""
        ...

    def wait(self, since: int, seconds: float) -> bool:
        """Wait for a revision after this one; returns whether there is one."""
        ...

    def add(self, people: Iterable[Person], templates: Iterable[Template]) -> int:
        """Add people who are not there yet, and templates of these or of people who are.

        The templates are taken one by one, after all people.
        """
        ...

    def rename(self, person_id: str, name: str) -> int: ...

    def merge(self, person_id: str, into: str) -> int:
        """Note that a person is another one; "" ends that."""
        ...

    def move(self, template_ids: Sequence[str], person_id: str) -> int: ...

    def remove(self, template_ids: Sequence[str]) -> int:
        """Remove templates for good: their bytes are overwritten."""
        ...

    def forget(self, person_ids: Sequence[str]) -> int:
        """Remove people, those merged into them, and their templates, for good.

        Their bytes are overwritten. Who is not there is gone already.
        """
        ...

    @property
    def state(self) -> str:
        """What is wrong with the store, in a sentence; "" if nothing is."""
        ...

    @property
    def is_away(self) -> bool:
        """Whether its server cannot be used now, so that it is not worth to ask."""
        ...

    def close(self) -> None: ...
