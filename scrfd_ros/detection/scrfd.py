# SPDX-License-Identifier: Apache-2.0
"""SCRFD: from an image to boxes, scores and landmarks.

Sample and Computation Redistribution for Efficient Face Detection, Guo et al., ICLR 2022,
https://arxiv.org/abs/2105.04714. The network's head predicts, for two anchors at every location of
three grids, a score, the distances to the box's four sides and, in some models, the offsets of five
landmarks, in units of the grid's stride.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.arrays import checked_image
from scrfd_ros.config import DetectorConfig
from scrfd_ros.detection.letterbox import Letterbox
from scrfd_ros.detection.nms import nms
from scrfd_ros.detection.views import View, plan_views
from scrfd_ros.errors import ModelError
from scrfd_ros.faces import LANDMARK_NAMES, Faces, FloatArray
from scrfd_ros.inference.blob import BlobWriter
from scrfd_ros.inference.network import Network

PIXEL_MEAN = 127.5
PIXEL_SCALE = 128.0

_STRIDES_AND_ANCHORS = {3: ((8, 16, 32), 2), 5: ((8, 16, 32, 64, 128), 1)}
OUTPUT_COUNTS = (6, 9, 10, 15)
"""So many outputs tell an SCRFD network from others."""

Outputs: TypeAlias = "Mapping[str, NDArray[np.float32]]"
"""Arrays by output name, for one input."""

MAX_BATCH = 8
"""Largest batch where the network itself has no limit; activations take memory."""

_KIND_OF_WIDTH = {1: "score", 4: "box", 2 * len(LANDMARK_NAMES): "landmark"}


@dataclass(frozen=True)
class Level:
    """The outputs of one stride: its grid and the names of its tensors."""

    stride: int
    anchors: int
    columns: int
    score: str
    box: str
    landmark: str | None


def match_outputs(shapes: Mapping[str, tuple[int, ...]], width: int, height: int) -> list[Level]:
    """Find out which output is which, by shape: the rows tell the stride, the columns the kind.

    Names and order differ between exports and between back ends, shapes do not.

    Args:
        shapes: shape of each output for one image: [rows, columns] or [1, rows, columns].
        width, height: input size of the network in pixels.

    Raises:
        ModelError: these are not the outputs of an SCRFD network.
    """
    kinds: dict[str, dict[int, str]] = {kind: {} for kind in _KIND_OF_WIDTH.values()}
    for name, shape in shapes.items():
        kind = _KIND_OF_WIDTH.get(shape[-1]) if len(shape) in (2, 3) else None
        rows = int(np.prod(shape[:-1]))
        if kind is None or rows in kinds[kind]:
            raise ModelError(_unrecognized(shapes, width, height, f"cannot place output {name!r}"))
        kinds[kind][rows] = name
    scores, boxes, landmarks = kinds["score"], kinds["box"], kinds["landmark"]
    if len(scores) not in _STRIDES_AND_ANCHORS:
        raise ModelError(_unrecognized(shapes, width, height, f"{len(scores)} score outputs"))
    strides, anchors = _STRIDES_AND_ANCHORS[len(scores)]
    levels = []
    for stride in strides:
        columns = width // stride
        rows = columns * (height // stride) * anchors
        if rows not in scores or rows not in boxes or (landmarks and rows not in landmarks):
            reason = f"stride {stride} needs outputs of {rows} rows"
            raise ModelError(_unrecognized(shapes, width, height, reason))
        levels.append(
            Level(stride, anchors, columns, scores[rows], boxes[rows], landmarks.get(rows))
        )
    if len(boxes) != len(levels) or len(landmarks) not in (0, len(levels)):
        raise ModelError(_unrecognized(shapes, width, height, "outputs left over"))
    return levels


def _unrecognized(
    shapes: Mapping[str, tuple[int | None, ...]], width: int, height: int, reason: str
) -> str:
    found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    return (
        f"the outputs are not those of an SCRFD network at {width}x{height}: {reason}. Expected 6 "
        f"or 9 outputs (10 or 15 with five strides) of 1, 4 and 10 columns; found {found}"
    )


class Scrfd:
    """An SCRFD network as a face detector. Keeps buffers between calls: use one per thread.

    Args:
        network: one input [1 or N, 3, H, W] float32, the outputs of `match_outputs`.
        config: may be replaced between calls by one of the same input size. Its model and
            engine_path have no meaning here.

    Raises:
        ModelError: the network is not an SCRFD network, or does not take this input size.
    """

    def __init__(self, network: Network, config: DetectorConfig = DetectorConfig()) -> None:
        self.network = network
        self._config = config
        width, height = config.input_size
        self._check_input(width, height)
        self._letterboxes: list[Letterbox] = []
        self._blob = np.empty((0, 3, height, width), np.float32)
        self._writer = BlobWriter(
            *((0.0, 1.0) if network.normalizes_input else (PIXEL_MEAN, PIXEL_SCALE))
        )
        # Declared shapes can be symbolic or wrong; what comes out of a first run is neither.
        black = self.prepare(np.zeros((height, width, 3), np.uint8))[:1]
        shapes = {name: output.shape for name, output in self.infer(black)[0].items()}
        try:
            self.levels = match_outputs(shapes, width, height)
        except ModelError as error:
            raise ModelError(f"{network.path}: {error}") from None
        centers = [_anchor_centers(level, shapes[level.score]) for level in self.levels]
        self._centers = np.concatenate(centers)
        self._firsts = np.cumsum([0, *map(len, centers)])
        self.batch = self._most_at_once(black)

    @property
    def config(self) -> DetectorConfig:
        """The options of the next call.

        Raises:
            ValueError: it is set to one of another input size.
        """
        return self._config

    @config.setter
    def config(self, config: DetectorConfig) -> None:
        if config.input_size != self._config.input_size:
            raise ValueError(
                f"detector.input_size is {self._config.input_size} and cannot change to "
                f"{config.input_size}: load the detector again"
            )
        self._config = config

    @property
    def has_landmarks(self) -> bool:
        """Whether this network finds landmarks, which recognition needs."""
        return self.levels[0].landmark is not None

    def _check_input(self, width: int, height: int) -> None:
        inputs = self.network.inputs
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] not in (3, None):
            found = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in inputs)
            raise ModelError(
                f"{self.network.path}: an SCRFD network has one input [1, 3, height, width]; "
                f"found {found}"
            )
        # Before the sizes, so that a recognizer given by mistake is called what it is.
        if len(self.network.outputs) not in OUTPUT_COUNTS:
            declared = {tensor.name: tensor.shape for tensor in self.network.outputs}
            reason = _unrecognized(declared, width, height, f"their number is {len(declared)}")
            raise ModelError(f"{self.network.path}: {reason}")
        batch, _, fixed_height, fixed_width = inputs[0].shape
        if batch not in (1, None):
            raise ModelError(
                f"{self.network.path}: takes {batch} images at once; expected a batch of 1 or any"
            )
        if fixed_height not in (height, None) or fixed_width not in (width, None):
            raise ModelError(
                f"{self.network.path}: takes images of {fixed_width}x{fixed_height} only, not "
                f"{width}x{height}; set the detector's input size to "
                f"[{fixed_width}, {fixed_height}]"
            )

    def _most_at_once(self, blob: NDArray[np.float32]) -> int:
        """How many inputs to run as one batch."""
        most = self.network.max_batch
        if self.network.inputs[0].shape[0] is not None or most == 1 or not self.network.on_gpu:
            return 1
        # Some exports declare a free batch yet refuse it, or flatten it into the rows.
        try:
            two = np.repeat(blob, 2, axis=0)
            outputs = self.network({self.network.inputs[0].name: two})
        except ModelError:
            return 1
        return (most or MAX_BATCH) if all(len(array) == 2 for array in outputs.values()) else 1

    def detect(self, image: NDArray[np.uint8]) -> Faces:
        """Faces of an image, uint8 [H, W, 3] BGR, in its own pixels.

        Raises:
            ValueError: the image is another array.
        """
        return self.detect_all([image])[0]

    def detect_all(
        self,
        images: Sequence[NDArray[np.uint8]],
        done: Callable[[str], None] = lambda stage: None,
    ) -> list[Faces]:
        """Faces of several images, each in its own pixels.

        Their views are drawn and looked at in batches of what the network takes at once, so that
        memory does not grow with their number.

        Args:
            images: uint8 [H, W, 3] BGR, of any sizes.
            done: called after each stage, again and again: prepare (letterbox and normalize),
                detect (the network), decode.

        Raises:
            ValueError: an image is another array.
        """
        images = [checked_image(image, "image") for image in images]
        inputs = [
            (number, views)
            for number, image in enumerate(images)
            for views in self._views_by_input(image)
        ]
        parts: list[list[_Candidates]] = [[] for _ in images]
        for start in range(0, len(inputs), self.batch):
            batch = inputs[start : start + self.batch]
            blob = self._draw([(images[number], views) for number, views in batch])
            done("prepare")
            outputs = self.infer(blob)
            done("detect")
            for (number, views), of_input in zip(batch, outputs, strict=True):
                parts[number] += _in_image(self._candidates(of_input), views)
            done("decode")
        found = [self._best(of_image) for of_image in parts]
        done("decode")
        return found

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The network's inputs for an image, float32 [N, 3, H, W], each as `detect` draws it.

        Args:
            image: uint8 [H, W, 3] BGR.

        Raises:
            ValueError: the image is another array.
        """
        image = checked_image(image, "image")
        inputs = self._views_by_input(image)
        width, height = self._config.input_size
        blob = np.empty((len(inputs), 3, height, width), np.float32)
        for planes, views in zip(blob, inputs, strict=True):
            self._writer.write(Letterbox(width, height)(image, views), planes)
        return blob

    def infer(self, blob: NDArray[np.float32]) -> list[Outputs]:
        """Run the network: its outputs for each of some inputs, valid until the next call.

        Args:
            blob: float32 [N, 3, H, W], N at most `batch`.
        """
        outputs = self.network({self.network.inputs[0].name: blob})
        if len(blob) == 1:
            return [outputs]
        return [{name: array[row] for name, array in outputs.items()} for row in range(len(blob))]

    def decode(self, outputs: Sequence[Outputs], size: tuple[int, int]) -> Faces:
        """Faces of one image, in its pixels.

        Args:
            outputs: from `infer`, of each input that `prepare` made of the image.
            size: width and height of the image, pixels.
        """
        views = _by_input(self._views(*size))
        parts: list[_Candidates] = []
        for of_input, group in zip(outputs, views, strict=True):
            parts += _in_image(self._candidates(of_input), group)
        return self._best(parts)

    def _views_by_input(self, image: NDArray[np.uint8]) -> list[list[View]]:
        height, width = image.shape[:2]
        return _by_input(self._views(width, height))

    def _views(self, width: int, height: int) -> tuple[View, ...]:
        config = self._config
        return plan_views(width, height, *config.input_size, config.tiles, config.large_faces)

    def _draw(
        self, inputs: Sequence[tuple[NDArray[np.uint8], Sequence[View]]]
    ) -> NDArray[np.float32]:
        """Letterbox and normalize some images' views, float32 [N, 3, H, W]; a buffer."""
        if len(inputs) > len(self._letterboxes):
            width, height = self._config.input_size
            self._blob = np.empty((len(inputs), 3, height, width), np.float32)
            self._letterboxes = [Letterbox(width, height) for _ in inputs]
        for (image, views), letterbox, planes in zip(
            inputs, self._letterboxes, self._blob, strict=False
        ):
            drawn = letterbox(image, views)
            rows, columns = letterbox.changed
            self._writer.write(drawn[rows, columns], planes[:, rows, columns])
        return self._blob[: len(inputs)]

    def _best(self, parts: Sequence[_Candidates]) -> Faces:
        """The faces among all candidates of an image."""
        scores, points, _ = parts[0] if len(parts) == 1 else _joined(parts)
        # Half precision overflows, and says nothing; a box can be inside out only by nonsense.
        sound = np.isfinite(scores) & np.isfinite(points).all(axis=(1, 2))
        sound &= (points[:, 0] <= points[:, 1]).all(axis=1)
        order = np.argsort(-scores, kind="stable")
        order = order[sound[order]]
        config = self._config
        kept = nms(points[order, :2].reshape(-1, 4), config.nms_threshold, config.max_faces or None)
        order = order[kept]
        points = points[order]
        return Faces(
            boxes=points[:, :2].reshape(-1, 4),
            scores=scores[order],
            landmarks=points[:, 2:] if self.has_landmarks else None,
        )

    def _candidates(self, outputs: Outputs) -> _Candidates:
        """What scores enough on one input, in its pixels."""
        scores = np.concatenate([outputs[level.score].reshape(-1) for level in self.levels])
        rows = np.flatnonzero(scores >= self._config.score_threshold)
        landmarks = len(LANDMARK_NAMES) if self.has_landmarks else 0
        points = np.empty((len(rows), 2 + landmarks, 2), np.float32)
        bounds = np.searchsorted(rows, self._firsts)
        parts = zip(self.levels, self._firsts[:-1], bounds[:-1], bounds[1:], strict=True)
        for level, first, begin, end in parts:
            if begin == end:
                continue
            of_level = rows[begin:end] - first
            points[begin:end, :2] = outputs[level.box].reshape(-1, 2, 2)[of_level]
            if level.landmark is not None:
                found = outputs[level.landmark].reshape(-1, landmarks, 2)
                points[begin:end, 2:] = found[of_level]
            points[begin:end] *= level.stride
        points[:, 0] *= -1  # distances to the left and to the top
        centers = self._centers[rows]
        points += centers[:, None]
        return _Candidates(scores[rows], points, centers)


def _anchor_centers(level: Level, shape: tuple[int, ...]) -> FloatArray:
    """Where the anchors of a level are, in pixels of the input, for its scores of this shape."""
    # Locations run row by row, with the anchors of one location next to each other.
    y, x = np.divmod(np.arange(math.prod(shape)) // level.anchors, level.columns)
    return (np.stack((x, y), axis=1) * level.stride).astype(np.float32)


class _Candidates(NamedTuple):
    """Scores [N], points [N, 2 or 7, 2] and centers [N, 2] of the anchors; float32.

    The points are two corners of the box, top left and bottom right, and the landmarks.
    """

    scores: FloatArray
    points: FloatArray
    centers: FloatArray

    def where(self, chosen: Any) -> _Candidates:
        return _Candidates(*(array[chosen] for array in self))


def _by_input(views: Sequence[View]) -> list[list[View]]:
    return [list(group) for _, group in groupby(views, key=lambda view: view.canvas)]


def _joined(parts: Sequence[_Candidates]) -> _Candidates:
    return _Candidates(*map(np.concatenate, zip(*parts, strict=True)))


def _in_image(candidates: _Candidates, views: Sequence[View]) -> Iterator[_Candidates]:
    """The candidates on one input in pixels of the image, each as the view shows that it is in.

    The first view has all those that are in no other.
    """
    first, *others = views
    rest = candidates
    for view in others:
        x, y, width, height = view.target
        beyond = x + width, y + height
        inside = ((rest.centers >= (x, y)) & (rest.centers < beyond)).all(axis=1)
        yield _seen_in(view, rest.where(inside))
        rest = rest.where(~inside)
    yield _seen_in(first, rest)


def _seen_in(view: View, candidates: _Candidates) -> _Candidates:
    """The candidates of a view that count, in pixels of the image."""
    target, source = (np.array(part[:2], np.float32) for part in (view.target, view.source))
    points = candidates.points - target
    points /= np.array(view.scales, np.float32)
    points += source
    seen = candidates._replace(points=points)
    if not view.is_limited:
        return seen
    low, high = points[:, 0], points[:, 1]
    drop = (high - low < view.smallest).all(axis=1)
    drop |= (low < view.bounds[:2]).any(axis=1) | (high > view.bounds[2:]).any(axis=1)
    return seen.where(~drop)
