# SPDX-License-Identifier: Apache-2.0
"""The rule by which looks at a face become a name, without memory of its own.

Each look of enough quality votes for a person, for nobody, or for neither:

- for the most similar person, if the similarity reaches the threshold and is ahead of that of the
  second person by the margin;
- for nobody, if the similarity is below the threshold;
- else for neither.

A face is **known** once the newest `looks` votes are for one person. It stays known as long as one
of the newest 2 * `looks` votes is for that person. If all of them are for another one, it is that
person; else it is not known any more, and its votes are void. If the gallery or the options change,
the votes that are there are counted again: a name that none of them supports any longer goes at
once. A larger `looks` takes no name away: it was given by as many votes as were asked for then.

A face is a **stranger** once the newest `looks` votes are for nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from scrfd_ros.config import GalleryConfig
from scrfd_ros.gallery.people import Candidate, Look

NOBODY = ""


class Vote(NamedTuple):
    """What one look at a face says.

    Attributes:
        look: at the face.
        candidates: the people it is most similar to, best first; two are enough.
    """

    look: Look
    candidates: tuple[Candidate, ...]

    @property
    def similarity(self) -> float:
        """The cosine with the most similar person, -1 to 1; -1 if there are no people."""
        return self.candidates[0].similarity if self.candidates else -1.0

    @property
    def margin(self) -> float:
        """By how much that is ahead of the second person, 0 to 2; -1 stands for no second one."""
        if not self.candidates:
            return 0.0
        second = self.candidates[1].similarity if len(self.candidates) > 1 else -1.0
        return self.similarity - second

    def reaches_threshold(self, config: GalleryConfig) -> bool:
        """Whether the most similar person is over the threshold."""
        return bool(self.candidates) and self.similarity >= config.threshold

    def choice(self, config: GalleryConfig) -> str | None:
        """Id of the person it is for, `NOBODY`, or None for neither."""
        if not self.reaches_threshold(config):
            return NOBODY
        return self.candidates[0].person_id if self.margin >= config.margin else None

    def is_like(self, person_id: str) -> bool:
        """Whether this is the most similar person."""
        return bool(self.candidates) and self.candidates[0].person_id == person_id

    def is_good(self, config: GalleryConfig) -> bool:
        """Whether it counts, by its quality."""
        return self.look.quality >= config.min_quality


class Decision(NamedTuple):
    """Who somebody is.

    Attributes:
        person_id: of the person; `NOBODY` if the face is not known.
        votes: those that count, the newest last, at most 2 * `looks`.
    """

    person_id: str = NOBODY
    votes: tuple[Vote, ...] = ()

    def is_stranger(self, config: GalleryConfig) -> bool:
        """Whether the newest `looks` votes are for nobody."""
        newest = [vote.choice(config) for vote in self.votes[-config.looks :]]
        return not self.person_id and newest == [NOBODY] * config.looks

    def is_settled(self, config: GalleryConfig) -> bool:
        """Whether it is a person or a stranger, and the newest vote agrees with that."""
        if self.person_id:
            return self.votes[-1].choice(config) == self.person_id
        return self.is_stranger(config)


def decide(person_id: str, votes: Sequence[Vote], config: GalleryConfig) -> Decision:
    """Who somebody is after one more vote.

    Args:
        person_id: who it was before; `NOBODY` for none.
        votes: all that count so far, the newest last. Those of too low a quality are left out.
        config: the options.
    """
    good = tuple(vote for vote in votes if vote.is_good(config))[-2 * config.looks :]
    choices = [vote.choice(config) for vote in good]
    if person_id and person_id in choices:
        return Decision(person_id, good)
    needed = 2 * config.looks if person_id else config.looks
    newest = choices[-needed:]
    first = newest[0] if newest else None
    if first and len(newest) == needed and newest.count(first) == needed:
        return Decision(first, good)
    return Decision(NOBODY, () if person_id else good)


def decide_again(person_id: str, votes: Sequence[Vote], config: GalleryConfig) -> Decision:
    """Who somebody is after the gallery or the options changed. Arguments as for `decide`."""
    good = [vote for vote in votes if vote.is_good(config)]
    is_supported = any(vote.choice(config) == person_id for vote in good[-2 * config.looks :])
    return decide(person_id if is_supported else NOBODY, good, config)
