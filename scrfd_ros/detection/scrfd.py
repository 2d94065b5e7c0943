# SPDX-License-Identifier: Apache-2.0
"""SCRFD: from an image to boxes, scores and landmarks.

Sample and Computation Redistribution for Efficient Face Detection, Guo et al., ICLR 2022,
https://arxiv.org/abs/2105.04714. The network has two anchors at every location of three grids. For
each anchor it predicts a score, the distances to the four sides of the box and, in some models, the
offsets of five landmarks, in units of the grid's stride.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.arrays import checked_image
from scrfd_ros.config import DetectorConfig
from scrfd_ros.detection.letterbox import Letterbox
from scrfd_ros.detection.levels import (
    OUTPUT_COUNTS,
    ChosenAnchors,
    Level,
    match_outputs,
    unrecognized,
)
from scrfd_ros.detection.nms import nms
from scrfd_ros.detection.on_device import DeviceSearch, Input
from scrfd_ros.detection.views import View, plan_views
from scrfd_ros.errors import ModelError
from scrfd_ros.faces import LANDMARK_NAMES, Faces, FloatArray
from scrfd_ros.inference.blob import BlobWriter
from scrfd_ros.inference.network import Network

PIXEL_MEAN = 127.5
PIXEL_SCALE = 128.0

_MAX_PIXEL_DIFFERENCE = 4
"""Of 255, between noise that the device draws and that the processor draws.

OpenCV's arithmetic is not the same in every build: with float instead of its integers noise
differs by 1, with weights in 1/64 by 3. A shift by 1/64 of a pixel makes 6 or more, by 1/8 over 50.
"""

Outputs: TypeAlias = "Mapping[str, NDArray[np.float32]]"
"""Arrays by output name, for one input."""

MAX_BATCH = 8
"""Maximum batch if the network itself has no limit; activations take memory."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Inputs of a network, and what is on them.

    Attributes:
        blob: float32 [N, 3, H, W].
        images: number of the image on each of the N inputs.
        views: of that image on each of the N inputs.
        config: what the inputs were prepared by, and their outputs are decoded by.
        turn: counts the batches of a detector, which share their memory; None for a blob with
            memory of its own.
    """

    blob: FloatArray
    images: tuple[int, ...]
    views: tuple[tuple[View, ...], ...]
    config: DetectorConfig
    turn: int | None

    def with_blob(self, blob: FloatArray) -> Batch:
        """The same views with other values, float32 [N, 3, H, W]."""
        return replace(self, blob=blob, turn=None)


class BatchOutputs(NamedTuple):
    """What a network returns for a batch.

    Attributes:
        batch: the inputs.
        rows: the outputs for each of them.
    """

    batch: Batch
    rows: tuple[Outputs, ...]


class Scrfd:
    """An SCRFD network as a face detector. Keeps buffers between calls: use one for each thread.

    Args:
        network: one input [1 or N, 3, H, W] float32, and outputs as `match_outputs` expects them.
        config: may be replaced between calls by one of the same input size. Its model and
            engine_path have no effect here.

    Attributes:
        network: as given.
        levels: what its outputs are, from the finest stride to the coarsest.
        batch: how many inputs it takes at once.

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
        self._turn = 0  # how often the blob was drawn
        self._normalization = (0.0, 1.0) if network.normalizes_input else (PIXEL_MEAN, PIXEL_SCALE)
        self._writer = BlobWriter(*self._normalization)
        # Declared shapes can be symbolic or wrong; those of a first run's outputs are not.
        black = np.zeros((height, width, 3), np.uint8)
        blob = self._draw([(black, plan_views(width, height, width, height))])
        (outputs,) = self._run(blob)
        shapes = {name: output.shape for name, output in outputs.items()}
        try:
            self.levels = match_outputs(shapes, width, height)
        except ModelError as error:
            raise ModelError(f"{network.path}: {error}") from None
        centers = [_anchor_centers(level, shapes[level.score]) for level in self.levels]
        self._centers = np.concatenate(centers)
        self._firsts = np.cumsum([0, *map(len, centers)])
        strides = np.array([level.stride for level in self.levels], np.float32)
        self._strides = np.repeat(strides, np.diff(self._firsts))[:, None, None]
        self.batch = self._max_batch(blob)
        self._device = self._device_search()

    @property
    def config(self) -> DetectorConfig:
        """The options of the next call.

        Raises:
            ValueError: it is set to one with another input size.
        """
        return self._config

    @config.setter
    def config(self, config: DetectorConfig) -> None:
        self._check_size(config)
        self._config = config

    @property
    def has_landmarks(self) -> bool:
        """Whether the network finds landmarks, which recognition needs."""
        return self.levels[0].landmark is not None

    def _check_input(self, width: int, height: int) -> None:
        inputs = self.network.inputs
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] not in (3, None):
            found = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in inputs)
            raise ModelError(
                f"{self.network.path}: an SCRFD network has one input [1, 3, height, width]; "
                f"found {found}"
            )
        # Checked before the sizes, so that the error says it if the network is a recognizer.
        if len(self.network.outputs) not in OUTPUT_COUNTS:
            declared = {tensor.name: tensor.shape for tensor in self.network.outputs}
            reason = unrecognized(declared, width, height, f"their number is {len(declared)}")
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

    def _max_batch(self, blob: FloatArray) -> int:
        """How many inputs to run as one batch."""
        limit = self.network.max_batch
        if self.network.inputs[0].shape[0] is not None or limit == 1 or not self.network.on_gpu:
            return 1
        # Some exports declare a free batch yet refuse it, or flatten it into the rows.
        try:
            outputs = self.network({self.network.inputs[0].name: np.repeat(blob, 2, axis=0)})
        except ModelError:
            return 1
        return (limit or MAX_BATCH) if all(len(array) == 2 for array in outputs.values()) else 1

    def _device_search(self) -> DeviceSearch | None:
        """The detector's steps on the network's device, if that works there.

        Pixels that are wrong by a little would only cost faces. So what the device makes of an
        image is compared with what the processor makes of it.
        """
        device = self.network.device
        if device is None:
            return None
        size, (mean, scale) = self._config.input_size, self._normalization
        anchors = np.diff(self._firsts).tolist()
        try:
            search = DeviceSearch(
                self.network, device, self.levels, anchors, size, self.batch, mean=mean, scale=scale
            )
            self._compare(search)
        except (ModelError, OSError) as error:
            logging.getLogger(__name__).warning(
                "%s: the processor draws its input and looks for candidates, which takes longer: "
                "%s",
                self.network.path,
                error,
            )
            return None
        return search

    def _compare(self, search: DeviceSearch) -> None:
        """Raise `ModelError` if the device draws or chooses otherwise than the processor."""
        width, height = self._config.input_size
        shape = max(3 * height // 4, 1), 4 * width // 3, 3
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        views = plan_views(shape[1], shape[0], width, height, large_faces=True)
        views = tuple(view for view in views if view.canvas == 0)
        planes, outputs, chosen = search.trial(image, views)
        (drawn,) = self._draw([(image, views)])
        difference = float(np.rint(np.abs(planes - drawn).max() * self._normalization[1]))
        if not difference <= _MAX_PIXEL_DIFFERENCE:
            raise ModelError(
                f"the device draws pixels that differ by up to {difference:.3g} of 255 from the "
                f"processor's"
            )
        expected = self._chosen(outputs, -np.inf)
        if not all(map(partial(np.array_equal, equal_nan=True), chosen, expected)):
            raise ModelError(
                f"the device chooses {len(chosen.rows)} candidates, the processor "
                f"{len(expected.rows)}, or others"
            )

    def detect(self, image: NDArray[np.uint8]) -> Faces:
        """Faces of an image, uint8 [H, W, 3] BGR, in its own pixels.

        Raises:
            ValueError: the image is another array.
            ModelError: the network fails.
        """
        return self.detect_all([image])[0]

    def detect_all(
        self,
        images: Sequence[NDArray[np.uint8]],
        done: Callable[[str], None] = lambda stage: None,
    ) -> list[Faces]:
        """Faces of several images, each in pixels of its own image.

        They are processed in batches of at most `batch` inputs, so that memory does not grow with
        their number; only the images themselves lie together on a device that draws the inputs.

        Args:
            images: uint8 [H, W, 3] BGR, of any sizes.
            done: called with the name of each stage that ends, repeatedly: prepare (letterbox and
                normalize), detect (run the network), decode.

        Raises:
            ValueError: an image is another array.
            ModelError: the network fails.
        """

        if self._device is not None:
            return self._detect_on_device(self._device, images, done)

        def inferred() -> Iterator[BatchOutputs]:
            for batch in self.prepare(images):
                done("prepare")
                outputs = self.infer(batch)
                done("detect")
                yield outputs
                done("decode")

        found = self.decode(inferred())
        done("decode")
        return found

    def device_milliseconds(self) -> dict[str, float]:
        """Milliseconds that the last batch took on the device.

        copy_in, network, copy_out, and, where the device draws the network's input and chooses the
        candidates, draw and candidates. With a CUDA graph these two are part of network. Empty
        where the backend does not measure them.
        """
        if self._device is not None:
            return self._device.milliseconds()
        return self.network.device_milliseconds()

    def prepare(
        self, images: Sequence[NDArray[np.uint8]], config: DetectorConfig | None = None
    ) -> Iterator[Batch]:
        """The network's inputs for some images, in batches of at most `batch`.

        The processor draws them. Each batch is drawn into the same memory when it is taken from the
        iterator: infer and decode it before the next one is taken.

        Args:
            images: uint8 [H, W, 3] BGR, of any sizes.
            config: of the same input size; None for the detector's own.

        Raises:
            ValueError: an image is another array, or the config has another input size.
        """
        if config is None:
            config = self._config
        else:
            self._check_size(config)
        return self._batches([checked_image(image) for image in images], config)

    def infer(self, batch: Batch) -> BatchOutputs:
        """Run the network. The outputs are valid until it runs again.

        Raises:
            ValueError: the batch has been overwritten by a later one.
            ModelError: the network fails.
        """
        self._check_turn(batch)
        return BatchOutputs(batch, self._run(batch.blob))

    def decode(self, outputs: Iterable[BatchOutputs]) -> list[Faces]:
        """The faces of each image that was given to one call of `prepare`, in its own pixels.

        Args:
            outputs: those of all its batches, such as map(detector.infer, batches).

        Raises:
            ValueError: a batch has been overwritten by a later one.
        """
        candidates: dict[int, list[_Candidates]] = {}
        config = self._config
        for batch, rows in outputs:
            self._check_turn(batch)
            config = batch.config
            chosen = (self._chosen(row, config.score_threshold) for row in rows)
            self._collect(zip(batch.images, batch.views, strict=True), chosen, candidates)
        return self._faces(candidates, config)

    def _detect_on_device(
        self,
        device: DeviceSearch,
        images: Sequence[NDArray[np.uint8]],
        done: Callable[[str], None],
    ) -> list[Faces]:
        config = self._config
        images = [checked_image(image) for image in images]
        candidates: dict[int, list[_Candidates]] = {}
        batches = list(self._inputs(images, config))
        found = device.search(images, batches, config.score_threshold, done)
        for inputs, chosen in zip(batches, found, strict=True):
            self._collect(inputs, chosen, candidates)
            done("decode")
        faces = self._faces(candidates, config)
        done("decode")
        return faces

    def _inputs(
        self, images: Sequence[NDArray[np.uint8]], config: DetectorConfig
    ) -> Iterator[Sequence[Input]]:
        """The number of the image and its views on each input, in batches."""
        inputs = [
            (number, tuple(views))
            for number, image in enumerate(images)
            for _, views in groupby(_views(image, config), key=lambda view: view.canvas)
        ]
        for start in range(0, len(inputs), self.batch):
            yield inputs[start : start + self.batch]

    def _batches(
        self, images: Sequence[NDArray[np.uint8]], config: DetectorConfig
    ) -> Iterator[Batch]:
        for inputs in self._inputs(images, config):
            numbers, views = zip(*inputs, strict=True)
            blob = self._draw([(images[number], of_image) for number, of_image in inputs])
            yield Batch(blob, numbers, views, config, self._turn)

    def _collect(
        self,
        inputs: Iterable[Input],
        chosen: Iterable[ChosenAnchors],
        candidates: dict[int, list[_Candidates]],
    ) -> None:
        """Add what was chosen on some inputs to the candidates of their images."""
        for (number, views), of_input in zip(inputs, chosen, strict=True):
            located = self._located(of_input)
            candidates.setdefault(number, []).extend(_in_image(located, views))

    def _faces(
        self, candidates: Mapping[int, Sequence[_Candidates]], config: DetectorConfig
    ) -> list[Faces]:
        return [self._best(candidates[number], config) for number in sorted(candidates)]

    def _draw(self, inputs: Sequence[tuple[NDArray[np.uint8], Sequence[View]]]) -> FloatArray:
        """Letterbox and normalize some images' views, float32 [N, 3, H, W]; a buffer."""
        if len(inputs) > len(self._letterboxes):
            self._blob = np.empty((len(inputs), *self._blob.shape[1:]), np.float32)
            self._letterboxes = [Letterbox(planes, self._writer) for planes in self._blob]
        self._turn += 1
        for (image, views), letterbox in zip(inputs, self._letterboxes, strict=False):
            letterbox.draw(image, views)
        return self._blob[: len(inputs)]

    def _run(self, blob: FloatArray) -> tuple[Outputs, ...]:
        outputs = self.network({self.network.inputs[0].name: blob})
        if len(blob) == 1:
            return (outputs,)
        rows = range(len(blob))
        return tuple({name: array[row] for name, array in outputs.items()} for row in rows)

    def _check_size(self, config: DetectorConfig) -> None:
        if config.input_size != self._config.input_size:
            raise ValueError(
                f"detector.input_size is {self._config.input_size} and cannot change to "
                f"{config.input_size}: load the detector again"
            )

    def _check_turn(self, batch: Batch) -> None:
        if batch.turn not in (None, self._turn):
            raise ValueError(
                "a later batch has overwritten this one: infer and decode each batch before the "
                "next one is prepared"
            )

    def _best(self, parts: Sequence[_Candidates], config: DetectorConfig) -> Faces:
        """The faces among all candidates of an image."""
        scores, points, _ = parts[0] if len(parts) == 1 else _joined(parts)
        # Half precision overflows without an error. A box with its corners exchanged is no face.
        sound = np.isfinite(scores) & np.isfinite(points).all(axis=(1, 2))
        sound &= (points[:, 0] <= points[:, 1]).all(axis=1)
        order = np.argsort(-scores, kind="stable")
        order = order[sound[order]]
        kept = nms(points[order, :2].reshape(-1, 4), config.nms_threshold, config.max_faces or None)
        order = order[kept]
        points = points[order]
        return Faces(
            boxes=points[:, :2].reshape(-1, 4),
            scores=scores[order],
            landmarks=points[:, 2:] if self.has_landmarks else None,
        )

    def _chosen(self, outputs: Outputs, threshold: float) -> ChosenAnchors:
        """The anchors of one input that score at least the threshold."""
        scores = np.concatenate([outputs[level.score].reshape(-1) for level in self.levels])
        rows = np.flatnonzero(scores >= threshold)
        landmarks = len(LANDMARK_NAMES) if self.has_landmarks else 0
        places = np.empty((len(rows), 2 + landmarks, 2), np.float32)
        bounds = np.searchsorted(rows, self._firsts)
        parts = zip(self.levels, self._firsts[:-1], bounds[:-1], bounds[1:], strict=True)
        for level, first, begin, end in parts:
            if begin == end:
                continue
            of_level = rows[begin:end] - first
            places[begin:end, :2] = outputs[level.box].reshape(-1, 2, 2)[of_level]
            if level.landmark is not None:
                found = outputs[level.landmark].reshape(-1, landmarks, 2)
                places[begin:end, 2:] = found[of_level]
        return ChosenAnchors(rows, scores[rows], places)

    def _located(self, chosen: ChosenAnchors) -> _Candidates:
        """Chosen anchors in pixels of the input."""
        points = chosen.places * self._strides[chosen.rows]
        points[:, 0] *= -1  # distances to the left and to the top
        centers = self._centers[chosen.rows]
        points += centers[:, None]
        return _Candidates(chosen.scores, points, centers)


def _anchor_centers(level: Level, shape: tuple[int, ...]) -> FloatArray:
    """Where the anchors of a level are, float32 [N, 2], pixels of the input.

    Args:
        shape: of the level's scores, N values.
    """
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


def _views(image: NDArray[np.uint8], config: DetectorConfig) -> tuple[View, ...]:
    height, width = image.shape[:2]
    return plan_views(width, height, *config.input_size, config.tiles, config.large_faces)


def _joined(parts: Sequence[_Candidates]) -> _Candidates:
    return _Candidates(*map(np.concatenate, zip(*parts, strict=True)))


def _in_image(candidates: _Candidates, views: Sequence[View]) -> Iterator[_Candidates]:
    """The candidates on one input, in pixels of the image, by the view that each lies in.

    Those in no other view belong to the first.
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
    """The candidates of a view that count there, in pixels of the image."""
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
