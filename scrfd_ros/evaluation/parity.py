"""How far a network agrees with a reference network of the same model.

The reference is the ONNX file run by ONNX Runtime; the candidate is what was made of it, such as a
TensorRT engine. Such an engine can be wrong without any error: an overflow in float16 gives NaN or
zeros, a bad calibration loses faces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.detection.scrfd import Scrfd
from scrfd_ros.networks.network import Network
from scrfd_ros.recognition.arcface import ArcFace

SCORE_THRESHOLD = 0.5
"""A face that scores this in one network has to be found by the other."""

SAME_FACE_IOU = 0.5
"""Boxes of two networks that overlap less are those of different faces."""

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
"""The worst figures at which a candidate of a precision is accepted.

Measured on six photographs with 71 faces, the worst of 500m, 2.5g and w600k_mbf. With every value
rounded to float16: IoU 0.998, score 0.0024, landmarks 0.0012, cosine 0.99996, norm 0.0013. In int8,
calibrated on three other photographs: IoU 0.89, score 0.066, landmarks 0.066, cosine 0.957, norm
0.045. Raw outputs in float16, those of Real-ESRGAN too: 0.046 of their range, cosine 0.9996.
Engines may also round sums to float16, so the limits leave room. FP32 has the same limits, since
GPUs multiply float32 as TF32, which has the mantissa of float16.
"""
_AT_LEAST = ("faces", "min_iou", "min_cosine")


@dataclass(frozen=True)
class Agreement:
    """What a comparison measured.

    Attributes:
        figures: name and value of each measured figure, ready for JSON.
        failures: a sentence for each figure that is outside its limit.
    """

    figures: dict[str, float]
    failures: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """Whether every figure is within its limit."""
        return not self.failures


def compare_detectors(
    candidate: Network,
    reference: Network,
    pictures: Sequence[NDArray[np.uint8]],
    input_size: tuple[int, int] = (640, 640),
    precision: str = "fp32",
) -> Agreement:
    """Compare the faces that two SCRFD networks find.

    A face that scores `SCORE_THRESHOLD` in one network has to be found by the other, where it may
    score less by the limit of the score's difference: none fails for lying on the threshold.

    Args:
        candidate, reference: SCRFD networks.
        pictures: uint8 [H, W, 3] BGR, of any sizes, with faces.
        input_size: width and height of the networks' input, pixels.
        precision: the candidate's, a key of `LIMITS`.

    Returns:
        Figures over all pictures. faces: found by the reference; missed_faces: of these, by the
        reference only; extra_faces: by the candidate only. Of the faces found by both: min_iou of
        the boxes, max_score_difference, and max_landmark_distance relative to the square root of
        the box's area (not where the networks find no landmarks). Where non_finite_values of the
        candidate's outputs is not 0, it is all that is measured.

    Raises:
        ModelError: a network is not an SCRFD network of this input size.
    """
    limits = LIMITS[precision]
    lowest = SCORE_THRESHOLD - limits["max_score_difference"]
    checked = Scrfd(candidate, input_size, lowest)
    trusted = Scrfd(reference, input_size, lowest)
    faces = missed = extra = 0
    measured: dict[str, list[float]] = {
        "min_iou": [],
        "max_score_difference": [],
        "max_landmark_distance": [],
    }
    for picture in pictures:
        (prepared,) = checked.prepare([picture])
        outputs = checked.infer()
        if non_finite := _count_non_finite(outputs[0].values()):
            return _judge({"non_finite_values": non_finite}, limits)
        found, expected = checked.decode(outputs, prepared), trusted.detect(picture)
        overlaps = ious(found.boxes, expected.boxes)
        ours, theirs = np.nonzero(
            (overlaps >= SAME_FACE_IOU)
            & (overlaps == overlaps.max(axis=0, initial=0))
            & (overlaps == overlaps.max(axis=1, initial=0, keepdims=True))
        )
        faces += int((expected.scores >= SCORE_THRESHOLD).sum())
        missed += int((np.delete(expected.scores, theirs) >= SCORE_THRESHOLD).sum())
        extra += int((np.delete(found.scores, ours) >= SCORE_THRESHOLD).sum())
        scores = np.stack((found.scores[ours], expected.scores[theirs]))
        count = scores.max(axis=0, initial=0) >= SCORE_THRESHOLD
        measured["min_iou"] += overlaps[ours, theirs][count].tolist()
        measured["max_score_difference"] += np.ptp(scores, axis=0)[count].tolist()
        if found.landmarks is not None and expected.landmarks is not None:
            moved = np.linalg.norm(found.landmarks[ours] - expected.landmarks[theirs], axis=2)
            size = np.sqrt(expected.sizes[theirs].prod(axis=1))
            measured["max_landmark_distance"] += (moved.max(axis=1) / size)[count].tolist()
    figures: dict[str, float] = {
        "faces": faces,
        "missed_faces": missed,
        "extra_faces": extra,
        "non_finite_values": 0,
    }
    for name, values in measured.items():
        if values:
            figures[name] = min(values) if name in _AT_LEAST else max(values)
    return _judge(figures, limits)


def compare_recognizers(
    candidate: Network,
    reference: Network,
    crops: NDArray[np.uint8],
    precision: str = "fp32",
) -> Agreement:
    """Compare the embeddings that two ArcFace networks give the same faces.

    Args:
        candidate, reference: ArcFace networks.
        crops: uint8 [N, 112, 112, 3] BGR, aligned faces, N at least 1.
        precision: the candidate's, a key of `LIMITS`.

    Returns:
        faces: N; non_finite_values of the candidate's embeddings; min_cosine of the two embeddings
        of a face; max_norm_difference, of the embeddings' lengths before they are normalised,
        relative to the reference's. Where non_finite_values is not 0, it is all that is measured.

    Raises:
        ModelError: a network is not an ArcFace network.
    """
    found, found_norms = ArcFace(candidate).embed(crops)
    if non_finite := _count_non_finite((found, found_norms)):
        return _judge({"non_finite_values": non_finite}, LIMITS[precision])
    expected, expected_norms = ArcFace(reference).embed(crops)
    figures: dict[str, float] = {
        "faces": len(crops),
        "non_finite_values": 0,
        "min_cosine": (found * expected).sum(axis=1).min().item(),
        "max_norm_difference": np.abs(found_norms / expected_norms - 1).max().item(),
    }
    return _judge(figures, LIMITS[precision])


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
        The worst of all outputs. max_relative_difference: of two values, relative to the range of
        the reference's output; min_cosine of the outputs as vectors. Where non_finite_values of
        the candidate's outputs is not 0, it is all that is measured. Where names or shapes differ,
        the failure names them and nothing is measured.

    Raises:
        ModelError: a network refuses the inputs.
    """
    found, expected = candidate(inputs), reference(inputs)
    shapes = [{name: out.shape for name, out in side.items()} for side in (found, expected)]
    if shapes[0] != shapes[1]:
        return Agreement({}, (f"the outputs are {shapes[0]}, expected {shapes[1]}",))
    if non_finite := _count_non_finite(found.values()):
        return _judge({"non_finite_values": non_finite}, LIMITS[precision])
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
    return _judge(figures, LIMITS[precision])


def _count_non_finite(arrays: Iterable[NDArray[np.float32]]) -> int:
    return sum(int((~np.isfinite(array)).sum()) for array in arrays)


def ious(boxes: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU of each of the boxes [N, 4] with each of the others [M, 4]: [N, M]."""
    lower = np.maximum(boxes[:, None, :2], others[:, :2])
    upper = np.minimum(boxes[:, None, 2:], others[:, 2:])
    overlap = (upper - lower).clip(0).prod(axis=2)
    areas, other_areas = ((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (boxes, others))
    ious: NDArray[np.float32] = overlap / (areas[:, None] + other_areas - overlap)
    return ious


def _judge(figures: dict[str, float], limits: Mapping[str, float]) -> Agreement:
    failures = []
    for name, value in figures.items():
        least = name in _AT_LEAST
        if value < limits[name] if least else value > limits[name]:
            bound = "at least" if least else "at most"
            failures.append(f"{name.replace('_', ' ')}: {value:.4g}, {bound} {limits[name]} wanted")
    return Agreement(figures, tuple(failures))
