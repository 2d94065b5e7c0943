# SPDX-License-Identifier: Apache-2.0
"""Who the faces of cameras are: looks at them, gathered by track, become names."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from weakref import WeakKeyDictionary

from scrfd_ros.config import GalleryConfig
from scrfd_ros.errors import GalleryError
from scrfd_ros.faces import Faces, Identity, IdentityState
from scrfd_ros.gallery.decision import NOBODY, Decision, Vote, decide, decide_again
from scrfd_ros.gallery.gallery import Gallery
from scrfd_ros.gallery.people import Look
from scrfd_ros.tracking.tracker import Tracker

_KEPT_LOOKS = 12  # of a track, for enrolling
_PATIENCE = 4  # times `looks`, after which a face that stays undecided is embedded as usual


@dataclass
class _Track:
    """What is known of a face that is followed.

    Attributes:
        decision: who it is.
        newest: what the newest look says, of whatever quality; None before the first.
        looks: the best ones, for enrolling.
        rejected: ids of people who it is not, as somebody said.
        tries: looks since the first good one, or since the decision, gallery or options changed.
    """

    decision: Decision = field(default_factory=Decision)
    newest: Vote | None = None
    looks: list[Look] = field(default_factory=list)
    rejected: set[str] = field(default_factory=set)
    tries: int = 0


class Identifier:
    """Tells who faces are, by a gallery. May be used by several threads.

    Args:
        gallery: is not closed by this.
        config: the options.

    Attributes:
        gallery: as given.
        config: may be replaced; it takes effect with the next image.
    """

    def __init__(self, gallery: Gallery, config: GalleryConfig) -> None:
        self.gallery = gallery
        self.config = config
        self._lock = threading.RLock()
        self._cameras: WeakKeyDictionary[Tracker, dict[int, _Track]] = WeakKeyDictionary()
        self._reviewed = (gallery.revision, config)

    def identify(
        self, faces: Faces, looks: Mapping[int, Look], tracker: Tracker | None = None
    ) -> Faces:
        """The faces of an image with identities.

        Args:
            faces: with ids, if there is a tracker.
            looks: those at faces of this image, by row.
            tracker: that of the camera, which has committed the image. None: each look decides
                alone.
        """
        with self._lock:
            self.review()
            if tracker is None:
                identities = self._decided_alone(looks, len(faces))
            else:
                identities = self._decided_by_track(faces, looks, tracker)
            return replace(faces, identities=tuple(identities))

    def review(self) -> None:
        """Take over what changed in the gallery and the options; `identify` does so too."""
        with self._lock:
            now = (self.gallery.revision, self.config)
            if now != self._reviewed:
                self._reviewed = now
                for tracks in self._cameras.values():
                    for track in tracks.values():
                        self._count_again(track)

    def looks(self, tracker: Tracker, track_id: int) -> list[Look]:
        """The best looks at a face that is followed, for enrolling it.

        Raises:
            GalleryError: there is no such track, or it was not seen well enough yet.
        """
        with self._lock:
            looks = _copies(self._track(tracker, track_id).looks)
        if not looks:
            raise GalleryError(
                f"face {track_id} was not seen well enough yet: with nobody before it, and with a "
                f"quality of {self.config.min_quality:g} or more (gallery.min_quality)"
            )
        return looks

    def reject(self, tracker: Tracker, track_id: int) -> tuple[str, list[Look]]:
        """Note that a face is not the person it was taken for, as long as it is followed.

        Returns:
            The id of that person, and the looks that were taken for it.

        Raises:
            GalleryError: there is no such track, or it was taken for nobody.
        """
        with self._lock:
            track = self._track(tracker, track_id)
            person_id = self._likeness(track)
            if not person_id:
                raise GalleryError(f"face {track_id} was taken for nobody")
            assert track.newest is not None
            votes = (*track.decision.votes, track.newest)
            looks = [vote.look for vote in votes if vote.is_like(person_id)]
            track.rejected.add(person_id)
            self._count_again(track)
            return person_id, _copies(looks)

    def settle(self, tracker: Tracker, track_id: int, person_id: str) -> None:
        """Note that a face has just been enrolled as this person, so that it is known at once.

        Raises:
            GalleryError: there is no such track.
        """
        with self._lock:
            track = self._track(tracker, track_id)
            track.rejected.discard(person_id)
            track.decision = Decision(person_id, track.decision.votes)
            self._count_again(track)

    def _track(self, tracker: Tracker, track_id: int) -> _Track:
        tracks = self._cameras.get(tracker, {})
        if track_id not in tracks:
            raise GalleryError(f"no face has the id {track_id} now")
        return tracks[track_id]

    def _decided_alone(self, looks: Mapping[int, Look], count: int) -> list[Identity]:
        votes = {row: self._vote(look) for row, look in looks.items()}
        claims = {
            row: (person_id, vote.similarity)
            for row, vote in votes.items()
            if vote.is_good(self.config) and (person_id := vote.choice(self.config))
        }
        named = _named_once(claims)
        return [self._identity(votes.get(row), NOBODY, row in named) for row in range(count)]

    def _decided_by_track(
        self, faces: Faces, looks: Mapping[int, Look], tracker: Tracker
    ) -> list[Identity]:
        assert faces.ids is not None
        tracks = self._cameras.setdefault(tracker, {})
        for track_id in tracks.keys() - tracker.ids:
            _wipe(tracks.pop(track_id))
        of_faces = [tracks.setdefault(each, _Track()) for each in faces.ids.tolist()]
        for row, look in looks.items():
            self._learn(of_faces[row], look)
        tracker.eager = frozenset(each for each, track in tracks.items() if self._is_eager(track))
        claims = {
            track_id: (track.decision.person_id, self._support(track))
            for track_id, track in zip(faces.ids.tolist(), of_faces, strict=True)
            if track.decision.person_id and track_id not in tracker.doubtful
        }
        named = _named_once(claims)
        return [
            self._identity(track.newest, track.decision.person_id, track_id in named)
            for track_id, track in zip(faces.ids.tolist(), of_faces, strict=True)
        ]

    def _learn(self, track: _Track, look: Look) -> None:
        (look,) = _copies([look])
        vote = track.newest = self._vote(look, track.rejected)
        track.tries += 1
        if not vote.is_good(self.config):
            return
        before = track.decision
        track.decision = decide(before.person_id, (*before.votes, vote), self.config)
        if track.decision.person_id != before.person_id or not before.votes:
            track.tries = 0
        track.looks = sorted((*track.looks, look), key=lambda each: -each.quality)[:_KEPT_LOOKS]

    def _count_again(self, track: _Track) -> None:
        votes = [self._vote(vote.look, track.rejected) for vote in track.decision.votes]
        track.decision = decide_again(track.decision.person_id, votes, self.config)
        track.newest = track.newest and self._vote(track.newest.look, track.rejected)
        track.tries = 0

    def _vote(self, look: Look, rejected: Collection[str] = ()) -> Vote:
        found = self.gallery.nearest(look.embedding, 2 + len(rejected))
        return Vote(look, tuple(each for each in found if each.person_id not in rejected)[:2])

    def _is_eager(self, track: _Track) -> bool:
        """Whether to look at a face again soon."""
        return not track.decision.person_id and track.tries < _PATIENCE * self.config.looks

    def _likeness(self, track: _Track) -> str:
        """Id of the person that a face is taken for, certainly or not."""
        newest = track.newest
        if track.decision.person_id or newest is None:
            return track.decision.person_id
        return newest.candidates[0].person_id if newest.reaches_threshold(self.config) else NOBODY

    def _support(self, track: _Track) -> float:
        """Mean similarity of the votes for the person that a face is."""
        person_id, votes = track.decision
        return fmean(vote.similarity for vote in votes if vote.choice(self.config) == person_id)

    def _identity(self, newest: Vote | None, person_id: str, is_named: bool) -> Identity:
        """The identity of a face.

        Args:
            newest: what the newest look says.
            person_id: of the person it is by its track; `NOBODY` to go by the newest look.
            is_named: whether the name may be used.
        """
        if newest is None:
            return Identity()
        if not person_id and newest.reaches_threshold(self.config):
            person_id = newest.candidates[0].person_id
        person = self.gallery.person(person_id) if person_id else None
        similarity = newest.similarity if newest.candidates else 0.0
        if person is None:
            return Identity(similarity=similarity, margin=newest.margin)
        state = IdentityState.KNOWN if is_named else IdentityState.TENTATIVE
        name = person.name if is_named else ""
        return Identity(state, person.id, name, similarity, newest.margin)


def _named_once(claims: Mapping[int, tuple[str, float]]) -> set[int]:
    """Who of one image is named, so that nobody is named twice: the most similar one.

    Args:
        claims: by row or id, the id of a person and the similarity.
    """
    best: dict[str, int] = {}
    for key in sorted(claims, key=lambda each: (claims[each][1], -each)):
        best[claims[key][0]] = key
    return set(best.values())


def _copies(looks: Sequence[Look]) -> list[Look]:
    """Looks that stay as they are when the others are wiped."""
    return [
        look._replace(
            embedding=look.embedding.copy(), crop=None if look.crop is None else look.crop.copy()
        )
        for look in looks
    ]


def _wipe(track: _Track) -> None:
    """Overwrite what a face looks like."""
    votes = [*track.decision.votes, *([track.newest] if track.newest else [])]
    for look in (*track.looks, *(vote.look for vote in votes)):
        look.embedding[:] = 0
        if look.crop is not None:
            look.crop[:] = 0
