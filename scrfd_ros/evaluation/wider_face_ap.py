# SPDX-License-Identifier: Apache-2.0
"""Average precision by the protocol of WIDER FACE.

As the benchmark's own evaluation tools (eval_tools.zip of WIDER FACE), for all detections at once.
Scores are scaled to 0..1 over the whole set. In each image a detection belongs to the face that it
overlaps most, if the IoU is at least 0.5. The detection of a face with the best score is right; its
others are wrong, as are detections without a face. Detections of faces outside the subset are
ignored. Precision and recall are taken at 1000 thresholds, and the area under precision's envelope
is the average precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.arrays import check_array
from scrfd_ros.detection.nms import pixel_ious
from scrfd_ros.evaluation.plots import new_plot, write_plot
from scrfd_ros.evaluation.wider_face import SUBSETS, AnnotatedImage
from scrfd_ros.models.catalogue import load_catalogue

IOU = 0.5
THRESHOLDS = 1 - np.arange(1, 1001) / 1000

HEIGHTS = {
    "<16": (-np.inf, 16),
    "16-32": (16, 32),
    "32-64": (32, 64),
    "64-128": (64, 128),
    ">=128": (128, np.inf),
}
"""Classes of faces by height, pixels of the image: minimum, and the value they are below."""

_HARD = SUBSETS.index("hard")


@dataclass(frozen=True)
class Curve:
    """Precision and recall of some faces.

    Attributes:
        faces: their number.
        recalls, precisions: float64 [1000], at each of `THRESHOLDS`; 0 without detections.
    """

    faces: int
    recalls: NDArray[np.float64]
    precisions: NDArray[np.float64]

    @property
    def average_precision(self) -> float | None:
        """0 to 1; None if there are no faces."""
        if not self.faces:
            return None
        envelope = np.maximum.accumulate(self.precisions[::-1])[::-1]
        return float(np.sum(np.diff(self.recalls, prepend=0.0) * envelope))

    @property
    def recall(self) -> float | None:
        """The share of faces that any detection finds; None if there are no faces."""
        return float(self.recalls[-1]) if self.faces else None

    def as_json(self) -> dict[str, object]:
        return {
            "faces": self.faces,
            "average_precision": self.average_precision,
            "recall": self.recall,
        }


@dataclass(frozen=True)
class Evaluation:
    """The figures of detections for the whole set.

    Attributes:
        images, faces, detections: their numbers.
        subsets: by name, those of `SUBSETS`.
        events: the same for the images of each event.
        heights: the faces of the hard subset by class, those of `HEIGHTS`. A detection without a
            face is wrong in the class of its own height.
    """

    images: int
    faces: int
    detections: int
    subsets: Mapping[str, Curve]
    events: Mapping[str, Mapping[str, Curve]]
    heights: Mapping[str, Curve]

    def as_json(self) -> dict[str, object]:
        return {
            "pictures": self.images,
            "faces": self.faces,
            "detections": self.detections,
            "subsets": {name: curve.as_json() for name, curve in self.subsets.items()},
            "heights": {name: curve.as_json() for name, curve in self.heights.items()},
            "events": {
                event: {name: curve.as_json() for name, curve in curves.items()}
                for event, curves in self.events.items()
            },
        }


def evaluate(
    ground_truth: Sequence[AnnotatedImage], detections: Sequence[NDArray[np.float64]]
) -> Evaluation:
    """Average precision of detections.

    Args:
        detections: of each image, float64 [N, 5], x, y, width, height, score. Of equal scores the
            first counts as the better one.

    Raises:
        ValueError: detections have another shape or type, or are for another number of images.
    """
    for found in detections:
        check_array(found, "detections of an image", (None, 5), None)
    scores = _stretched([found[:, 4] for found in detections])
    images = [
        _match(image, found, own)
        for image, found, own in zip(ground_truth, detections, scores, strict=True)
    ]
    events: dict[str, list[_Matches]] = {}
    for image, matches in zip(ground_truth, images, strict=True):
        events.setdefault(image.event, []).append(matches)
    everything = _joined(images)
    return Evaluation(
        images=len(ground_truth),
        faces=everything.counted.shape[1],
        detections=len(everything.scores),
        subsets=_curves(everything),
        events={event: _curves(_joined(own)) for event, own in events.items()},
        heights={
            name: _curve(
                everything,
                everything.counted[_HARD] & _within(everything.face_heights, limits),
                _within(everything.heights, limits),
            )
            for name, limits in HEIGHTS.items()
        },
    )


@dataclass(frozen=True)
class _Matches:
    """Detections and faces of one or more images.

    Attributes:
        scores, heights: of the detections, float64 [D].
        faces: int64 [D], the row of the face each detection belongs to; -1 for none.
        first: bool [D], whether no better detection belongs to that face.
        face_heights: float64 [F].
        counted: bool [3, F], as `AnnotatedImage.counted`.
    """

    scores: NDArray[np.float64]
    heights: NDArray[np.float64]
    faces: NDArray[np.int64]
    first: NDArray[np.bool_]
    face_heights: NDArray[np.float64]
    counted: NDArray[np.bool_]


def _stretched(scores: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Scores scaled over all images to 0 for the lowest, 1 for the highest; 1 if all are equal."""
    low = min((own.min() for own in scores if own.size), default=0.0)
    high = max((own.max() for own in scores if own.size), default=0.0)
    if high == low:
        return [np.ones_like(own) for own in scores]
    return [(own - low) / (high - low) for own in scores]


def _match(
    image: AnnotatedImage, detections: NDArray[np.float64], scores: NDArray[np.float64]
) -> _Matches:
    if not len(image.boxes):  # the benchmark's tools skip such an image
        detections, scores = detections[:0], scores[:0]
    order = np.argsort(-scores, kind="stable")
    boxes, scores = detections[order, :4], scores[order]
    faces = np.full(len(boxes), -1, np.int64)
    first = np.zeros(len(boxes), np.bool_)
    if len(boxes):
        overlaps = pixel_ious(_corners(boxes), _corners(image.boxes))
        best = overlaps.argmax(axis=1)
        found = np.flatnonzero(overlaps[np.arange(len(boxes)), best] >= IOU)
        faces[found] = best[found]
        first[found[np.unique(faces[found], return_index=True)[1]]] = True
    return _Matches(scores, boxes[:, 3], faces, first, image.boxes[:, 3], image.counted)


def _corners(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """x1, y1, x2, y2 of boxes given as x, y, width, height."""
    return np.hstack((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]))


def _joined(images: Sequence[_Matches]) -> _Matches:
    starts = np.cumsum([0, *(len(each.face_heights) for each in images)])
    return _Matches(
        np.concatenate([each.scores for each in images]),
        np.concatenate([each.heights for each in images]),
        np.concatenate(
            [
                np.where(each.faces < 0, -1, each.faces + start)
                for each, start in zip(images, starts, strict=False)
            ]
        ),
        np.concatenate([each.first for each in images]),
        np.concatenate([each.face_heights for each in images]),
        np.concatenate([each.counted for each in images], axis=1),
    )


def _curves(matches: _Matches) -> dict[str, Curve]:
    anywhere = np.ones(len(matches.scores), np.bool_)
    return {
        name: _curve(matches, counted, anywhere)
        for name, counted in zip(SUBSETS, matches.counted, strict=True)
    }


def _curve(matches: _Matches, counted: NDArray[np.bool_], spurious: NDArray[np.bool_]) -> Curve:
    """
    Args:
        counted: bool [F], the faces to find.
        spurious: bool [D], the detections that are wrong if they belong to no face.
    """
    faces = int(counted.sum())
    # The added last row is for detections without a face, which have the index -1.
    of_counted = np.append(counted, False)[matches.faces]
    right = of_counted & matches.first
    wrong = (of_counted & ~matches.first) | ((matches.faces < 0) & spurious)
    hits, misses = (_count_reached(matches.scores[rows]) for rows in (right, wrong))
    return Curve(faces, hits / max(faces, 1), hits / np.maximum(hits + misses, 1))


def _count_reached(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """How many scores reach each of `THRESHOLDS`, [1000]."""
    return len(scores) - np.searchsorted(np.sort(scores), THRESHOLDS)


def _within(values: NDArray[np.float64], limits: tuple[float, float]) -> NDArray[np.bool_]:
    low, high = limits
    return (low <= values) & (values < high)


def lowest_events(evaluation: Evaluation, count: int) -> dict[str, Curve]:
    """The events with the lowest average precision of the subset hard, the lowest first."""
    known = {
        event: (curve.average_precision, curve)
        for event, curves in evaluation.events.items()
        if (curve := curves["hard"]).average_precision is not None
    }
    names = sorted(known, key=lambda event: known[event][0])[:count]
    return {name: known[name][1] for name in names}


def published_figures(model: str) -> dict[str, float]:
    """Published average precision, 0 to 1, of each subset; empty if there is none.

    Args:
        model: name of its ONNX file without the suffix.
    """
    for entry in load_catalogue().models.values():
        if entry.file == f"{model}.onnx" and entry.accuracy:
            return {name: entry.accuracy[f"WIDER {name}"] / 100 for name in SUBSETS}
    return {}


def above(evaluation: Evaluation, published: Mapping[str, float]) -> dict[str, float]:
    """Average precision less the published one, for the subsets that have both."""
    return {
        name: measured - published[name]
        for name, curve in evaluation.subsets.items()
        if (measured := curve.average_precision) is not None and name in published
    }


def plot(path: Path, title: str, evaluation: Evaluation) -> None:
    """Plot precision over recall of the subsets as PNG.

    Raises:
        ScrfdError: Matplotlib is missing, or the file cannot be written.
    """
    axes = new_plot(f"WIDER FACE val\n{title}", "recall", "precision")
    for name, curve in evaluation.subsets.items():
        if curve.average_precision is not None:
            label = f"{name}: AP {curve.average_precision:.2%} of {curve.faces} faces"
            found = curve.recalls > 0
            axes.plot(curve.recalls[found], curve.precisions[found], label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="lower left")
    write_plot(path, axes)
