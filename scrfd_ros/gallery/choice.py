# SPDX-License-Identifier: Apache-2.0
"""Which looks at a face become templates, and when an enrollment is refused."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.config import GalleryConfig
from scrfd_ros.errors import GalleryError
from scrfd_ros.gallery.gallery import Gallery, checked_name
from scrfd_ros.gallery.people import Look, Person, Template

MAX_TEMPLATES = 8
"""Maximum number of templates that one enrollment adds: see docs/identification.md."""

_MOST_LOOKS = 1000  # the best ones; comparing all pairs takes memory
_ONE_PERSON = 2 / 3  # of the looks have to show one person
_OTHER_POSE = 15.0  # degrees from which two poses count as different
_SAME_IMAGE = 0.9999  # cosine; another photograph of the person stays below
_CANDIDATES = 5  # people who a look is compared with


class Enrolled(NamedTuple):
    """What an enrollment did.

    Attributes:
        person: who was enrolled; of somebody who is merged into another, that one.
        is_new: the person was not there before.
        added: the looks that became templates, the best first.
        poor: looks that were left out for their quality.
        unlike: looks that were left out as they seem to show somebody else.
        again: looks that were left out as the person has a template of the same image.
    """

    person: Person
    is_new: bool
    added: Sequence[Look]
    poor: Sequence[Look]
    unlike: Sequence[Look]
    again: Sequence[Look]


def enroll(
    gallery: Gallery,
    name: str,
    looks: Sequence[Look],
    *,
    source: str,
    consent: str = "",
    expires: float | None = None,
    force: bool = False,
    config: GalleryConfig = GalleryConfig(),
) -> Enrolled:
    """Enroll a person by the best of the looks, after checks.

    Left out are looks of less than `config.min_quality`, looks at somebody else, and images that
    are there already. Of the others, `chosen` takes the best in different poses. What was rejected
    as not the person is no negative example any more, if it is among the looks.

    Args:
        gallery: where to.
        name: of the person; templates are added if somebody has it.
        looks: at one person.
        source: where looks are from that do not say it themselves.
        consent, expires: of a new person, see `Person`.
        force: take looks that do not seem to show one person, or show somebody who is enrolled
            under another name, or are not like the person of this name.
        config: `threshold` is the similarity from which two faces are one person's.

    Raises:
        GalleryError: the name cannot be used, no look is good enough, or the looks are refused for
            what `force` allows; with the similarity, and what to do.
    """
    name = checked_name(name)
    good, poor = _by_quality(looks, config.min_quality)
    unlike: list[Look] = []
    if not force:
        good, unlike = _of_one_person(good, config.threshold)
    known = _called(gallery, name)
    again: list[Look] = []
    if not force:
        _ensure_nobody_else(gallery, known, good, config.threshold)
    if known is not None:
        templates = _templates(gallery, known)
        there = [each for each in templates if not each.is_negative]
        seen = good
        if there:
            cosines = (_embeddings(good) @ _embeddings(there).T).max(axis=1)
            if not force:
                _ensure_like(known, cosines.tolist(), config.threshold)
            again = [look for look, each in zip(good, cosines, strict=True) if each > _SAME_IMAGE]
            good = [look for look, each in zip(good, cosines, strict=True) if each <= _SAME_IMAGE]
        _take_back(gallery, [each for each in templates if each.is_negative], seen)
    added = chosen(good)
    if known is not None and not added:
        return Enrolled(known, False, added, poor, unlike, again)
    person = gallery.enroll(name, added, source=source, consent=consent, expires=expires)
    return Enrolled(known or person, known is None, added, poor, unlike, again)


def chosen(looks: Sequence[Look], count: int = MAX_TEMPLATES) -> list[Look]:
    """The best looks by quality, spread over poses; the same image counts once.

    The best look comes first. Each further one is that with the greatest quality, times its
    distance in yaw and pitch to the nearest one before, up to 15 degrees.

    Args:
        looks: at one person.
        count: maximum number.
    """
    left = sorted(looks, key=lambda each: -each.quality)[:_MOST_LOOKS]
    found: list[Look] = []
    if not left:
        return found
    embeddings = _embeddings(left)
    qualities = np.array([each.quality for each in left])
    poses = np.array([(each.yaw, each.pitch) for each in left])
    distances = np.full(len(left), _OTHER_POSE)
    is_left = np.ones(len(left), np.bool_)
    while is_left.any() and len(found) < count:
        # Where poses are equal, the quality alone decides.
        worth = qualities * (distances + 1e-3)
        row = int(np.where(is_left, worth, -1.0).argmax())
        found.append(left[row])
        is_left &= embeddings @ embeddings[row] <= _SAME_IMAGE
        is_left[row] = False
        distances = np.minimum(distances, np.hypot(*(poses - poses[row]).T))
    return found


def _by_quality(looks: Sequence[Look], min_quality: float) -> tuple[list[Look], list[Look]]:
    """The looks that are good enough, best first, and the others.

    Raises:
        GalleryError: none is.
    """
    ordered = sorted(looks, key=lambda each: -each.quality)
    good = [each for each in ordered if each.quality >= min_quality]
    if not good:
        best = f": the best has {ordered[0].quality:.2f}" if ordered else ""
        raise GalleryError(
            f"no look at the face is good enough{best}, and a quality of {min_quality:.2f} is "
            f"needed (gallery.min_quality); show the face larger, sharper, from the front, in even "
            f"light"
        )
    return good[:_MOST_LOOKS], ordered[len(good) :]


def _of_one_person(looks: Sequence[Look], threshold: float) -> tuple[list[Look], list[Look]]:
    """The looks that are like each other, and the others, both in their order.

    Raises:
        GalleryError: fewer than two thirds are.
    """
    embeddings = _embeddings(looks)
    cosines = embeddings @ embeddings.T
    alike = cosines >= threshold
    # From the look that is like the most others, then by the mean: it varies less than one look.
    mask = alike[np.argmax(alike.sum(axis=1) + cosines.mean(axis=1))]
    for _ in range(3):
        mean = embeddings[mask].mean(axis=0)
        mask = embeddings @ (mean / np.linalg.norm(mean)) >= threshold
    if mask.sum() < _ONE_PERSON * len(looks):
        alike_count = int(mask.sum())
        group = f"{alike_count} of {len(looks)} are like each other, " if alike_count > 1 else ""
        raise GalleryError(
            f"the looks do not show one person: {group}the lowest similarity is "
            f"{cosines.min():.2f}, and {threshold:.2f} is needed (gallery.threshold); give looks "
            f"at one person, or force it if they are"
        )
    return (
        [look for look, like in zip(looks, mask, strict=True) if like],
        [look for look, like in zip(looks, mask, strict=True) if not like],
    )


def _ensure_nobody_else(
    gallery: Gallery, known: Person | None, looks: Sequence[Look], threshold: float
) -> None:
    """Check that most looks are not like somebody else in the gallery.

    Raises:
        GalleryError: they are; names the person.
    """
    similarities: dict[str, list[float]] = {}
    for look in looks[: 2 * MAX_TEMPLATES]:
        for candidate in gallery.nearest(look.embedding, _CANDIDATES):
            similarities.setdefault(candidate.person_id, []).append(candidate.similarity)
    compared = min(len(looks), 2 * MAX_TEMPLATES)
    found = {
        person_id: statistics.median(each + [-1.0] * (compared - len(each)))
        for person_id, each in similarities.items()
    }
    best = max(found, key=lambda each: found[each], default=None)
    if best is None or found[best] < threshold or (known is not None and best == known.id):
        return
    person = gallery.person(best)
    if person is not None:
        raise GalleryError(
            f"this is {person.name} already: similarity {found[best]:.2f}, from {threshold:.2f} on "
            f"it is one person (gallery.threshold); enroll the looks under that name, or force it "
            f"if these are two people"
        )


def _ensure_like(person: Person, similarities: Sequence[float], threshold: float) -> None:
    """Check that most looks are like a person.

    Raises:
        GalleryError: they are not.
    """
    similarity = statistics.median(similarities)
    if similarity < threshold:
        raise GalleryError(
            f"{person.name} is enrolled already, and this face is not like that person: similarity "
            f"{similarity:.2f}, {threshold:.2f} is needed (gallery.threshold); give another name "
            f"to another person, or force it if it is the same one"
        )


def _called(gallery: Gallery, name: str) -> Person | None:
    """The person of this name; of the name of somebody who is merged into another, that one."""
    merged = gallery.merged_names()
    for each in gallery.people:
        if each.name == name or name in merged.get(each.id, ()):
            return each
    return None


def _take_back(gallery: Gallery, rejected: Sequence[Template], looks: Sequence[Look]) -> None:
    """Remove the negative examples of a person who it is after all."""
    if rejected:
        cosines = (_embeddings(rejected) @ _embeddings(looks).T).max(axis=1)
        same = [each.id for each, it in zip(rejected, cosines, strict=True) if it > _SAME_IMAGE]
        if same:
            gallery.remove(same)


def _embeddings(looks: Sequence[Look | Template]) -> NDArray[np.float32]:
    return np.array([each.embedding for each in looks], np.float32)


def _templates(gallery: Gallery, person: Person) -> list[Template]:
    """The templates of a person and of those merged into it, with negative examples."""
    own = [person, *gallery.merged(person.id)]
    return [template for each in own for template in gallery.templates_of(each)]
