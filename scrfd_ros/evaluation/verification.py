# SPDX-License-Identifier: Apache-2.0
"""Face verification, whether two images show one person: pairs, their scores, and figures.

A score is the cosine of two embeddings, and a pair is accepted if its score is at or above a
threshold. FAR, the false accept rate, is the share of accepted pairs among those of different
people; TAR, the true accept rate, among those of one person.

The protocol is that of Labeled Faces in the Wild (LFW): Huang et al., University of Massachusetts
TR 07-49, 2007, http://vis-www.cs.umass.edu/lfw.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from scrfd_ros.arrays import check_array
from scrfd_ros.errors import ImageError, ModelError, ScrfdError
from scrfd_ros.evaluation.plots import new_plot, write_plot
from scrfd_ros.faces import Faces
from scrfd_ros.images.files import read_image
from scrfd_ros.pipeline import FacePipeline
from scrfd_ros.recognition.alignment import CROP_SIZE
from scrfd_ros.recognition.arcface import ArcFace

FARS = (1e-2, 1e-3, 1e-4)
"""The false accept rates at which TAR is reported."""

FOLDS = 10
"""Number of folds for pairs whose file does not define them."""

NO_FACE = -1.0
"""Score of a pair with an image in which no face is found: the lowest cosine, so it is rejected.

Leaving such pairs out would reward a detector that misses difficult faces.
"""

_CSV_HEADER = ["picture_a", "picture_b", "same"]
_LFW_ROWS = {
    True: (r"(\S+)\s+(\d{1,9})\s+(\d{1,9})", "NAME number number"),
    False: (r"(\S+)\s+(\d{1,9})\s+(\S+)\s+(\d{1,9})", "NAME number NAME number"),
}
"""Lines of pairs.txt for a pair of one person, and for one of different people."""

_MAX_SHOWN = 3  # files in an error

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Pairs:
    """N pairs of images.

    Attributes:
        images: paths of the distinct images, relative to their folder.
        rows: int64 [N, 2], indices of the two images of each pair.
        same: bool [N], whether they show one person.
        folds: int64 [N], the fold of each pair.
    """

    images: tuple[str, ...]
    rows: NDArray[np.int64]
    same: Bools
    folds: NDArray[np.int64]


class Roc(NamedTuple):
    """Receiver operating characteristic: rates by threshold, from none accepted to all.

    Attributes:
        thresholds: float64 [T], infinity, then every distinct score from the highest down.
        far, tar: float64 [T], 0 to 1.
    """

    thresholds: Floats
    far: Floats
    tar: Floats


class Interval(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and its rates.

    Attributes:
        wanted_far: the maximum FAR that it was chosen for.
        threshold: minimum cosine of an accepted pair; infinity if none may be accepted.
        far, tar: 0 to 1.
        false_accepts: number of accepted pairs of different people.
        far_interval: 95 % confidence interval of the FAR, see `wilson_interval`.
    """

    wanted_far: float
    threshold: float
    far: float
    tar: float
    false_accepts: int
    far_interval: Interval


@dataclass(frozen=True)
class Accuracy:
    """Share of the pairs that are judged correctly with the best threshold of the other folds.

    Attributes:
        mean: over the folds.
        standard_error: of the mean, as LFW defines it: sample deviation / sqrt(number of folds).
        thresholds: of each fold.
    """

    mean: float
    standard_error: float
    thresholds: tuple[float, ...]


@dataclass(frozen=True)
class Verification:
    """All figures of one set of pairs.

    Attributes:
        accuracy: None if there are fewer than `FOLDS` pairs of one kind.
        points: for each of `FARS` with at least 1 / FAR pairs of different people.
        recommended: the last of them, its threshold rounded up to hundredths; None if there is no
            such point, or its threshold is infinite.
    """

    same_pairs: int
    different_pairs: int
    area_under_curve: float
    equal_error_rate: float
    accuracy: Accuracy | None
    points: tuple[OperatingPoint, ...]
    recommended: OperatingPoint | None

    def as_json(self) -> dict[str, object]:
        """All attributes; None for an infinite threshold, which JSON cannot represent."""
        content = asdict(self)
        for point in content["points"]:
            if math.isinf(point["threshold"]):
                point["threshold"] = None
        if self.accuracy is not None:
            content["accuracy"]["thresholds"] = [
                None if math.isinf(threshold) else threshold
                for threshold in self.accuracy.thresholds
            ]
        return content


def read_pairs(path: Path) -> Pairs:
    """Read a list of pairs: CSV if the file's name ends in .csv, else in the format of LFW.

    CSV: picture_a, picture_b, same (0 or 1); a header with these names is optional. The pairs of
    each kind are dealt out to `FOLDS` folds in turns.

    LFW: the number of folds and of pairs of each kind in a fold; then for each fold the pairs of
    one person (NAME, number, number) and those of different people (NAME, number, NAME, number),
    separated by tabs. The images are NAME/NAME_0001.jpg.

    Raises:
        ScrfdError: the file cannot be read, is malformed (names the line), or has pairs of one
            kind only.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ScrfdError(f"{path}: cannot read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ScrfdError(f"{path}: not a text file: {error}") from error
    if path.suffix.lower() == ".csv":
        names, same = _csv_pairs(path, lines)
        folds = _dealt_out(same)
    else:
        names, same, folds = _lfw_pairs(path, lines)
    _refuse_one_kind(same)
    images = {name: None for pair in names for name in pair}
    row_of = {name: row for row, name in enumerate(images)}
    rows = np.array([[row_of[name] for name in pair] for pair in names], np.int64)
    return Pairs(tuple(images), rows, same, folds)


def _refuse_one_kind(same: Bools) -> None:
    if same.all() or not same.any():
        kind = "different people" if same.all() else "one person"
        raise ScrfdError(f"no pair of {kind} among {len(same)}: verification needs both kinds")


def _csv_pairs(path: Path, lines: Sequence[str]) -> tuple[list[tuple[str, str]], Bools]:
    names, same = [], []
    reader = csv.reader(lines, skipinitialspace=True)
    try:
        for cells in reader:
            row = [cell.strip() for cell in cells]
            if not row or (reader.line_num == 1 and row == _CSV_HEADER):
                continue
            if len(row) != 3 or not all(row) or row[2] not in ("0", "1"):
                raise ScrfdError(
                    f"{path}, line {reader.line_num}: expected {', '.join(_CSV_HEADER)} (0 or 1), "
                    f"found {','.join(cells)!r}"
                )
            names.append((row[0], row[1]))
            same.append(row[2] == "1")
    except csv.Error as error:  # an unclosed quotation mark makes one field of the rest
        raise ScrfdError(f"{path}, line {reader.line_num}: {error}") from error
    if not names:
        raise ScrfdError(f"{path}: no pairs in it")
    return names, np.array(same)


def _dealt_out(same: Bools) -> NDArray[np.int64]:
    folds = np.empty(len(same), np.int64)
    for kind in (False, True):
        folds[same == kind] = np.arange((same == kind).sum()) % FOLDS
    return folds


def _lfw_pairs(
    path: Path, lines: Sequence[str]
) -> tuple[list[tuple[str, str]], Bools, NDArray[np.int64]]:
    try:
        folds, size = (int(word) for word in (lines or [""])[0].split())
    except ValueError:
        folds = size = 0
    if folds < 2 or size < 1:
        raise ScrfdError(
            f"{path}, line 1: expected the number of folds and of pairs of each kind in a fold, "
            f"such as 10 300, found {(lines or [''])[0]!r}. The name of a CSV file has to end in "
            f".csv"
        )
    rows = "\n".join(lines[1:]).rstrip().splitlines()
    if len(rows) != 2 * folds * size:
        raise ScrfdError(
            f"{path}, line 1: {folds} folds of 2 x {size} pairs, but {len(rows)} lines follow"
        )
    number = np.arange(len(rows))
    same = number // size % 2 == 0
    names = []
    for line, (row, one_person) in enumerate(zip(rows, same, strict=True), start=2):
        pattern, expected = _LFW_ROWS[one_person]
        match = re.fullmatch(pattern, row.strip())
        if match is None:
            raise ScrfdError(f"{path}, line {line}: expected {expected}, found {row!r}")
        first, a, *second, b = match.groups()
        names.append((_lfw_image(first, a), _lfw_image(second[0] if second else first, b)))
    return names, same, number // (2 * size)


def _lfw_image(name: str, number: str) -> str:
    return f"{name}/{name}_{int(number):04}.jpg"


def find_images(folder: Path, pairs: Pairs) -> list[Path]:
    """The files of the images.

    Raises:
        ScrfdError: some are missing.
    """
    paths = [folder / name for name in pairs.images]
    try:
        there = [path.is_file() for path in paths]
    except OSError as error:
        raise ScrfdError(f"{folder}: cannot look for the images: {error}") from error
    missing = [name for name, is_there in zip(pairs.images, there, strict=True) if not is_there]
    if missing:
        more = ", ..." if len(missing) > _MAX_SHOWN else ""
        raise ScrfdError(
            f"{folder}: lacks {len(missing)} of the {len(paths)} images of the pairs: "
            f"{', '.join(missing[:_MAX_SHOWN])}{more}"
        )
    return paths


def recognizer_of(pipeline: FacePipeline) -> ArcFace:
    """The recognizer of a pipeline.

    Raises:
        ModelError: it computes no embeddings.
    """
    if pipeline.recognizer is None:
        raise ModelError("verification needs a recognizer, and a detector that finds landmarks")
    return pipeline.recognizer


def embed_images(
    pipeline: FacePipeline, paths: Sequence[Path], aligned: bool
) -> tuple[NDArray[np.float32], Bools]:
    """Embeddings of the person in each image, see `main_face`. Progress is shown on a terminal.

    Args:
        aligned: the images are aligned faces, as of `scrfd_ros.recognition.alignment`.

    Returns:
        embeddings: float32 [N, D], rows of unit length; zeros if there is no face.
        found: bool [N], whether there is a face, of at least the pipeline's minimum quality.

    Raises:
        ModelError: the pipeline computes no embeddings.
        ImageError: an image cannot be read, or is not of the size of an aligned face.
    """
    recognizer = recognizer_of(pipeline)
    embeddings = np.zeros((len(paths), recognizer.dimensions), np.float32)
    found = np.zeros(len(paths), np.bool_)
    for row, path in enumerate(tqdm(paths, "embedding", leave=False, disable=None)):
        image = read_image(path)
        height, width = image.shape[:2]
        if aligned:
            if (width, height) != (CROP_SIZE, CROP_SIZE):
                raise ImageError(
                    f"{path}: {width}x{height} pixels; aligned faces have {CROP_SIZE}x{CROP_SIZE}"
                )
            embeddings[row] = recognizer.embed(image[None])[0][0]
            found[row] = True
            continue
        faces = pipeline(image).faces
        if faces.embeddings is not None and len(faces):
            main = main_face(faces, width, height)
            embeddings[row] = faces.embeddings[main]
            found[row] = faces.embedded[main]
    return embeddings, found


def main_face(faces: Faces, width: int, height: int) -> int:
    """Index of the main face: it has the greatest area - 2 * (distance from the center)^2.

    LFW is usually aligned by this rule (align_dataset_mtcnn.py of facenet, align_lfw.py of
    insightface).

    Args:
        width, height: of the image, pixels.
    """
    offsets = faces.centers - np.array([width, height]) / 2
    return int(np.argmax(faces.sizes.prod(axis=1) - 2 * (offsets**2).sum(axis=1)))


def score_pairs(pairs: Pairs, embeddings: NDArray[np.float32], found: Bools) -> Floats:
    """Cosine of each pair, float64 [N]; `NO_FACE` if one of its images has no face.

    Args:
        embeddings, found: of `pairs.images`, from `embed_images`.

    Raises:
        ValueError: one of them has another shape or type.
    """
    check_array(embeddings, "embeddings", (len(pairs.images), None), None)
    check_array(found, "found", (len(pairs.images),), np.bool_)
    first, second = pairs.rows.T
    cosines = np.einsum("nd,nd->n", embeddings[first], embeddings[second], dtype=np.float64)
    return np.where(found[first] & found[second], cosines, NO_FACE)


def _check_pairs(scores: Floats, same: Bools) -> None:
    # With integers, 0 or 1, ~same would select other rows.
    check_array(scores, "scores", (None,), None)
    check_array(same, "same", (len(scores),), np.bool_)


def roc(scores: Floats, same: Bools) -> Roc:
    """Rates at every threshold that changes them, as roc_curve of scikit-learn without dropping
    points.

    Args:
        scores: float64 [N], finite.
        same: bool [N].

    Raises:
        ScrfdError: a score is not finite, or all pairs are of one kind.
        ValueError: one of them has another shape or type, or they differ in length.
    """
    _check_pairs(scores, same)
    if not np.isfinite(scores).all():
        count = int((~np.isfinite(scores)).sum())
        raise ScrfdError(
            f"{count} of {len(scores)} scores are not finite: the recognizer gives no usable "
            f"embeddings"
        )
    _refuse_one_kind(same)
    thresholds, ranks = np.unique(scores, return_inverse=True)
    rates = []
    for rows in (~same, same):
        accepted = np.bincount(ranks[rows], minlength=len(thresholds))[::-1].cumsum()
        rates.append(np.concatenate(([0.0], accepted / accepted[-1])))
    return Roc(np.concatenate(([np.inf], thresholds[::-1])), *rates)


def area_under(curve: Roc) -> float:
    """Area under the ROC by trapezoids.

    It is the probability that a pair of one person scores higher than one of different people,
    with ties counted half.
    """
    heights = (curve.tar[1:] + curve.tar[:-1]) / 2
    return float((np.diff(curve.far) * heights).sum())


def equal_error_rate(curve: Roc) -> float:
    """FAR at which FAR = 1 - TAR, on straight lines between the points of the ROC."""
    gaps = curve.far + curve.tar - 1  # rises from -1 to 1
    after = int(np.argmax(gaps >= 0))
    part = -gaps[after - 1] / (gaps[after] - gaps[after - 1])
    return float(curve.far[after - 1] + part * (curve.far[after] - curve.far[after - 1]))


def threshold_at(curve: Roc, far: float) -> float:
    """The lowest score that, as a threshold, keeps the FAR at or below `far`; else infinity."""
    return float(curve.thresholds[np.searchsorted(curve.far, far, side="right") - 1])


def operating_point(
    scores: Floats, same: Bools, threshold: float, wanted_far: float
) -> OperatingPoint:
    """The rates of accepting scores at or above a threshold.

    Raises:
        ValueError: as `roc`.
    """
    _check_pairs(scores, same)
    accepted = scores >= threshold
    different = int((~same).sum())
    false_accepts = int(accepted[~same].sum())
    return OperatingPoint(
        wanted_far,
        threshold,
        false_accepts / different,
        float(accepted[same].mean()),
        false_accepts,
        wilson_interval(false_accepts, different),
    )


def wilson_interval(count: int, total: int) -> Interval:
    """The 95 % confidence interval of a rate, from `count` of `total` independent cases.

    Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.
    Pairs that share an image are not independent, which makes the interval too narrow.
    """
    z = 1.959964
    rate = count / total
    middle = rate + z**2 / (2 * total)
    half = z * math.sqrt(rate * (1 - rate) / total + z**2 / (4 * total**2))
    whole = 1 + z**2 / total
    return Interval(max((middle - half) / whole, 0.0), min((middle + half) / whole, 1.0))


def best_threshold(curve: Roc, same: Bools) -> float:
    """The threshold that judges the greatest number of pairs correctly, halfway between two scores.

    If several are equally good, the middle one.

    Args:
        same: bool [N], of the pairs that `curve` was computed from.
    """
    right = curve.tar * same.sum() - curve.far * (~same).sum()
    # Rates of equal counts can differ in their last digits.
    best = np.flatnonzero(right > right.max() - 0.5)
    row = best[len(best) // 2]
    if row in (0, len(right) - 1):
        return float(curve.thresholds[row])
    return float(curve.thresholds[row : row + 2].mean())


def fold_accuracy(scores: Floats, same: Bools, folds: NDArray[np.int64]) -> Accuracy:
    """The share of pairs of each fold that the best threshold of the other folds judges correctly.

    Raises:
        ScrfdError: as `roc`, for the pairs outside a fold.
        ValueError: as `roc`, or `folds` has another shape or type.
    """
    _check_pairs(scores, same)
    check_array(folds, "folds", (len(scores),), None)
    accuracies, thresholds = [], []
    for fold in np.unique(folds):
        own, others = folds == fold, folds != fold
        threshold = best_threshold(roc(scores[others], same[others]), same[others])
        accuracies.append(np.mean((scores[own] >= threshold) == same[own]))
        thresholds.append(threshold)
    return Accuracy(
        float(np.mean(accuracies)),
        float(np.std(accuracies, ddof=1) / math.sqrt(len(accuracies))),
        tuple(thresholds),
    )


def pairs_needed(far: float) -> int:
    """Minimum number of pairs of different people to report a FAR: one accepted pair gives it."""
    return math.ceil(1 / far)


def evaluate(scores: Floats, same: Bools, folds: NDArray[np.int64]) -> Verification:
    """All figures of N pairs.

    Args:
        scores: float64 [N], cosines.
        same: bool [N], whether a pair is of one person.
        folds: int64 [N].

    Raises:
        ScrfdError: a score is not finite, or all pairs are of one kind.
    """
    curve = roc(scores, same)
    same_pairs, different_pairs = int(same.sum()), int((~same).sum())
    points = tuple(
        operating_point(scores, same, threshold_at(curve, far), far)
        for far in FARS
        if different_pairs >= pairs_needed(far)
    )
    recommended = None
    if points and math.isfinite(points[-1].threshold):
        rounded = math.ceil(100 * points[-1].threshold) / 100
        recommended = operating_point(scores, same, rounded, points[-1].wanted_far)
    enough = min(same_pairs, different_pairs) >= FOLDS
    return Verification(
        same_pairs,
        different_pairs,
        area_under(curve),
        equal_error_rate(curve),
        fold_accuracy(scores, same, folds) if enough else None,
        points,
        recommended,
    )


def plot_roc(path: Path, title: str, scores: Floats, same: Bools) -> None:
    """Plot TAR over FAR as PNG, with a logarithmic FAR, as low rates matter.

    Raises:
        ScrfdError: as `roc`; Matplotlib is missing, or the file cannot be written.
    """
    curve = roc(scores, same)
    axes = new_plot(title, "false accept rate", "true accept rate")
    axes.step(curve.far, curve.tar, where="post")
    axes.set(xscale="log", xlim=(0.5 / (~same).sum(), 1), ylim=(0, 1.02))
    write_plot(path, axes)


def plot_histogram(
    path: Path, title: str, scores: Floats, same: Bools, threshold: float | None
) -> None:
    """Plot histograms of the scores of both kinds of pairs, and a threshold, as PNG.

    Raises:
        ScrfdError: Matplotlib is missing, or the file cannot be written.
    """
    axes = new_plot(title, "cosine", "share of the pairs")
    edges = np.linspace(-1, 1, 101).tolist()
    for rows, label in ((~same, "different people"), (same, "one person")):
        weights = np.full(rows.sum(), 1 / rows.sum())
        axes.hist(np.clip(scores[rows], -1, 1), edges, weights=weights, alpha=0.6, label=label)
    if threshold is not None:
        axes.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.2f}")
    axes.legend()
    write_plot(path, axes)
