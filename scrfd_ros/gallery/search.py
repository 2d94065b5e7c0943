# SPDX-License-Identifier: Apache-2.0
"""All templates of a gallery in memory, and which people an embedding is most similar to.

Each template is a row. Embeddings are kept in blocks, so that nothing is copied when more come and
no old copy stays behind; what is known of each row besides, in columns. A row that goes is filled
with the last one, and the last one is overwritten.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.gallery import signs
from scrfd_ros.gallery.people import Candidate, Template

BLOCK = 16384
"""Rows of a block. Its memory is used as rows are written."""

EXACT = 100_000
"""Up to so many templates, all are compared; of more, those whose signs are nearest."""

_Number = TypeVar("_Number", bound=np.generic)


class TemplateIndex:
    """The templates of a gallery.

    Args:
        dimensions: numbers in an embedding.
    """

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._count = 0
        self._blocks: list[NDArray[np.float32]] = []
        self._ids = np.zeros((0, 2), np.uint64)
        self._people = np.zeros(0, np.int32)  # numbers of people
        self._negative = np.zeros(0, np.bool_)
        self._signs: NDArray[np.uint8] | None = None  # once there are more than EXACT
        self._numbers: dict[str, int] = {}  # of people, by their ids
        self._people_ids: list[str] = []  # by their numbers
        self._roots = np.zeros(0, np.int32)  # number of whom each is merged into, or its own

    def __len__(self) -> int:
        return self._count

    def add(self, templates: Sequence[Template]) -> None:
        """Add templates; their embeddings are copied."""
        first, count = self._count, self._count + len(templates)
        self._reserve(count)
        for row, each in enumerate(templates, first):
            self._embedding(row)[:] = each.embedding
        self._ids[first:count] = _packed([each.id for each in templates])
        self._people[first:count] = self._number([each.person_id for each in templates])
        self._negative[first:count] = [each.is_negative for each in templates]
        self._count = count
        if self._signs is None and count > EXACT and signs.can_search():
            first = 0
            size = -(-self._dimensions // 8)  # a bit for each number
            self._signs = _zeros((len(self._ids), size), np.dtype(np.uint8))
        if self._signs is not None:
            for start, rows in self._pieces(first, count):
                self._signs[start : start + len(rows)] = signs.of(rows)

    def move(self, template_id: str, person_id: str) -> None:
        """Have a template belong to another person."""
        self._people[self._find([template_id])] = self._number([person_id])

    def merge(self, roots: Mapping[str, str]) -> None:
        """Say who is merged: for the id of each such person, that of whom it is in the end.

        Whoever was merged before, and is not named now, is a person of its own again.
        """
        merged, into = self._number(list(roots)), self._number(list(roots.values()))
        self._roots = np.arange(len(self._people_ids), dtype=np.int32)
        self._roots[merged] = into

    def remove(self, template_ids: Sequence[str]) -> None:
        """Remove templates, and overwrite their embeddings."""
        self._remove(self._find(template_ids))

    def forget(self, person_ids: Sequence[str]) -> None:
        """Remove all templates of people, and overwrite their embeddings."""
        numbers = [self._numbers.pop(each) for each in person_ids if each in self._numbers]
        for number in numbers:
            self._people_ids[number] = ""
        self._remove(np.flatnonzero(np.isin(self._people[: self._count], numbers)))

    def counts(self) -> Mapping[str, int]:
        """The number of templates of each person's own, without negative examples."""
        people = self._people[: self._count]
        own = np.bincount(people[~self._negative[: self._count]], minlength=len(self._people_ids))
        return {self._people_ids[each]: int(own[each]) for each in np.unique(people)}

    def nearest(self, embedding: NDArray[np.float32], count: int = 2) -> list[Candidate]:
        """The people whose templates are most similar to an embedding, the most similar first.

        Somebody whose nearest negative example is at least as similar as the nearest template is
        left out. Among more than `EXACT` templates, somebody may be missing or seem less similar,
        never more: see `scrfd_ros.gallery.signs`.

        Args:
            embedding: float32 [D], of unit length.
            count: of people.
        """
        if self._signs is not None and self._count > EXACT:
            rows = signs.nearest(self._signs[: self._count], embedding)
            found = self._people_of(rows, self._cosines(rows, embedding), count)
            if len(found) == count:
                return found
        return self._nearest_of_all(embedding, count)

    def _nearest_of_all(self, embedding: NDArray[np.float32], count: int) -> list[Candidate]:
        cosines = np.empty(self._count, np.float32)
        for start, rows in self._pieces(0, self._count):
            _multiply(rows, embedding, cosines[start : start + len(rows)])
        return self._people_of(np.arange(self._count), cosines, count)

    def _people_of(
        self, rows: NDArray[np.intp], cosines: NDArray[np.float32], count: int
    ) -> list[Candidate]:
        """The people of some rows whose cosines are highest."""
        some = 16 * count
        while some < len(rows):  # until the highest are of enough people
            high = np.flatnonzero(cosines >= np.partition(cosines, -some)[-some])
            found = self._sorted_people(rows[high], cosines[high], count)
            if len(found) == count:
                return found
            some *= 16
        finite = np.flatnonzero(np.isfinite(cosines))
        return self._sorted_people(rows[finite], cosines[finite], count)

    def _sorted_people(
        self, rows: NDArray[np.intp], cosines: NDArray[np.float32], count: int
    ) -> list[Candidate]:
        """The same after sorting all: of each person the row with the highest cosine decides."""
        negative = self._negative[rows]
        order = np.lexsort((~negative, -cosines))
        people = self._roots[self._people[rows[order]]]
        first = np.sort(np.unique(people, return_index=True)[1])
        first = first[~negative[order[first]]][:count]
        return [
            Candidate(self._people_ids[person], similarity)
            for person, similarity in zip(
                people[first].tolist(), cosines[order[first]].tolist(), strict=True
            )
        ]

    def _cosines(
        self, rows: NDArray[np.intp], embedding: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Cosines of an embedding and the embeddings of some rows, which are in order."""
        cosines = np.empty(len(rows), np.float32)
        ends = np.searchsorted(rows, BLOCK * np.arange(len(self._blocks) + 1))
        for number, (start, end) in enumerate(pairwise(ends)):
            picked = self._blocks[number][rows[start:end] - BLOCK * number]
            _multiply(picked, embedding, cosines[start:end])
        return cosines

    def _embedding(self, row: int) -> NDArray[np.float32]:
        embedding: NDArray[np.float32] = self._blocks[row // BLOCK][row % BLOCK]
        return embedding

    def _pieces(self, first: int, end: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The embeddings of rows from the first up to the end, by blocks, with the row of each."""
        while first < end:
            start = first % BLOCK
            rows = self._blocks[first // BLOCK][start : start + end - first]
            yield first, rows
            first += len(rows)

    def _number(self, person_ids: Sequence[str]) -> list[int]:
        """The numbers of people; who has none gets one."""
        for each in person_ids:
            if each not in self._numbers:
                self._numbers[each] = len(self._people_ids)
                self._people_ids.append(each)
        new = np.arange(len(self._roots), len(self._people_ids), dtype=np.int32)
        self._roots = np.concatenate((self._roots, new))
        return [self._numbers[each] for each in person_ids]

    def _find(self, template_ids: Sequence[str]) -> NDArray[np.intp]:
        """The rows of those templates that are there."""
        ids, wanted = self._ids[: self._count], _packed(template_ids)
        rows = np.flatnonzero(np.isin(ids[:, 0], wanted[:, 0]))
        return rows[np.isin(ids[rows, 1], wanted[:, 1])]

    def _reserve(self, count: int) -> None:
        """Make room for so many rows."""
        while len(self._blocks) * BLOCK < count:
            self._blocks.append(_zeros((BLOCK, self._dimensions), np.dtype(np.float32)))
        rows = len(self._blocks) * BLOCK
        if rows > len(self._ids):
            self._ids = _longer(self._ids, rows)
            self._people = _longer(self._people, rows)
            self._negative = _longer(self._negative, rows)
            if self._signs is not None:
                self._signs = _longer(self._signs, rows)

    def _remove(self, rows: NDArray[np.intp]) -> None:
        """Put the last rows in the place of these, and overwrite what is left behind them."""
        count = self._count - len(rows)
        holes = rows[rows < count]
        last = np.setdiff1d(np.arange(count, self._count), rows, assume_unique=True)
        for hole, row in zip(holes, last, strict=True):
            self._embedding(hole)[:] = self._embedding(row)
        for _, left in self._pieces(count, self._count):
            left[:] = 0
        for column in (self._ids, self._people, self._negative, self._signs):
            if column is not None:
                column[holes] = column[last]
                column[count : self._count] = 0
        self._count = count
        del self._blocks[-(-count // BLOCK) :]


def _multiply(
    rows: NDArray[np.float32], embedding: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    # One product after the other. As one, BLAS takes twice as long for rows that are not in a
    # cache, and starts threads of its own, which take the cores from the networks.
    np.matmul(rows[:, np.newaxis], embedding[:, np.newaxis], out=out[:, np.newaxis, np.newaxis])


def _packed(ids: Sequence[str]) -> NDArray[np.uint64]:
    """UUIDs as numbers, uint64 [N, 2]."""
    return np.frombuffer(bytes.fromhex("".join(ids).replace("-", "")), np.uint64).reshape(-1, 2)


def _longer(column: NDArray[_Number], rows: int) -> NDArray[_Number]:
    """A copy with so many rows, zeros behind; the old one is overwritten."""
    longer = _zeros((rows, *column.shape[1:]), column.dtype)
    longer[: len(column)] = column
    column[:] = 0
    return longer


def _zeros(shape: tuple[int, ...], dtype: np.dtype[_Number]) -> NDArray[_Number]:
    """Zeros in memory of their own, which is taken page by page as it is written, and given back as
    a whole; on the heap, holes would stay behind."""
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, mmap.MAP_PRIVATE)
    return np.frombuffer(memory, dtype).reshape(shape)
