# SPDX-License-Identifier: Apache-2.0
"""People who are in no gallery, by anonymous ids, so that each can be greeted once.

They are in memory only: nothing is written about people who did not agree to it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Sequence

import numpy as np

from scrfd_ros.config import shown
from scrfd_ros.errors import GalleryError
from scrfd_ros.gallery.memory import copies, keep_best, wipe
from scrfd_ros.gallery.people import Look

_MOST = 500
"""Strangers. Then the one who was not seen for longest is forgotten."""

_LOOKS = 5  # at each of them


class _Stranger:
    def __init__(self) -> None:
        self.looks: tuple[Look, ...] = ()
        self.seen = 0.0


class Strangers:
    """Strangers who were seen lately, by all cameras.

    Args:
        clock: seconds, for their time to live. Not the images' time: that of cameras can differ.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, _Stranger] = {}

    def __contains__(self, stranger_id: str) -> bool:
        return stranger_id in self._known

    def find(self, looks: Sequence[Look], threshold: float, others: Collection[str]) -> str:
        """The id of the stranger whom looks at a face show; a new one if it is nobody of before.

        That is the one with the highest mean similarity of the looks, each with the nearest that
        was kept of the stranger.

        Args:
            looks: at one face.
            threshold: minimum mean similarity, a cosine.
            others: ids of strangers who it is not, since they are elsewhere in the same image.
        """
        best = self._most_similar(looks, threshold, others)
        if not best:
            best = f"stranger-{uuid.uuid4().hex[:8]}"
            self._known[best] = _Stranger()
        for look in looks:
            self.add(best, look)
        self.see(best)
        while len(self._known) > _MOST:
            self.forget(min(self._known, key=lambda each: self._known[each].seen))
        return best

    def _most_similar(
        self, looks: Sequence[Look], threshold: float, others: Collection[str]
    ) -> str:
        known = [(each, self._known[each].looks) for each in self._known if each not in others]
        if not known:
            return ""
        kept = np.stack([look.embedding for _, own in known for look in own])
        starts = np.cumsum([0, *(len(own) for _, own in known[:-1])])
        cosines = np.stack([look.embedding for look in looks]) @ kept.T
        similarities = np.maximum.reduceat(cosines, starts, axis=1).mean(axis=0)
        best = int(similarities.argmax())
        return known[best][0] if similarities[best] >= threshold else ""

    def add(self, stranger_id: str, look: Look) -> None:
        """Keep a look at a stranger, if it is one of the best. It is copied."""
        stranger = self._known[stranger_id]
        stranger.looks = keep_best((*stranger.looks, *copies([look])), _LOOKS)

    def see(self, stranger_id: str) -> None:
        """Note that a stranger is there now."""
        self._known[stranger_id].seen = self._clock()

    def looks(self, stranger_id: str) -> list[Look]:
        """What was seen of a stranger, for enrolling.

        Raises:
            GalleryError: there is no such stranger, or no longer.
        """
        if stranger_id not in self._known:
            raise GalleryError(
                f"no stranger has the id {shown(stranger_id)}: strangers are forgotten some time "
                f"after they were seen (gallery.stranger_ttl), and when anybody is forgotten"
            )
        return copies(self._known[stranger_id].looks)

    def forget(self, stranger_id: str) -> None:
        """Forget a stranger, if there is one of this id; the looks are overwritten."""
        if stranger_id in self._known:
            wipe(self._known.pop(stranger_id).looks)

    def forget_all(self) -> None:
        for stranger_id in list(self._known):
            self.forget(stranger_id)

    def forget_old(self, seconds: float) -> None:
        """Forget those who were not seen for so long."""
        now = self._clock()
        for stranger_id, stranger in list(self._known.items()):
            if now - stranger.seen >= seconds:
                self.forget(stranger_id)
