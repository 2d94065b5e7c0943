# SPDX-License-Identifier: Apache-2.0
"""Comparison of two results for the same faces, and the limits within which they agree.

`scrfd convert` and `scrfd compare` compare networks this way, `scrfd replay --compare` recordings.

When networks are compared, the reference is the ONNX file run by ONNX Runtime, and the candidate
is made from it, such as a TensorRT engine. An engine can be wrong without any error: an overflow in
float16 yields NaN or zeros, a bad calibration loses faces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.config import DetectorConfig
from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.detection.views import fitted_size
from scrfd_ros.faces import Faces, ious
from scrfd_ros.inference.network import Network
from scrfd_ros.recognition.arcface import ArcFace

SCORE_THRESHOLD = 0.5
"""The other network must find a face that scores at least this in one of them.

It belongs to the limits below, whatever the option's default is.
"""

SAME_FACE_IOU = 0.5
"""Minimum IoU of boxes of the same face."""

_COMMON_LIMITS = {"faces": 1, "missed_faces": 0, "extra_faces": 0, "non_finite_values": 0}
_FLOAT_LIMITS = _COMMON_LIMITS | {
    "min_iou": 0.98,
    "max_score_difference": 0.02,
    "max_landmark_distance": 0.01,
    "min_cosine": 0.998,
    "max_norm_difference": 0.02,
    "max_relative_difference": 0.1,
}
_INT8_LIMITS = _COMMON_LIMITS | {
    "min_iou": 0.85,
    "max_score_difference": 0.1,
    "max_landmark_distance": 0.1,
    "min_cosine": 0.9,
    "max_norm_difference": 0.15,
    "max_relative_difference": 0.3,
}
LIMITS: Mapping[str, Mapping[str, float]] = {
    "fp32": _FLOAT_LIMITS,
    "fp16": _FLOAT_LIMITS,
    "int8": _INT8_LIMITS,
}
"""Limits of the figures by precision of the candidate.

Measured on six photographs with 71 faces, the worst of 500m, 2.5g and w600k_mbf. With every value
rounded to float16: IoU 0.998, score 0.0024, landmarks 0.0012, cosine 0.99996, norm 0.0013. In int8,
calibrated on three other photographs: IoU 0.89, score 0.066, landmarks 0.066, cosine 0.957, norm
0.045. Raw outputs in float16, those of Real-ESRGAN too: 0.046 of their range, cosine 0.9996.
Engines may also round sums to float16, so the limits leave room for that. FP32 has the same limits,
since GPUs multiply float32 as TF32, which has the mantissa of float16.
"""
_AT_LEAST = ("faces", "frames", "min_iou", "min_cosine")
_NONE = np.zeros(0, np.intp)


@dataclass(frozen=True)
class Agreement:
    """What a comparison measured.

    Attributes:
        figures: name and value of each measured figure, as JSON takes them.
        failures: a sentence for each figure that is outside its limit.
    """

    figures: dict[str, float]
    failures: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """Whether every figure is within its limit."""
        return not self.failures


@dataclass(frozen=True, eq=False)
class Differences:
    """The differences between the faces that two sides found in one image.

    Attributes:
        counts: numbers of faces, by name of the figure.
        values: [P], measured for each face that both have, by name of the figure.
        missed: rows of the expected faces that were not found.
        extra: rows of the found faces that were not expected.
    """

    counts: dict[str, int]
    values: dict[str, NDArray[Any]]
    missed: NDArray[np.intp] = field(default_factory=_NONE.copy)
    extra: NDArray[np.intp] = field(default_factory=_NONE.copy)

    @property
    def figures(self) -> dict[str, float]:
        """The counts, and the worst of each measured value."""
        figures: dict[str, float] = dict(self.counts)
        for name, values in self.values.items():
            if len(values):
                figures[name] = (values.min() if is_minimum(name) else values.max()).item()
        return figures


def is_minimum(name: str) -> bool:
    """Whether the limit of this figure is a minimum rather than a maximum."""
    return name in _AT_LEAST


def worst(figures: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The figures of several images combined: sums of counts, and the worst of the others."""
    together: dict[str, float] = {}
    for each in figures:
        for name, value in each.items():
            if name not in together:
                together[name] = value
            elif name.startswith("min_"):
                together[name] = min(together[name], value)
            elif name.startswith("max_"):
                together[name] = max(together[name], value)
            else:
                together[name] += value
    return together


def judge(figures: Mapping[str, float], limits: Mapping[str, float]) -> tuple[str, ...]:
    """A sentence for each figure that is outside its limit. Figures without a limit are ignored."""
    failures = []
    for name, value in figures.items():
        if name in limits and (value < limits[name] if is_minimum(name) else value > limits[name]):
            bound = "at least" if is_minimum(name) else "at most"
            words = name.replace("_", " ")
            failures.append(f"{words}: {value:.4g}, expected {bound} {limits[name]:g}")
    return tuple(failures)


def compare_faces(
    found: Faces, expected: Faces, certain: float, counted: float = 0.0
) -> Differences:
    """Match the faces of one image by IoU, and measure how they differ.

    Args:
        found, expected: of the same image.
        certain: score from which a face must be in both.
        counted: faces that score less than this on both sides are not measured.

    Returns:
        Counts missed_faces and extra_faces, the faces that only one side has. Values min_iou of the
        boxes, max_score_difference, max_landmark_distance relative to the square root of the
        expected box's area, and min_cosine of the embeddings. If only one side has landmarks or
        embeddings, or a value is not a number, the difference is infinite. What neither side has is
        not measured.
    """
    overlaps = ious(found.boxes, expected.boxes)
    ours, theirs = np.nonzero(
        (overlaps >= SAME_FACE_IOU)
        & (overlaps == overlaps.max(axis=0, initial=0))
        & (overlaps == overlaps.max(axis=1, initial=0, keepdims=True))
    )
    missed, extra = (
        np.setdiff1d(np.flatnonzero(~(faces.scores < certain)), rows)
        for faces, rows in ((expected, theirs), (found, ours))
    )
    counts = np.fmax(found.scores[ours], expected.scores[theirs]) >= counted
    ours, theirs = ours[counts], theirs[counts]
    score_differences = np.abs(found.scores[ours] - expected.scores[theirs])
    values = {
        "min_iou": overlaps[ours, theirs],
        "max_score_difference": np.nan_to_num(score_differences, nan=np.inf, posinf=np.inf),
    }
    if found.landmarks is not None and expected.landmarks is not None:
        moved = np.linalg.norm(found.landmarks[ours] - expected.landmarks[theirs], axis=2)
        distances = moved.max(axis=1) / np.sqrt(expected.sizes[theirs].prod(axis=1))
        values["max_landmark_distance"] = np.nan_to_num(distances, nan=np.inf, posinf=np.inf)
    elif found.landmarks is not expected.landmarks:
        values["max_landmark_distance"] = np.full(len(ours), np.inf)
    if found.embeddings is not None or expected.embeddings is not None:
        cosines = np.full(len(ours), -np.inf)
        sides = [
            faces.embeddings[rows]
            for faces, rows in ((found, ours), (expected, theirs))
            if faces.embeddings is not None
        ]
        first, second = found.embedded[ours], expected.embedded[theirs]
        if len({side.shape for side in sides}) == 1 < len(sides):
            cosines = np.where(first & second, (sides[0] * sides[1]).sum(axis=1), -np.inf)
        values["min_cosine"] = np.nan_to_num(cosines, nan=-np.inf, neginf=-np.inf)[first | second]
    return Differences(
        {"missed_faces": len(missed), "extra_faces": len(extra)}, values, missed, extra
    )


def compare_detectors(
    candidate: Network,
    reference: Network,
    images: Sequence[NDArray[np.uint8]],
    input_size: tuple[int, int] = DetectorConfig().largest_input,
    precision: str = "fp32",
) -> Agreement:
    """Compare the faces that two SCRFD networks find.

    If a face scores `SCORE_THRESHOLD` in one network, the other must find it. There it may score
    less by the limit of the score difference, so that a face at the threshold does not fail.

    Args:
        candidate, reference: SCRFD networks.
        images: uint8 [H, W, 3] BGR, of any sizes, with faces.
        input_size: width and height of the networks' input, pixels.
        precision: the candidate's, a key of `LIMITS`.

    Returns:
        Figures over all images. faces: those that the reference finds. missed_faces: those that
        only the reference finds. extra_faces: those that only the candidate finds. For faces that
        both find, the worst values of `compare_faces`. If the candidate's outputs have
        non_finite_values, nothing else is measured.

    Raises:
        ModelError: a network is not an SCRFD network of this input size.
    """
    limits = LIMITS[precision]
    lowest = SCORE_THRESHOLD - limits["max_score_difference"]
    config = DetectorConfig(input_size=input_size, score_threshold=lowest)
    checked, trusted = Scrfd(candidate, config), Scrfd(reference, config)
    figures: dict[str, float] = dict.fromkeys(_COMMON_LIMITS, 0)
    for image in images:
        (batch,) = checked.prepare([image])
        outputs = checked.infer(batch)
        if non_finite := count_non_finite(outputs.rows[0].values()):
            return _judged({"non_finite_values": non_finite}, limits)
        (found,) = checked.decode([outputs])
        expected = trusted.detect(image)
        differences = compare_faces(found, expected, SCORE_THRESHOLD, SCORE_THRESHOLD)
        faces = int((expected.scores >= SCORE_THRESHOLD).sum())
        figures = worst((figures, {"faces": faces}, differences.figures))
    return _judged(figures, limits)


def compare_embeddings(
    found: NDArray[np.float32],
    found_norms: NDArray[np.float32],
    expected: NDArray[np.float32],
    expected_norms: NDArray[np.float32],
) -> Differences:
    """Compare the embeddings of the same faces by two networks of one model.

    Args:
        found, expected: float32 [N, D], rows of unit length.
        found_norms, expected_norms: float32 [N], their lengths before they were normalized.

    Returns:
        Counts faces and non_finite_values of the found ones. Values min_cosine, and
        max_norm_difference relative to the expected norm; none if there are non-finite values.
    """
    non_finite = count_non_finite((found, found_norms))
    counts = {"faces": len(found), "non_finite_values": non_finite}
    if non_finite:
        return Differences(counts, {})
    return Differences(
        counts,
        {
            "min_cosine": (found * expected).sum(axis=1),
            "max_norm_difference": np.abs(found_norms / expected_norms - 1),
        },
    )


def compare_recognizers(
    candidate: Network,
    reference: Network,
    crops: NDArray[np.uint8],
    precision: str = "fp32",
) -> Agreement:
    """Compare the embeddings of the same faces by two ArcFace networks.

    Args:
        candidate, reference: ArcFace networks.
        crops: uint8 [N, 112, 112, 3] BGR, aligned faces, N at least 1.
        precision: the candidate's, a key of `LIMITS`.

    Returns:
        The figures of `compare_embeddings`.

    Raises:
        ModelError: a network is not an ArcFace network.
    """
    embeddings = (ArcFace(network).embed(crops) for network in (candidate, reference))
    found, expected = embeddings
    return _judged(compare_embeddings(*found, *expected).figures, LIMITS[precision])


def compare_outputs(
    candidate: Network,
    reference: Network,
    inputs: Mapping[str, NDArray[np.float32]],
    precision: str = "fp32",
) -> Agreement:
    """Compare the raw outputs of two networks of any kind for the same inputs.

    Args:
        inputs: float32 arrays by input name, as the networks take them.
        precision: the candidate's, a key of `LIMITS`.

    Returns:
        The worst figures of all outputs. max_relative_difference: of two values, relative to the
        range of the reference's output. min_cosine: of the outputs as vectors. If the candidate's
        outputs have non_finite_values, nothing else is measured. If names or shapes differ, the
        failure names them and nothing is measured.

    Raises:
        ModelError: a network refuses the inputs.
    """
    found, expected = candidate(inputs), reference(inputs)
    shapes = [{name: out.shape for name, out in side.items()} for side in (found, expected)]
    if shapes[0] != shapes[1]:
        return Agreement({}, (f"the outputs are {shapes[0]}, expected {shapes[1]}",))
    if non_finite := count_non_finite(found.values()):
        return _judged({"non_finite_values": non_finite}, LIMITS[precision])
    differences, cosines = [], []
    for name, array in expected.items():
        ours, theirs = found[name].astype(np.float64), array.astype(np.float64)
        tiny = np.finfo(np.float32).tiny
        differences.append(np.abs(ours - theirs).max() / max(np.ptp(theirs), tiny))
        lengths = np.linalg.norm(ours) * np.linalg.norm(theirs)
        cosines.append((ours * theirs).sum() / max(lengths, tiny))
    figures = {
        "non_finite_values": 0,
        "max_relative_difference": float(max(differences)),
        "min_cosine": float(min(cosines)),
    }
    return _judged(figures, LIMITS[precision])


def insightface_stretch(size: tuple[int, int], input_size: tuple[int, int]) -> float:
    """Factor by which insightface's x coordinates are too large in images of this size.

    insightface 2.1 (model_zoo/scrfd.py) cuts the letterboxed image to whole pixels, and divides
    all coordinates by the scale of its height, although the scale of its width differs.

    Args:
        size: width and height of the image, pixels.
        input_size: those of the detector's input.
    """
    fitted = fitted_size(*size, *input_size)
    across, down = (after / before for after, before in zip(fitted, size, strict=True))
    return across / down


def count_non_finite(arrays: Iterable[NDArray[np.float32]]) -> int:
    """The number of values in the arrays that are infinite or NaN."""
    return sum(int((~np.isfinite(array)).sum()) for array in arrays)


def _judged(figures: dict[str, float], limits: Mapping[str, float]) -> Agreement:
    return Agreement(figures, judge(figures, limits))
