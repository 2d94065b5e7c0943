# SPDX-License-Identifier: Apache-2.0
"""Face identification among enrolled people and strangers: splits, searches, and figures.

A search is an image whose face is looked up in a gallery. It is mated if its person is enrolled.
DIR, the detection and identification rate (rank 1), is the share of mated searches whose most
similar person is the right one, at or above a threshold. FPIR, the false positive identification
rate, is the share of the others, those of strangers, that get anybody's name. Both as in NIST's
Face Recognition Technology Evaluation, part 2: Identification (Grother et al., NIST IR 8271).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from scrfd_ros.config import GalleryConfig
from scrfd_ros.errors import ScrfdError
from scrfd_ros.evaluation.plots import new_plot, write_plot
from scrfd_ros.evaluation.verification import Interval, wilson_interval
from scrfd_ros.images.files import list_images

FPIRS = (0.1, 0.01, 0.003)
"""The false positive identification rates at which DIR is reported."""

MARGINS = (0.0, 0.05, 0.1, 0.15, 0.2)
"""The margins among which one is suggested."""

SIZES = (1, 10, 100, 1000)
"""Numbers of enrolled people at which thresholds are compared."""

SUSPECTS = 5
"""How many of the most similar faces of different people are named."""

_RESAMPLES = 500
_CHUNK = 4096  # searches at once

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class PeopleSet:
    """Images of people.

    Attributes:
        names: of the people.
        paths: of N images.
        people: int64 [N], the row in `names` of the person in each image.
        repeated: images left out, as the same file is there already for the same person.
        under_two_names: images left out, as the same file is there for another person.
    """

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    people: Ints
    repeated: tuple[Path, ...]
    under_two_names: tuple[Path, ...]


@dataclass(frozen=True)
class Searches:
    """N searches, of all splits together.

    Attributes:
        people: int64 [N], who is searched.
        splits: int64 [N], in which split.
        mated: bool [N], whether that person is enrolled.
        named: int64 [N], the most similar person.
        scores: float64 [N], similarity to the most similar person.
        margins: float64 [N], by how much that is ahead of the second; infinite if nobody else is
            enrolled.
    """

    people: Ints
    splits: Ints
    mated: Bools
    named: Ints
    scores: Floats
    margins: Floats

    def ahead(self, margin: float) -> Floats:
        """The scores, but -1 for searches whose margin is smaller."""
        return np.where(self.margins >= margin, self.scores, -1.0)

    @property
    def right(self) -> Bools:
        """Whether the most similar person is the one who is searched, bool [N]."""
        right: Bools = self.mated & (self.named == self.people)
        return right


class Split(NamedTuple):
    """Who is enrolled by which images, and which images are searched; rows of images."""

    templates: Ints
    searches: Ints


@dataclass(frozen=True)
class OpenSetPoint:
    """A threshold and its rates.

    Attributes:
        wanted_fpir: the maximum FPIR that the threshold was chosen for; None if both were given.
        threshold: minimum similarity.
        margin: minimum distance to the second person.
        fpir, dir: 0 to 1.
        misnamed: share of the mated searches that get another enrolled person's name.
        dir_interval, fpir_interval: 95 % confidence, see `interval`.
    """

    wanted_fpir: float | None
    threshold: float
    margin: float
    fpir: float
    dir: float
    misnamed: float
    dir_interval: Interval
    fpir_interval: Interval


@dataclass(frozen=True)
class Identification:
    """All figures of the searches by one number of looks.

    Attributes:
        looks: of each search; they have to agree.
        mated_people, strangers: distinct people who are searched.
        mated_searches, non_mated_searches: of one split, the mean.
        points: for each of `FPIRS` with at least 1 / FPIR searches of strangers in each split.
        suggested: the point of the lowest of these FPIRs at the margin whose DIR is highest, its
            threshold rounded up to hundredths; None if there is none.
        configured: at the threshold and margin of the options.
    """

    looks: int
    mated_people: int
    strangers: int
    mated_searches: float
    non_mated_searches: float
    points: tuple[OpenSetPoint, ...]
    suggested: OpenSetPoint | None
    configured: OpenSetPoint


class GallerySize(NamedTuple):
    """What the number of enrolled people changes.

    Attributes:
        people: who are enrolled.
        fpir: at a threshold and margin that stay the same.
        threshold, dir: of the threshold, without a margin, that the wanted FPIR takes.
    """

    people: int
    fpir: float
    threshold: float
    dir: float


class Suspect(NamedTuple):
    """Two faces of different people that are very similar: one of the names may be wrong."""

    similarity: float
    first: Path
    second: Path


def read_people(folder: Path) -> PeopleSet:
    """The images in FOLDER/PERSON/IMAGE. Of files with equal content only one is used.

    A file that is there for two people is left out for both of them.

    Raises:
        ScrfdError: the folder cannot be read or has no sub-folders, or a sub-folder has no images.
    """
    try:
        folders = sorted(
            each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")
        )
    except OSError as error:
        raise ScrfdError(f"{folder}: cannot read: {error.strerror}") from error
    if not folders:
        raise ScrfdError(
            f"{folder}: has no sub-folders; expected one sub-folder for each person, named as the "
            f"person, with several images of that person"
        )
    owners: dict[bytes, set[int]] = {}
    found: list[tuple[Path, int, bytes]] = []
    for person, each in enumerate(folders):
        for path in list_images(each):
            try:
                digest = hashlib.sha256(path.read_bytes()).digest()
            except OSError as error:
                raise ScrfdError(f"{path}: cannot read: {error.strerror}") from error
            found.append((path, person, digest))
            owners.setdefault(digest, set()).add(person)
    paths, people, repeated, under_two = [], [], [], []
    used = set()
    for path, person, digest in found:
        if len(owners[digest]) > 1:
            under_two.append(path)
        elif digest in used:
            repeated.append(path)
        else:
            used.add(digest)
            paths.append(path)
            people.append(person)
    return PeopleSet(
        tuple(each.name for each in folders),
        tuple(paths),
        np.array(people, np.int64),
        tuple(repeated),
        tuple(under_two),
    )


def split_people(people: Ints, found: Bools, enrolled: float, templates: int, seed: int) -> Split:
    """A random split: some people are enrolled, all others are strangers.

    Enrolled can be who has two images with a face or more: one is searched at least, and up to
    `templates` others are enrolled. Searches of strangers in whose images no face is found are left
    out: nobody is there to be given a name. Those of enrolled people stay, and miss.

    Args:
        people: int64 [N], of each image.
        found: bool [N], whether there is a face.
        enrolled: share of the people who can be who are, 0 to 1.
        templates: maximum number of images that a person is enrolled by.
        seed: of the random draw.

    Raises:
        ScrfdError: nobody can be enrolled, or nobody is left who is not.
    """
    rng = np.random.default_rng(seed)
    distinct, counts = np.unique(people[found], return_counts=True)
    able = distinct[counts >= 2]
    if not len(able):
        raise ScrfdError(
            "nobody has two images with a face: one to be enrolled by, another one to be searched"
        )
    chosen = rng.permutation(able)[: max(1, round(enrolled * len(able)))]
    if len(chosen) == len(distinct):
        raise ScrfdError(
            f"all {len(distinct)} people would be enrolled, and nobody would be a stranger: add "
            f"people, who may have one image each, or choose a smaller share of enrolled people"
        )
    rows = []
    for person in chosen:
        own = rng.permutation(np.flatnonzero(found & (people == person)))
        rows.append(own[: min(templates, len(own) - 1)])
    taken = np.concatenate(rows)
    searches = np.flatnonzero(found | np.isin(people, chosen))
    return Split(taken, np.setdiff1d(searches, taken))


def search(
    embeddings: NDArray[np.float32], people: Ints, split: Split, number: int = 0
) -> Searches:
    """Look all searched images up among the templates; similarity to a person is to the nearest.

    Args:
        embeddings: float32 [N, D], rows of unit length, or of zeros if no face was found: the score
            is -1 then.
        people: int64 [N].
        number: of the split.
    """
    order = split.templates[np.argsort(people[split.templates], kind="stable")]
    enrolled, starts = np.unique(people[order], return_index=True)
    own = people[split.searches]
    count = len(split.searches)
    named = np.empty(count, np.int64)
    scores, margins = np.empty(count), np.full(count, np.inf)
    for start in range(0, count, _CHUNK):
        part = slice(start, start + _CHUNK)
        cosines = embeddings[split.searches[part]] @ embeddings[order].T
        similar = np.maximum.reduceat(cosines, starts, axis=1)
        named[part] = enrolled[similar.argmax(axis=1)]
        scores[part] = similar.max(axis=1)
        if len(enrolled) > 1:
            first_two = np.partition(similar, -2, axis=1)[:, -2:]
            margins[part] = first_two[:, 1].astype(np.float64) - first_two[:, 0]
    scores[~embeddings[split.searches].any(axis=1)] = -1.0
    mated = np.isin(own, enrolled)
    return Searches(own, np.full(count, number), mated, named, scores, margins)


def joined(searches: Sequence[Searches]) -> Searches:
    """The searches of several splits as one."""
    return Searches(
        *(
            np.concatenate([getattr(each, name) for each in searches])
            for name in ("people", "splits", "mated", "named", "scores", "margins")
        )
    )


def agreed(searches: Searches, looks: int) -> Searches:
    """Searches by several images of one person, as a robot sees a face several times.

    The images of each person in each split are taken in groups of `looks`; what is left over is
    dropped. A group has the lowest score and margin of its images, or the score -1 if they name
    different people: as if each of them had to be over the threshold.
    """
    order = np.lexsort((searches.people, searches.splits))
    keys = np.stack((searches.splits[order], searches.people[order]))
    starts = np.flatnonzero(np.append(True, (np.diff(keys) != 0).any(axis=0)))
    ends = np.append(starts[1:], len(order))
    groups = [
        order[start + looks * number : start + looks * (number + 1)]
        for start, end in zip(starts, ends, strict=True)
        for number in range((end - start) // looks)
    ]
    rows = np.array(groups, np.int64).reshape(-1, looks)
    first = rows[:, 0]
    named = searches.named[rows]
    scores = searches.scores[rows].min(axis=1)
    return Searches(
        searches.people[first],
        searches.splits[first],
        searches.mated[first],
        named[:, 0],
        np.where((named == named[:, :1]).all(axis=1), scores, -1.0),
        searches.margins[rows].min(axis=1),
    )


def searches_needed(fpir: float) -> int:
    """Minimum number of searches of strangers to report an FPIR: one of them is that rate."""
    return math.ceil(1 / fpir)


def threshold_at(strangers: Floats, fpir: float) -> float:
    """The lowest threshold that keeps the FPIR at or below `fpir`.

    Args:
        strangers: float64 [N], scores of non-mated searches.
    """
    falling = np.sort(strangers)[::-1]
    allowed = math.floor(fpir * len(falling) + 1e-9)
    return -1.0 if allowed >= len(falling) else float(np.nextafter(falling[allowed], np.inf))


def open_set_point(
    searches: Searches, threshold: float, margin: float, wanted_fpir: float | None = None
) -> OpenSetPoint:
    """The rates at a threshold and margin, with their 95 % confidence intervals.

    Images of one person resemble each other, and splits share images, so searches are not
    independent. The intervals are from a bootstrap over people (percentiles of 500 resamples): a
    person is drawn with all searches. If `wanted_fpir` is given, each resample has the threshold
    that its own strangers ask for, so the interval of the DIR includes that uncertainty. A rate of
    0 or 1 does not vary in resamples: its interval is Wilson's for as many cases as people.

    Args:
        searches: at least one that is mated, and one that is not.
    """
    scores, mated, right = searches.ahead(margin), searches.mated, searches.right
    accepted = scores >= threshold
    count = int(searches.people.max()) + 1
    rng = np.random.default_rng(0)
    present = np.unique(searches.people)
    drawn = rng.multinomial(len(present), np.full(len(present), 1 / len(present)), _RESAMPLES)
    weights = np.zeros((_RESAMPLES, count))
    weights[:, present] = drawn

    def resampled(hits: Bools, of: Bools) -> Floats:
        parts = (np.bincount(searches.people[rows], minlength=count) for rows in (hits, of))
        hit, total = (weights @ part for part in parts)
        return hit[total > 0] / total[total > 0]

    fpirs = resampled(~mated & accepted, ~mated)
    if wanted_fpir is None:
        dirs = resampled(right & accepted, mated)
    else:
        dirs = _resampled_dirs(searches, scores, weights, wanted_fpir)
    dir_, fpir = float((right & accepted)[mated].mean()), float(accepted[~mated].mean())
    return OpenSetPoint(
        wanted_fpir,
        threshold,
        margin,
        fpir,
        dir_,
        float((~right & accepted)[mated].mean()),
        _interval(dir_, dirs, len(np.unique(searches.people[mated]))),
        _interval(fpir, fpirs, len(np.unique(searches.people[~mated]))),
    )


def _resampled_dirs(
    searches: Searches, scores: Floats, weights: Floats, wanted_fpir: float
) -> Floats:
    """DIR of each resample at its own threshold for the FPIR."""
    strangers = np.flatnonzero(~searches.mated)
    strangers = strangers[np.argsort(-scores[strangers])]
    hits = np.flatnonzero(searches.right)
    hits = hits[np.argsort(-scores[hits])]
    falling, of_hits = -scores[strangers], -scores[hits]
    mated = np.bincount(searches.people[searches.mated], minlength=weights.shape[1])
    dirs = []
    for weight in weights:
        total = weight @ mated
        passed = weight[searches.people[strangers]].cumsum()
        if not total or not passed[-1]:
            continue
        first_too_many = np.searchsorted(passed, wanted_fpir * passed[-1] + 1e-9, side="right")
        above = np.searchsorted(of_hits, falling[first_too_many], side="left")
        dirs.append(weight[searches.people[hits[:above]]].sum() / total)
    return np.array(dirs)


def _interval(rate: float, resampled: Floats, people: int) -> Interval:
    if rate in (0.0, 1.0):
        return wilson_interval(round(rate * people), people)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Interval(float(low), float(high))


def evaluate(searches: Searches, looks: int, config: GalleryConfig) -> Identification | None:
    """All figures of searches by a number of looks; None if there are none of one kind.

    Args:
        searches: by one look, of all splits.
        looks: how many have to agree.
        config: has the threshold and the margin of `Identification.configured`.
    """
    of = agreed(searches, looks)
    if of.mated.all() or not of.mated.any():
        return None
    splits = len(np.unique(searches.splits))
    strangers = np.bincount(of.splits[~of.mated], minlength=splits)
    possible = [fpir for fpir in FPIRS if strangers.min() >= searches_needed(fpir)]
    points = tuple(
        open_set_point(of, threshold_at(of.ahead(0)[~of.mated], fpir), 0.0, fpir)
        for fpir in possible
    )
    return Identification(
        looks,
        len(np.unique(of.people[of.mated])),
        len(np.unique(of.people[~of.mated])),
        float(of.mated.sum() / splits),
        float((~of.mated).sum() / splits),
        points,
        suggested_point(of, possible[-1]) if possible else None,
        open_set_point(of, config.threshold, config.margin),
    )


def suggested_point(searches: Searches, fpir: float) -> OpenSetPoint:
    """The threshold, in hundredths, and the margin of `MARGINS` with the highest DIR at an FPIR.

    Of equally good margins the smallest.
    """
    best = (-1.0, 0.0, 0.0)
    for margin in MARGINS:
        scores = searches.ahead(margin)
        needed = max(threshold_at(scores[~searches.mated], fpir), 0.0)
        threshold = math.ceil(100 * needed) / 100
        rate = float((searches.right & (scores >= threshold))[searches.mated].mean())
        if rate > best[0]:
            best = (rate, threshold, margin)
    return open_set_point(searches, best[1], best[2])


def by_gallery_size(
    embeddings: NDArray[np.float32],
    people: Ints,
    splits: Sequence[Split],
    fpir: float,
    config: GalleryConfig,
) -> list[GallerySize]:
    """What changes if fewer of the enrolled people are; the strangers stay the same.

    Args:
        embeddings: float32 [N, D], rows of unit length.
        people: int64 [N].
        fpir: wanted, for thresholds that change.
        config: has the threshold and the margin that stay the same.
    """
    enrolled = [_in_order(people[split.templates]) for split in splits]
    largest = min(map(len, enrolled))
    result = []
    for size in (*(each for each in SIZES if each < largest), largest):
        searches = []
        for number, (split, order) in enumerate(zip(splits, enrolled, strict=True)):
            kept = np.isin(people[split.templates], order[:size])
            strangers = ~np.isin(people[split.searches], order[size:])
            smaller = Split(split.templates[kept], split.searches[strangers])
            searches.append(search(embeddings, people, smaller, number))
        of = joined(searches)
        named = of.ahead(config.margin) >= config.threshold
        needed = threshold_at(of.scores[~of.mated], fpir)
        result.append(
            GallerySize(
                size,
                float(named[~of.mated].mean()),
                needed,
                float((of.right & (of.scores >= needed))[of.mated].mean()),
            )
        )
    return result


def _in_order(values: Ints) -> Ints:
    """The distinct values in the order of their first appearance."""
    distinct, first = np.unique(values, return_index=True)
    return distinct[np.argsort(first)]


def suspects(embeddings: NDArray[np.float32], people: Ints, paths: Sequence[Path]) -> list[Suspect]:
    """The most similar faces of different people, the most similar first.

    Args:
        embeddings: float32 [N, D], rows of unit length, or of zeros if no face was found.
        people: int64 [N].
        paths: of the N images.
    """
    rows = np.flatnonzero(embeddings.any(axis=1))
    vectors, owners = embeddings[rows], people[rows]
    found: list[Suspect] = []
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        cosines = vectors[part] @ vectors.T
        cosines[owners[part, None] >= owners] = -2  # each pair once
        nearest = np.argpartition(-cosines, min(SUSPECTS, cosines.size) - 1, axis=None)
        for place in nearest[:SUSPECTS].tolist():
            first, second = divmod(place, len(rows))
            similarity = float(cosines[first, second])
            if similarity > -2:
                pair = (paths[rows[start + first]], paths[rows[second]])
                found.append(Suspect(similarity, *pair))
    return sorted(found, reverse=True)[:SUSPECTS]


def plot_dir(path: Path, title: str, searches: Searches, looks: Sequence[int]) -> None:
    """Plot DIR over FPIR as PNG, a line for each number of looks, with a logarithmic FPIR.

    It begins at the FPIR of one search of a stranger in a split, at 0.5 if there is only one.

    Raises:
        ScrfdError: Matplotlib is missing, or the file cannot be written.
    """
    axes = new_plot(title, "false positive identification rate (FPIR)", "DIR, rank 1")
    left, bottom = 0.5, 1.0
    for number in looks:
        of = agreed(searches, number)
        falling = np.sort(of.scores[~of.mated])[::-1]
        hits = np.sort(of.scores[of.right])
        fpirs = np.arange(len(falling)) / len(falling)
        dirs = (len(hits) - np.searchsorted(hits, falling, side="right")) / of.mated.sum()
        label = "1 look" if number == 1 else f"{number} looks that agree"
        axes.step(fpirs, dirs, where="post", label=label)
        one = len(np.unique(of.splits)) / len(falling)
        left, bottom = min(left, one), min(bottom, dirs[fpirs <= one].max())
    bottom = math.floor(20 * bottom - 0.5) / 20
    axes.set(xscale="log", xlim=(left, 1), ylim=(max(bottom, 0), 1 + (1 - bottom) / 20))
    axes.legend(loc="lower right")
    write_plot(path, axes)


def searched(embeddings: NDArray[np.float32], people: Ints, splits: Sequence[Split]) -> Searches:
    """The searches of all splits. Progress is shown on a terminal."""
    return joined(
        [
            search(embeddings, people, split, number)
            for number, split in enumerate(tqdm(splits, "searching", leave=False, disable=None))
        ]
    )
