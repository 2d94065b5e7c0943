# SPDX-License-Identifier: Apache-2.0
"""Whether a network does what it is taken for, told before the first image.

It is run once on drawn faces, which every network of the catalogue that could be tried knows how to
handle (what was measured: docs/models.md). What cannot be right
is an error. What may be right for all we know, such as a detector of one's own that finds no drawn
face, is told in a sentence, for nobody should be kept from using it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import permutations

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.config import DetectorConfig
from scrfd_ros.detection.scrfd import (
    PIXEL_MEAN,
    PIXEL_SCALE,
    Batch,
    BatchOutputs,
    Level,
    Outputs,
    Scrfd,
)
from scrfd_ros.engines.drawn_faces import (
    BACKGROUND,
    drawn_boxes,
    drawn_faces,
    drawn_landmarks,
)
from scrfd_ros.errors import ModelError
from scrfd_ros.faces import LANDMARK_NAMES, Faces, FloatArray, ious
from scrfd_ros.inference.batches import run_in_batches
from scrfd_ros.inference.network import Network
from scrfd_ros.models.catalogue import DETECTOR, RECOGNIZER
from scrfd_ros.recognition.alignment import align_faces
from scrfd_ros.recognition.arcface import ArcFace

_SMALLEST = 96  # pixels of the input, below which the drawn faces are too small
_SCORE, _IOU = 0.5, 0.7  # that a face has to have to count; measured: 0.69 and 0.75, or more
_FOUND = 3  # of four faces; fewer than that ask for an explanation, and as many prove one
_MAX_FACES = 8  # where four are
_LANDMARKS_APART = 0.1  # of the height of a head, mean; measured: 0.042 or less
_ALIKE, _DIFFERENT = 0.95, 0.9  # cosine of two drawn people; measured: 0.79
_CONSTANT = 0.9999
_TWO_PEOPLE = slice(2, 4)  # the least alike of the drawn ones


def check_network(network: Network, kind: str | None, input_size: tuple[int, int]) -> str:
    """`check_detector` or `check_recognizer` for a network of a kind of the catalogue, or nothing.

    Args:
        network: ready to run.
        kind: `DETECTOR`, `RECOGNIZER` or another.
        input_size: width and height of a detector's input, pixels, where it takes any.
    """
    if kind == DETECTOR:
        height, width = network.inputs[0].shape[2:]
        size = width or input_size[0], height or input_size[1]
        return check_detector(Scrfd(network, DetectorConfig(input_size=size)))
    return check_recognizer(ArcFace(network)) if kind == RECOGNIZER else ""


def check_detector(detector: Scrfd) -> str:
    """What is doubtful about a detector, in a sentence; empty where nothing is.

    Costs one run of the network where nothing is, and up to four more to find the cause.

    Raises:
        ModelError: it cannot work as it is; names the likely cause.
    """
    path = detector.network.path
    width, height = detector.config.input_size
    drawing = drawn_faces()
    side = min(width, height, len(drawing))
    scale = side / len(drawing)
    image = np.full((height, width, 3), BACKGROUND, np.uint8)
    image[:side, :side] = cv2.resize(drawing, (side, side), interpolation=cv2.INTER_AREA)
    config = DetectorConfig(input_size=(width, height), score_threshold=_SCORE)
    (batch,) = detector.prepare([image], config)
    # Copies, for the next run may overwrite them.
    outputs = {name: array.copy() for name, array in detector.infer(batch).rows[0].items()}
    _refuse_impossible(detector, outputs)
    if side < _SMALLEST:
        return ""
    faces = _decoded(detector, batch, outputs)
    rows = _found(faces, scale)
    if len(rows) < _FOUND:
        cause = _cause(detector, batch, outputs, scale)
        if cause:
            raise ModelError(f"{path}: {cause}")
        return (
            f"{path}: finds {len(rows)} of the {len(drawn_boxes())} faces in the drawing that "
            f"models are checked with and {len(faces) - len(rows)} where none are, whatever "
            f"the order of outputs or the range of pixels: look whether it finds those in your "
            f"images. It may be for something else than faces, or have lost too much when it "
            f"was quantized"
        )
    if len(faces) > _MAX_FACES:
        return (
            f"{path}: finds {len(faces)} faces in a drawing of {len(drawn_boxes())}: expect "
            f"many false ones, or raise the score threshold"
        )
    doubt = _check_landmarks(detector, batch, outputs, faces, rows, scale)
    return f"{path}: {doubt}" if doubt else ""


def _decoded(detector: Scrfd, batch: Batch, outputs: Outputs) -> Faces:
    """What these outputs mean for the one input of the batch."""
    (faces,) = detector.decode([BatchOutputs(batch, (outputs,))])
    return faces


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
            f"{path}: gives values that are no numbers, as where half precision overflows; use it "
            f"in fp32, or keep the layers that overflow in float32"
        )
    low, high = float(scores.min()), float(scores.max())
    if low < -1e-3 or high > 1 + 1e-3:
        raise ModelError(
            f"{path}: scores are from {low:.3g} to {high:.3g}, expected probabilities, 0 to 1: the "
            f"sigmoid at the end is missing; export the model with it"
        )
    if high - low < 1e-6:
        raise ModelError(
            f"{path}: all scores are {high:.3g}, whatever the image: its weights are missing or "
            f"damaged; fetch or export it again"
        )


def _found(faces: Faces, scale: float) -> dict[int, int]:
    """Number of a drawn face -> row of the best face that was found there."""
    is_there = ious(faces.boxes, drawn_boxes() * np.float32(scale)) >= _IOU
    # The best score comes first.
    return {number: int(rows.argmax()) for number, rows in enumerate(is_there.T) if rows.any()}


_Change = Callable[[NDArray[np.float32], Level], NDArray[np.float32]]


def _changed(detector: Scrfd, outputs: Outputs, kinds: tuple[str, ...], change: _Change) -> Outputs:
    """The outputs with those of some kinds changed."""
    changed: dict[str, NDArray[np.float32]] = dict(outputs)
    for level in detector.levels:
        for kind in kinds:
            name = getattr(level, kind)
            if name is not None:
                changed[name] = change(outputs[name], level)
    return changed


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


def _cause(detector: Scrfd, batch: Batch, outputs: Outputs, scale: float) -> str:
    """What has to be changed for the drawn faces to be found; empty where nothing helps."""

    def explains(changed: Outputs) -> bool:
        faces = _decoded(detector, batch, changed)
        return len(faces) <= _MAX_FACES and len(_found(faces, scale)) >= _FOUND

    orders: Mapping[str, tuple[tuple[str, ...], _Change]] = {
        "its boxes are in pixels, expected distances in strides of the grid": (
            ("box", "landmark"),
            _in_pixels,
        ),
        "its boxes are in the order top, left, bottom, right; expected left, top, right, bottom": (
            ("box",),
            _y_first,
        ),
        "its outputs run through all locations for one anchor after the other; expected the "
        "anchors of one location next to each other": (_ALL, _anchors_first),
        "its outputs run column by column; expected row by row": (_ALL, _columns_first),
    }
    for sentence, (kinds, change) in orders.items():
        if explains(_changed(detector, outputs, kinds, change)):
            return f"{sentence}; export it in that form"
    for sentence, pixels in _other_pixels(batch.blob, detector.network.normalizes_input).items():
        other = batch.with_blob(np.ascontiguousarray(pixels))
        if explains(detector.infer(other).rows[0]):
            return f"finds faces only {sentence}"
    return ""


def _other_pixels(
    blob: FloatArray, is_raw: bool, mean: float = PIXEL_MEAN, scale: float = PIXEL_SCALE
) -> dict[str, FloatArray]:
    """What a network might be given instead: explanation -> float32 like `blob`."""
    raw = blob if is_raw else blob * np.float32(scale) + np.float32(mean)
    others = {
        "with red and blue exchanged: it takes BGR, expected RGB; exchange the channels of its "
        "first weights": blob[:, ::-1],
    }
    if is_raw:
        others[
            "with normalized pixels or such of 0 to 1, though its graph begins with Sub and Mul "
            "like those that take pixels of 0 to 255; export it without these, for (x - 127.5) / "
            "128"
        ] = (raw - np.float32(mean)) / np.float32(scale)
    else:
        others[
            "with pixels of 0 to 255: mean and scale are folded into its graph; export it without "
            "them, or as Sub and Mul at the beginning, by which they are known"
        ] = raw
    return others


def _check_landmarks(
    detector: Scrfd,
    batch: Batch,
    outputs: Outputs,
    faces: Faces,
    rows: Mapping[int, int],
    scale: float,
) -> str:
    if faces.landmarks is None:
        return ""
    expected = drawn_landmarks()[list(rows)] * np.float32(scale)
    boxes = drawn_boxes()[list(rows)] * np.float32(scale)
    heights = (boxes[:, 3] - boxes[:, 1])[:, None]

    def apart(landmarks: FloatArray) -> float:
        """Mean distance, in heights of a head."""
        return float((np.linalg.norm(landmarks - expected, axis=2) / heights).mean())

    found = faces.landmarks[list(rows.values())]
    if apart(found) <= _LANDMARKS_APART:
        return ""
    path = detector.network.path
    orders = {order: apart(found[:, order]) for order in permutations(range(len(LANDMARK_NAMES)))}
    best = min(orders, key=orders.__getitem__)
    if orders[best] <= _LANDMARKS_APART:
        names = [LANDMARK_NAMES[best.index(place)] for place in range(len(LANDMARK_NAMES))]
        raise ModelError(
            f"{path}: its landmarks are in the order {', '.join(names)}; expected "
            f"{', '.join(LANDMARK_NAMES)}; export it in that order"
        )
    for change, sentence in (
        (_in_pixels, "its landmarks are in pixels, expected offsets in strides of the grid"),
        (_y_first, "its landmarks are y before x, expected x before y"),
    ):
        other = _changed(detector, outputs, ("landmark",), change)
        changed = _decoded(detector, batch, other).landmarks
        assert changed is not None
        if apart(changed[list(rows.values())]) <= _LANDMARKS_APART:
            raise ModelError(f"{path}: {sentence}; export it in that form")
    return (
        f"its landmarks lie {100 * apart(found):.0f} % of a head's height from those of the drawn "
        f"faces; expect poor alignment, and so poor recognition"
    )


def check_recognizer(recognizer: ArcFace) -> str:
    """What is doubtful about a recognizer, in a sentence; empty where nothing is.

    Costs one run of the network with two faces where nothing is, and up to three more.

    Raises:
        ModelError: it cannot work; names the likely cause.
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
                f"{path}: gives embeddings that are no numbers, as where half precision "
                f"overflows; use it in fp32, or keep the layers that overflow in float32"
            )
        lengths = np.linalg.norm(raw, axis=1)
        if not lengths.all():
            raise ModelError(
                f"{path}: gives embeddings of zeros: its weights are missing or damaged; fetch or "
                f"export it again"
            )
        return float(raw[0] @ raw[1] / lengths.prod())

    cosine = alike(blob)
    if cosine > _CONSTANT:
        raise ModelError(
            f"{path}: gives two different faces the same embedding: it looks at no pixel, or its "
            f"weights are missing or damaged; fetch or export it again"
        )
    others = _other_pixels(blob, network.normalizes_input, scale=PIXEL_MEAN)
    if cosine > _ALIKE:
        for sentence, pixels in others.items():
            if "BGR" not in sentence and alike(pixels) < _DIFFERENT:
                return f"{path}: tells faces apart only {sentence}"
        return (
            f"{path}: gives two faces that are drawn differently nearly the same embedding "
            f"(cosine {cosine:.3f}): look whether it tells people in your images apart"
        )
    if network.normalizes_input:
        sentence, pixels = list(others.items())[-1]
        if alike(pixels) < _ALIKE:
            return f"{path}: tells faces apart also {sentence}"
    return ""
