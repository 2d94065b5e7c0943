# SPDX-License-Identifier: Apache-2.0
"""All templates of a gallery in memory, and which people an embedding is most similar to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.gallery.people import Candidate, Template


class TemplateIndex:
    """The templates of a gallery.

    Args:
        dimensions: numbers in an embedding.
    """

    def __init__(self, dimensions: int) -> None:
        self._embeddings = np.zeros((0, dimensions), np.float32)
        self._ids: list[str] = []
        self._people: list[str] = []
        self._negative = np.zeros(0, np.bool_)

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, templates: Sequence[Template]) -> None:
        """Add templates; their embeddings are copied."""
        if not templates:
            return
        self._embeddings = np.vstack((self._embeddings, [each.embedding for each in templates]))
        self._ids += [each.id for each in templates]
        self._people += [each.person_id for each in templates]
        negative = [each.is_negative for each in templates]
        self._negative = np.concatenate((self._negative, negative))

    def move(self, template_id: str, person_id: str) -> None:
        """Have a template belong to another person."""
        self._people[self._ids.index(template_id)] = person_id

    def remove(self, template_ids: Sequence[str]) -> None:
        """Remove templates, and overwrite their embeddings."""
        self._keep([each not in template_ids for each in self._ids])

    def forget(self, person_ids: Sequence[str]) -> None:
        """Remove all templates of people, and overwrite their embeddings."""
        self._keep([each not in person_ids for each in self._people])

    def counts(self) -> Mapping[str, int]:
        """The number of templates of each person's own, without negative examples."""
        counts: dict[str, int] = {}
        for person_id, negative in zip(self._people, self._negative, strict=True):
            counts[person_id] = counts.get(person_id, 0) + int(not negative)
        return counts

    def nearest(
        self, embedding: NDArray[np.float32], roots: Mapping[str, str], count: int = 2
    ) -> list[Candidate]:
        """The people whose templates are most similar to an embedding, the most similar first.

        Somebody whose nearest negative example is more similar than the nearest template is left
        out.

        Args:
            embedding: float32 [D], of unit length.
            roots: for the id of each person, that of the person it is merged into, or its own.
            count: of people.
        """
        best: dict[str, float] = {}
        against: dict[str, float] = {}
        cosines = self._embeddings @ embedding
        for person_id, negative, cosine in zip(
            self._people, self._negative, cosines.tolist(), strict=True
        ):
            side = against if negative else best
            root = roots[person_id]
            side[root] = max(side.get(root, -1.0), cosine)
        found = [
            Candidate(person_id, similarity)
            for person_id, similarity in best.items()
            if similarity > against.get(person_id, -2.0)
        ]
        return sorted(found, key=lambda each: -each.similarity)[:count]

    def _keep(self, kept: Sequence[bool]) -> None:
        mask = np.array(kept, np.bool_)
        before = self._embeddings
        self._embeddings = before[mask]
        before[:] = 0
        self._ids = [each for each, keep in zip(self._ids, kept, strict=True) if keep]
        self._people = [each for each, keep in zip(self._people, kept, strict=True) if keep]
        self._negative = self._negative[mask]
