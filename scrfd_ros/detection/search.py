# SPDX-License-Identifier: Apache-2.0
"""One size of the network's input: views are drawn onto it, and candidates come out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.detection.letterbox import Letterbox
from scrfd_ros.detection.levels import ChosenAnchors, Level, match_outputs
from scrfd_ros.detection.on_device import DeviceSearch
from scrfd_ros.detection.views import View, plan_views
from scrfd_ros.errors import ModelError
from scrfd_ros.faces import LANDMARK_NAMES, FloatArray
from scrfd_ros.inference.blob import BlobWriter
from scrfd_ros.inference.network import Network

PIXEL_MEAN = 127.5
PIXEL_SCALE = 128.0

MAX_BATCH = 8
"""Maximum batch if the network itself has no limit; activations take memory."""

_MAX_PIXEL_DIFFERENCE = 4
"""Of 255, between noise that the device draws and that the processor draws.

OpenCV's arithmetic is not the same in every build: with float instead of its integers noise
differs by 1, with weights in 1/64 by 3. A shift by 1/64 of a pixel makes 6 or more, by 1/8 over 50.
"""

Outputs: TypeAlias = "Mapping[str, NDArray[np.float32]]"
"""Arrays by output name, for one input."""


class Candidates(NamedTuple):
    """Scores [N], points [N, 2 or 7, 2] and centers [N, 2] of anchors, in pixels; float32.

    The points are two corners of the box, top left and bottom right, and the landmarks.
    """

    scores: FloatArray
    points: FloatArray
    centers: FloatArray

    def where(self, chosen: Any) -> Candidates:
        """Those that an index or a mask of rows chooses."""
        return Candidates(*(array[chosen] for array in self))


class Search:
    """A network at one size of its input. Keeps buffers between calls: use it in one thread.

    Args:
        network: of SCRFD, with one input [1 or N, 3, H, W].
        size: width and height of the input, pixels, which the network takes.
        levels: what the outputs of this network are at another size; None to run it, to find out.

    Attributes:
        network, size: as given.
        levels: what the outputs are, from the finest stride to the coarsest.
        batch: how many inputs the network takes at once.
        device: the steps on the network's device, if they work there; else None.
        turn: how often inputs were drawn; each time overwrites those before.

    Raises:
        ModelError: the network is not an SCRFD network, or does not take this size.
    """

    def __init__(
        self, network: Network, size: tuple[int, int], levels: Sequence[Level] | None = None
    ) -> None:
        self.network = network
        self.size = size
        width, height = size
        self._letterboxes: list[Letterbox] = []
        self._blob = np.empty((0, 3, height, width), np.float32)
        self.turn = 0
        self._normalization = (0.0, 1.0) if network.normalizes_input else (PIXEL_MEAN, PIXEL_SCALE)
        self._writer = BlobWriter(*self._normalization)
        if levels is None:
            self.levels = self._matched()
        else:
            self.levels = [replace(level, columns=width // level.stride) for level in levels]
        counts = [level.anchors * level.columns * (height // level.stride) for level in self.levels]
        self._firsts = np.cumsum([0, *counts])
        self._centers = np.concatenate(list(map(_anchor_centers, self.levels, counts)))
        strides = np.array([level.stride for level in self.levels], np.float32)
        self._strides = np.repeat(strides, counts)[:, None, None]
        self.batch = self._max_batch()
        self.device = self._device_search()

    @property
    def has_landmarks(self) -> bool:
        """Whether the network finds landmarks."""
        return self.levels[0].landmark is not None

    def draw(self, inputs: Sequence[tuple[NDArray[np.uint8], Sequence[View]]]) -> FloatArray:
        """Draw views of images, each on an input: normalized, float32 [N, 3, H, W]; a buffer."""
        if len(inputs) > len(self._letterboxes):
            self._blob = np.empty((len(inputs), *self._blob.shape[1:]), np.float32)
            self._letterboxes = [Letterbox(planes, self._writer) for planes in self._blob]
        self.turn += 1
        for (image, views), letterbox in zip(inputs, self._letterboxes, strict=False):
            letterbox.draw(image, views)
        return self._blob[: len(inputs)]

    def run(self, blob: FloatArray) -> tuple[Outputs, ...]:
        """The outputs for each input, valid until the network runs again.

        Raises:
            ModelError: the network fails.
        """
        outputs = self.network({self.network.inputs[0].name: blob})
        if len(blob) == 1:
            return (outputs,)
        rows = range(len(blob))
        return tuple({name: array[row] for name, array in outputs.items()} for row in rows)

    def chosen(self, outputs: Outputs, threshold: float) -> ChosenAnchors:
        """The anchors of one input that score at least the threshold.

        Raises:
            ModelError: the network returns another number of scores than inputs of this size have.
        """
        landmarks = len(LANDMARK_NAMES) if self.has_landmarks else 0
        parts = []
        for level, first, end in zip(self.levels, self._firsts, self._firsts[1:], strict=False):
            scores = outputs[level.score].reshape(-1)
            if len(scores) != end - first:
                raise self._wrong_count(len(scores), end - first, level)
            rows = (scores >= threshold).nonzero()[0]
            if not len(rows):
                continue
            places = np.empty((len(rows), 2 + landmarks, 2), np.float32)
            places[:, :2] = outputs[level.box].reshape(-1, 2, 2)[rows]
            if level.landmark is not None:
                places[:, 2:] = outputs[level.landmark].reshape(-1, landmarks, 2)[rows]
            parts.append(ChosenAnchors(rows + first, scores[rows], places))
        if len(parts) == 1:
            return parts[0]
        if parts:
            return ChosenAnchors(*map(np.concatenate, zip(*parts, strict=True)))
        nothing = np.zeros(0, np.float32)
        return ChosenAnchors(nothing.astype(np.intp), nothing, nothing.reshape(0, 2 + landmarks, 2))

    def located(self, chosen: ChosenAnchors) -> Candidates:
        """Chosen anchors in pixels of the input."""
        points = chosen.places * self._strides[chosen.rows]
        to_corner = points[:, 0]  # distances to the left and to the top
        np.negative(to_corner, out=to_corner)
        centers = self._centers[chosen.rows]
        points += centers[:, None]
        return Candidates(chosen.scores, points, centers)

    def _wrong_count(self, found: int, expected: int, level: Level) -> ModelError:
        width, height = self.size
        return ModelError(
            f"{self.network.path}: returns {found} scores of stride {level.stride} at "
            f"{width}x{height}, expected {expected}: it does not take every input size"
        )

    def _matched(self) -> list[Level]:
        # Declared shapes can be symbolic or wrong; those of a first run's outputs are not.
        (outputs,) = self.run(self._black())
        shapes = {name: output.shape for name, output in outputs.items()}
        try:
            return match_outputs(shapes, *self.size)
        except ModelError as error:
            raise ModelError(f"{self.network.path}: {error}") from None

    def _black(self) -> FloatArray:
        width, height = self.size
        black = np.zeros((height, width, 3), np.uint8)
        return self.draw([(black, plan_views(width, height, width, height).views)])

    def _max_batch(self) -> int:
        """How many inputs to run as one batch."""
        network = self.network
        limit = network.max_batch
        if network.inputs[0].shape[0] is not None or limit == 1 or not network.on_gpu:
            return 1
        # Some exports declare a free batch yet refuse it, or flatten it into the rows.
        try:
            outputs = network({network.inputs[0].name: np.repeat(self._black(), 2, axis=0)})
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
        mean, scale = self._normalization
        anchors = np.diff(self._firsts).tolist()
        try:
            search = DeviceSearch(
                self.network,
                device,
                self.levels,
                anchors,
                self.size,
                self.batch,
                mean=mean,
                scale=scale,
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
        width, height = self.size
        shape = max(3 * height // 4, 1), 4 * width // 3, 3
        image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        views = plan_views(shape[1], shape[0], width, height, large_faces=True).views
        views = tuple(view for view in views if view.canvas == 0)
        planes, outputs, chosen = search.trial(image, views)
        (drawn,) = self.draw([(image, views)])
        difference = float(np.rint(np.abs(planes - drawn).max() * self._normalization[1]))
        if not difference <= _MAX_PIXEL_DIFFERENCE:
            raise ModelError(
                f"the device draws pixels that differ by up to {difference:.3g} of 255 from the "
                f"processor's"
            )
        expected = self.chosen(outputs, -np.inf)
        if not all(map(partial(np.array_equal, equal_nan=True), chosen, expected)):
            raise ModelError(
                f"the device chooses {len(chosen.rows)} candidates, the processor "
                f"{len(expected.rows)}, or others"
            )


def _anchor_centers(level: Level, count: int) -> FloatArray:
    """Where the anchors of a level are, float32 [N, 2], pixels of the input."""
    # Locations run row by row, with the anchors of one location next to each other.
    y, x = np.divmod(np.arange(count) // level.anchors, level.columns)
    return (np.stack((x, y), axis=1) * level.stride).astype(np.float32)
