# SPDX-License-Identifier: Apache-2.0
"""Who the faces of cameras are: looks at them, gathered by track, become names."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from weakref import WeakKeyDictionary

from scrfd_ros.config import GalleryConfig
from scrfd_ros.errors import GalleryError
from scrfd_ros.faces import Faces, Identity, IdentityState
from scrfd_ros.gallery.decision import NOBODY, Decision, Vote, decide, decide_again
from scrfd_ros.gallery.gallery import Gallery
from scrfd_ros.gallery.memory import copies, keep_best, wipe
from scrfd_ros.gallery.people import Look
from scrfd_ros.gallery.strangers import Strangers
from scrfd_ros.tracking.tracker import Tracker

_LOOKS = 12  # of a track, for enrolling
_ENOUGH_LOOKS = 5
"""Looks that are gathered soon, even if fewer decide: somebody may want to enroll the face."""

_PATIENCE = 4  # times `looks`, after which a face that stays undecided is embedded as usual

_LONG = 0.05  # seconds; a longer count of all votes again is followed by a pause
_PAUSE = 20  # times as long: somebody may be enrolling many people into a large gallery


@dataclass
class _Track:
    """What is known of a face that is followed. Its looks are copies, wiped when they are dropped.

    Attributes:
        decision: who it is.
        newest: what the newest look says, of whatever quality; None before the first.
        looks: the best ones, for enrolling.
        stranger_id: "" before it was found to be a stranger.
        rejected: ids of people who it is not, as somebody said.
        tries: looks since the last that settled who it is, or since there were no good ones.
    """

    decision: Decision = field(default_factory=Decision)
    newest: Vote | None = None
    looks: tuple[Look, ...] = ()
    stranger_id: str = ""
    rejected: set[str] = field(default_factory=set)
    tries: int = 0

    def decide(self, decision: Decision) -> None:
        """Replace the decision, whose votes are new ones, or of the same looks."""
        kept = {id(vote.look) for vote in decision.votes}
        wipe(vote.look for vote in self.decision.votes if id(vote.look) not in kept)
        self.decision = decision

    def wipe(self) -> None:
        self.decide(Decision())
        wipe(self.looks)
        if self.newest is not None:
            wipe([self.newest.look])


class Identifier:
    """Tells who faces are, by a gallery. May be used by several threads.

    Somebody who is not in the gallery becomes a stranger with an anonymous id, see `Strangers`.
    When anybody is forgotten, so is what was seen of strangers, and of faces that are not known:
    one of them may be that person.

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
        self._strangers = Strangers()
        self._reviewed = (gallery.revision, config)
        self._next_review = 0.0
        self._forgotten = gallery.forgotten

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
        """Take over what changed in gallery and options, and forget strangers whose time is over.

        `identify` does so too: to be called where no images come.
        """
        with self._lock:
            self._strangers.forget_old(self.config.stranger_ttl)
            if self.gallery.forgotten != self._forgotten:
                self._forgotten = self.gallery.forgotten
                self._forget_who_is_not_known()
            now = (self.gallery.revision, self.config)
            is_pause = time.monotonic() < self._next_review and self.config == self._reviewed[1]
            if now != self._reviewed and not is_pause:
                self._reviewed = now
                start = time.thread_time()
                for tracks in self._cameras.values():
                    for track in tracks.values():
                        self._count_again(track)
                took = time.thread_time() - start
                if took > _LONG:
                    self._next_review = time.monotonic() + _PAUSE * took

    def forget_all(self) -> None:
        """Overwrite what was seen of faces."""
        with self._lock:
            self._strangers.forget_all()
            for tracks in self._cameras.values():
                for track in tracks.values():
                    track.wipe()
            self._cameras.clear()

    def stranger_looks(self, stranger_id: str) -> list[Look]:
        """The best looks at a stranger, for enrolling.

        Raises:
            GalleryError: there is no such stranger, or no longer.
        """
        with self._lock:
            return self._strangers.looks(stranger_id)

    def looks(self, tracker: Tracker, track_id: int) -> list[Look]:
        """The best looks at a face that is followed, for enrolling it.

        Raises:
            GalleryError: there is no such track, or it was not seen well enough yet.
        """
        with self._lock:
            looks = copies(self._track(tracker, track_id).looks)
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
            person_id = self._person_or_stranger(track)
            if self.gallery.person(person_id) is None or track.newest is None:
                raise GalleryError(f"face {track_id} was taken for nobody")
            votes = track.decision.votes or [track.newest]
            looks = copies(vote.look for vote in votes if vote.is_like(person_id))
            track.rejected.add(person_id)
            self._count_again(track)
            return person_id, looks

    def settle(self, tracker: Tracker, track_id: int, person_id: str) -> None:
        """Note that a face has just been enrolled as this person, so that it is known at once.

        Nothing happens if it has left meanwhile.
        """
        with self._lock:
            track = self._cameras.get(tracker, {}).get(track_id)
            if track is None:
                return
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
        return [
            self._identity(votes.get(row), self._likeness(votes.get(row)), row in named)
            for row in range(count)
        ]

    def _decided_by_track(
        self, faces: Faces, looks: Mapping[int, Look], tracker: Tracker
    ) -> list[Identity]:
        assert faces.ids is not None
        tracks = self._cameras.setdefault(tracker, {})
        for track_id in tracks.keys() - tracker.ids:
            tracks.pop(track_id).wipe()
        seen = {track_id: tracks.setdefault(track_id, _Track()) for track_id in faces.ids.tolist()}
        for row, look in looks.items():
            self._learn(tracks[faces.ids[row].item()], look)
        self._find_strangers(seen)
        tracker.eager = frozenset(each for each, track in tracks.items() if self._is_eager(track))
        claims = {
            track_id: (track.decision.person_id, self._support(track.decision))
            for track_id, track in seen.items()
            if track.decision.person_id and track_id not in tracker.doubtful
        }
        named = _named_once(claims)
        return [
            self._identity(track.newest, self._person_or_stranger(track), track_id in named)
            for track_id, track in seen.items()
        ]

    def _learn(self, track: _Track, look: Look) -> None:
        if track.newest is not None:
            wipe([track.newest.look])
        vote = track.newest = self._vote(_without_image(look), track.rejected)
        track.tries += 1
        if not vote.is_good(self.config):
            return
        before = track.decision
        vote = vote._replace(look=_without_image(look))
        track.decide(decide(before.person_id, (*before.votes, vote), self.config))
        if track.decision.is_settled(self.config) or not before.votes:
            track.tries = 0
        track.looks = keep_best((*track.looks, *copies([look])), _LOOKS)
        if track.stranger_id in self._strangers and vote.choice(self.config) == NOBODY:
            self._strangers.add(track.stranger_id, look)

    def _count_again(self, track: _Track) -> None:
        votes = [self._vote(vote.look, track.rejected) for vote in track.decision.votes]
        track.decide(decide_again(track.decision.person_id, votes, self.config))
        if track.newest is not None:
            track.newest = self._vote(track.newest.look, track.rejected)
        track.tries = 0

    def _find_strangers(self, seen: Mapping[int, _Track]) -> None:
        """Give strangers among the faces of an image their ids, and note that they are there."""
        for _, track in sorted(seen.items()):
            if track.decision.person_id:
                self._strangers.forget(track.stranger_id)
            elif track.stranger_id in self._strangers:
                self._strangers.see(track.stranger_id)
            elif self.config.stranger_ttl and track.decision.is_stranger(self.config):
                others = {other.stranger_id for other in seen.values() if other is not track}
                looks = [vote.look for vote in track.decision.votes[-self.config.looks :]]
                threshold = self.config.threshold
                track.stranger_id = self._strangers.find(looks, threshold, others)

    def _forget_who_is_not_known(self) -> None:
        self._strangers.forget_all()
        for tracks in self._cameras.values():
            for track_id, track in tracks.items():
                if self.gallery.person(track.decision.person_id) is None:
                    track.wipe()
                    tracks[track_id] = _Track(rejected=track.rejected)

    def _vote(self, look: Look, rejected: Collection[str] = ()) -> Vote:
        found = self.gallery.nearest(look.embedding, 2 + len(rejected))
        return Vote(look, tuple(each for each in found if each.person_id not in rejected)[:2])

    def _is_eager(self, track: _Track) -> bool:
        """Whether to look at a face again soon."""
        is_done = track.decision.is_settled(self.config) and len(track.looks) >= _ENOUGH_LOOKS
        return not is_done and track.tries < _PATIENCE * self.config.looks

    def _person_or_stranger(self, track: _Track) -> str:
        """Id of the person or stranger that a face is taken for, certainly or not."""
        person_id, votes = track.decision
        if not person_id:
            person_id = self._likeness(votes[-1] if votes else track.newest)
        if not person_id and track.stranger_id in self._strangers:
            return track.stranger_id
        return person_id

    def _likeness(self, vote: Vote | None) -> str:
        """Id of the person that one look is like."""
        if vote is None or not vote.reaches_threshold(self.config):
            return NOBODY
        return vote.candidates[0].person_id

    @staticmethod
    def _support(decision: Decision) -> float:
        """Mean similarity of the votes that are most like the person that a face is."""
        own = (vote for vote in decision.votes if vote.is_like(decision.person_id))
        return fmean(vote.similarity for vote in own)

    def _identity(self, newest: Vote | None, person_id: str, is_named: bool) -> Identity:
        """The identity of a face.

        Args:
            newest: what the newest look says.
            person_id: of the person or stranger; `NOBODY` for none.
            is_named: whether it is certain that it is this person.
        """
        similarity = newest.similarity if newest and newest.candidates else 0.0
        margin = newest.margin if newest else 0.0
        person = self.gallery.person(person_id)
        if person is None:
            stranger_id = person_id if person_id in self._strangers else ""
            return Identity(IdentityState.UNKNOWN, stranger_id, "", similarity, margin)
        if not is_named:
            return Identity(IdentityState.TENTATIVE, person.id, "", similarity, margin)
        return Identity(IdentityState.KNOWN, person.id, person.name, similarity, margin)


def _named_once(claims: Mapping[int, tuple[str, float]]) -> set[int]:
    """Who of one image is named, so that nobody is named twice: the most similar one.

    Args:
        claims: by row or id, the id of a person and the similarity.
    """
    best: dict[str, int] = {}
    for key in sorted(claims, key=lambda each: (claims[each][1], -each)):
        best[claims[key][0]] = key
    return set(best.values())


def _without_image(look: Look) -> Look:
    """A copy of a look that votes, which needs no image."""
    (copy,) = copies([look._replace(crop=None)])
    return copy
