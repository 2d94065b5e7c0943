# SPDX-License-Identifier: Apache-2.0
"""A check, before the first image, of whether a network does what it is used for.

The network runs once on drawn faces, which the networks of the catalogue handle (docs/models.md has
the measurements). Outputs that cannot be right are an error. Outputs that can be right, such as
those of a custom detector that finds no drawn face, only give a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.config import DetectorConfig
from scrfd_ros.detection.levels import Level
from scrfd_ros.detection.scrfd import Batch, BatchOutputs, Scrfd
from scrfd_ros.detection.search import PIXEL_MEAN, PIXEL_SCALE, Outputs
from scrfd_ros.engines.drawn_faces import (
    BACKGROUND,
    drawn_boxes,
    drawn_faces,
    drawn_landmarks,
)
from scrfd_ros.errors import ModelError
from scrfd_ros.faces import LANDMARK_NAMES, Faces, FloatArray, ious
from scrfd_ros.images.scaling import scale_by_area
from scrfd_ros.inference.batches import run_in_batches
from scrfd_ros.inference.network import Network
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.recognition.arcface import ArcFace

_MIN_SIDE = 96  # pixels of the input; below it, the drawn faces are too small
_SCORE, _IOU = 0.5, 0.7  # from which a face counts, whatever the options; measured: 0.69 and 0.75
_ENOUGH = 3  # of four faces; with fewer, a change that finds this number explains the failure
_MAX_FACES = 8  # found in the drawing of four
_MAX_DISTANCE = 0.1  # of landmarks, mean, in heights of a head; measured: at most 0.042
_ALIKE, _DIFFERENT = 0.95, 0.9  # cosine of two drawn people; measured: 0.79
_CONSTANT = 0.9999
_TWO_PEOPLE = slice(2, 4)  # the two drawn people that differ most


def check_network(network: Network, kind: str | None, input_size: tuple[int, int]) -> str:
    """Check a network by its kind, with `check_detector` or `check_recognizer`.

    Args:
        network: ready to run.
        kind: `DETECTOR` or `RECOGNIZER`; any other kind is not checked.
        input_size: width and height of a detector's input, pixels, if it takes any size.

    Returns:
        A warning, one sentence; empty if there is none.

    Raises:
        ModelError: the network cannot work as it is.
    """
    if kind == DETECTOR:
        height, width = network.inputs[0].shape[2:]
        size = width or input_size[0], height or input_size[1]
        return check_detector(Scrfd(network, DetectorConfig(input_size=size)))
    return check_recognizer(ArcFace(network)) if kind == RECOGNIZER else ""


def check_detector(detector: Scrfd) -> str:
    """Check a detector on drawn faces, whatever its options.

    Costs one run of the network, and up to four more to find a cause.

    Returns:
        A warning, one sentence; empty if there is none.

    Raises:
        ModelError: the detector cannot work as it is; names the likely cause.
    """
    path = detector.network.path
    width, height = detector.size
    drawing = drawn_faces()
    side = min(width, height, len(drawing))
    scale = side / len(drawing)
    image = np.full((height, width, 3), BACKGROUND, np.uint8)
    scale_by_area(drawing, image[:side, :side])
    config = DetectorConfig(input_size=detector.config.input_size, score_threshold=_SCORE)
    (batch,) = detector.prepare([image], config)
    # Copies, since the next run may overwrite them.
    outputs = {name: array.copy() for name, array in detector.infer(batch).rows[0].items()}
    _refuse_impossible(detector, outputs)
    if side < _MIN_SIDE:
        return ""
    trial = _Trial(detector, batch, outputs, scale)
    faces = trial.faces(outputs)
    rows = trial.found(faces)
    if len(rows) < _ENOUGH:
        cause = _cause(trial)
        if cause:
            raise ModelError(f"{path}: {cause}")
        return (
            f"{path}: finds {len(rows)} of the {len(drawn_boxes())} faces in the drawing that "
            f"models are checked with and {len(faces) - len(rows)} where none are, whatever "
            f"the order of outputs or the range of pixels: check whether it finds those in your "
            f"images. It may not be for faces, or may have lost too much when it was quantized"
        )
    if len(faces) > _MAX_FACES:
        return (
            f"{path}: finds {len(faces)} faces in a drawing of {len(drawn_boxes())}: expect "
            f"many false ones, or raise the score threshold"
        )
    warning = _check_landmarks(trial, faces, rows)
    return f"{path}: {warning}" if warning else ""


_Change = Callable[[NDArray[np.float32], Level], NDArray[np.float32]]


class _Trial(NamedTuple):
    """A run of a detector on the drawing, scaled by `scale`, as a batch of one input."""

    detector: Scrfd
    batch: Batch
    outputs: Outputs
    scale: float

    def faces(self, outputs: Outputs) -> Faces:
        """The faces by these outputs."""
        (faces,) = self.detector.decode([BatchOutputs(self.batch, (outputs,))])
        return faces

    def found(self, faces: Faces) -> dict[int, int]:
        """Number of a drawn face -> row of the best face that was found there."""
        is_there = ious(faces.boxes, drawn_boxes() * np.float32(self.scale)) >= _IOU
        # The best score comes first.
        return {number: int(rows.argmax()) for number, rows in enumerate(is_there.T) if rows.any()}

    def changed(self, kinds: tuple[str, ...], change: _Change) -> Outputs:
        """The outputs after a change of those of some kinds."""
        changed: dict[str, NDArray[np.float32]] = dict(self.outputs)
        for level in self.batch.search.levels:
            for kind in kinds:
                name = getattr(level, kind)
                if name is not None:
                    changed[name] = change(self.outputs[name], level)
        return changed


def _refuse_impossible(detector: Scrfd, outputs: Outputs) -> None:
    path = detector.network.path
    scores = np.concatenate([outputs[level.score].ravel() for level in detector.levels])
    likely = {level: outputs[level.score].ravel() >= _SCORE for level in detector.levels}
    places = [
        outputs[name].reshape(len(rows), -1)[rows].ravel()
        for level, rows in likely.items()
        for name in (level.box, level.landmark)
        if name is not None
    ]
    if not all(np.isfinite(values).all() for values in (scores, *places)):
        raise ModelError(
            f"{path}: returns values that are not finite, as if half precision overflowed; use it "
            f"in fp32, or keep the layers that overflow in float32"
        )
    low, high = float(scores.min()), float(scores.max())
    if low < -1e-3 or high > 1 + 1e-3:
        raise ModelError(
            f"{path}: scores range from {low:.3g} to {high:.3g}, expected 0 to 1: the sigmoid at "
            f"the end is missing; export the model with it"
        )
    if high - low < 1e-6:
        raise ModelError(
            f"{path}: all scores are {high:.3g}: the weights are missing or damaged; download or "
            f"export it again"
        )


def _in_pixels(array: NDArray[np.float32], level: Level) -> NDArray[np.float32]:
    return array / np.float32(level.stride)


def _y_first(array: NDArray[np.float32], level: Level) -> NDArray[np.float32]:
    return array.reshape(*array.shape[:-1], -1, 2)[..., ::-1].reshape(array.shape)


def _anchors_first(array: NDArray[np.float32], level: Level) -> NDArray[np.float32]:
    values = array.reshape(level.anchors, -1, array.shape[-1])
    return values.swapaxes(0, 1).reshape(array.shape)


def _columns_first(array: NDArray[np.float32], level: Level) -> NDArray[np.float32]:
    values = array.reshape(level.columns, -1, level.anchors, array.shape[-1])
    return values.swapaxes(0, 1).reshape(array.shape)


_ALL = ("score", "box", "landmark")


def _cause(trial: _Trial) -> str:
    """The change by which the drawn faces are found, in a sentence; empty if there is none."""

    def explains(changed: Outputs) -> bool:
        faces = trial.faces(changed)
        return len(faces) <= _MAX_FACES and len(trial.found(faces)) >= _ENOUGH

    orders: Mapping[str, tuple[tuple[str, ...], _Change]] = {
        "its boxes are in pixels, expected distances in strides of the grid": (
            ("box", "landmark"),
            _in_pixels,
        ),
        "its boxes are in the order top, left, bottom, right; expected left, top, right, bottom": (
            ("box",),
            _y_first,
        ),
        "its outputs are ordered by anchor, then by location; expected by location, then by "
        "anchor": (_ALL, _anchors_first),
        "its outputs are ordered column by column; expected row by row": (_ALL, _columns_first),
    }
    for sentence, (kinds, change) in orders.items():
        if explains(trial.changed(kinds, change)):
            return f"{sentence}; export it in that form"
    detector, blob = trial.detector, trial.batch.blob
    for sentence, pixels in _other_pixels(blob, detector.network.normalizes_input).items():
        other = trial.batch.with_blob(np.ascontiguousarray(pixels))
        if explains(detector.infer(other).rows[0]):
            return f"finds faces only {sentence}"
    return ""


def _other_pixels(
    blob: FloatArray, is_raw: bool, mean: float = PIXEL_MEAN, scale: float = PIXEL_SCALE
) -> dict[str, FloatArray]:
    """Other inputs that a network may have been made for: explanation -> float32 like `blob`."""
    raw = blob if is_raw else blob * np.float32(scale) + np.float32(mean)
    others = {
        "with red and blue exchanged: it takes BGR, expected RGB; exchange the channels of its "
        "first weights": blob[:, ::-1],
    }
    if is_raw:
        others[
            "with normalized pixels or pixels of 0 to 1, though its graph starts with Sub and Mul "
            "like those for pixels of 0 to 255; export it without these, for (x - 127.5) / 128"
        ] = (raw - np.float32(mean)) / np.float32(scale)
    else:
        others[
            "with pixels of 0 to 255: mean and scale are folded into its graph; export it without "
            "them, or with Sub and Mul at the start, which are recognized"
        ] = raw
    return others


def _check_landmarks(trial: _Trial, faces: Faces, rows: Mapping[int, int]) -> str:
    """A warning; empty if there is none."""
    if faces.landmarks is None:
        return ""
    expected = drawn_landmarks()[list(rows)] * np.float32(trial.scale)
    boxes = drawn_boxes()[list(rows)] * np.float32(trial.scale)
    heights = (boxes[:, 3] - boxes[:, 1])[:, None]

    def apart(landmarks: FloatArray) -> float:
        """Mean distance, in heights of a head."""
        return float((np.linalg.norm(landmarks - expected, axis=2) / heights).mean())

    found = faces.landmarks[list(rows.values())]
    if apart(found) <= _MAX_DISTANCE:
        return ""
    path = trial.detector.network.path
    orders = {order: apart(found[:, order]) for order in permutations(range(len(LANDMARK_NAMES)))}
    best = min(orders, key=orders.__getitem__)
    if orders[best] <= _MAX_DISTANCE:
        names = [LANDMARK_NAMES[best.index(place)] for place in range(len(LANDMARK_NAMES))]
        raise ModelError(
            f"{path}: its landmarks are in the order {', '.join(names)}; expected "
            f"{', '.join(LANDMARK_NAMES)}; export it in that order"
        )
    for change, sentence in (
        (_in_pixels, "its landmarks are in pixels, expected offsets in strides of the grid"),
        (_y_first, "its landmarks are y before x, expected x before y"),
    ):
        changed = trial.faces(trial.changed(("landmark",), change)).landmarks
        assert changed is not None
        if apart(changed[list(rows.values())]) <= _MAX_DISTANCE:
            raise ModelError(f"{path}: {sentence}; export it in that form")
    return (
        f"its landmarks lie {100 * apart(found):.0f} % of a head's height from those of the drawn "
        f"faces; expect poor alignment, and therefore poor recognition"
    )


def check_recognizer(recognizer: ArcFace) -> str:
    """Check a recognizer on two drawn faces.

    Costs one run of the network with two faces, and up to three more to find a cause.

    Returns:
        A warning, one sentence; empty if there is none.

    Raises:
        ModelError: the recognizer cannot work; names the likely cause.
    """
    network = recognizer.network
    path = network.path
    crops = align_faces(drawn_faces(), drawn_landmarks()[_TWO_PEOPLE])
    blob = recognizer.prepare(crops)

    def alike(pixels: FloatArray) -> float:
        """Cosine of the two people."""
        pixels = np.ascontiguousarray(pixels, np.float32)
        parts = run_in_batches(network, pixels, recognizer.takes_batches)
        raw = np.concatenate([output.copy() for _, output in parts])
        if not np.isfinite(raw).all():
            raise ModelError(
                f"{path}: returns embeddings that are not finite, as if half precision "
                f"overflowed; use it in fp32, or keep the layers that overflow in float32"
            )
        lengths = np.linalg.norm(raw, axis=1)
        if not lengths.all():
            raise ModelError(
                f"{path}: returns embeddings of zeros: the weights are missing or damaged; "
                f"download or export it again"
            )
        return float(raw[0] @ raw[1] / lengths.prod())

    cosine = alike(blob)
    if cosine > _CONSTANT:
        raise ModelError(
            f"{path}: returns the same embedding for two different faces: it ignores its input, or "
            f"the weights are missing or damaged; download or export it again"
        )
    others = _other_pixels(blob, network.normalizes_input, scale=PIXEL_MEAN)
    if cosine > _ALIKE:
        for sentence, pixels in others.items():
            if "BGR" not in sentence and alike(pixels) < _DIFFERENT:
                return f"{path}: tells faces apart only {sentence}"
        return (
            f"{path}: returns nearly the same embedding for two different drawn faces "
            f"(cosine {cosine:.3f}): check whether it tells people in your images apart"
        )
    if network.normalizes_input:
        sentence, pixels = list(others.items())[-1]
        if alike(pixels) < _ALIKE:
            return f"{path}: tells faces apart also {sentence}"
    return ""
