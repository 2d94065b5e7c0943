# SPDX-License-Identifier: Apache-2.0
"""SCRFD: from an image to boxes, scores and landmarks.

Sample and Computation Redistribution for Efficient Face Detection, Guo et al., ICLR 2022,
https://arxiv.org/abs/2105.04714. The network has two anchors at every location of three grids. For
each anchor it predicts a score, the distances to the four sides of the box and, in some models, the
offsets of five landmarks, in units of the grid's stride.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.arrays import checked_image
from scrfd_ros.config import AUTO, DetectorConfig
from scrfd_ros.detection.levels import (
    OUTPUT_COUNTS,
    ChosenAnchors,
    Level,
    coarsest_stride,
    unrecognized,
)
from scrfd_ros.detection.nms import nms
from scrfd_ros.detection.on_device import Input
from scrfd_ros.detection.search import Candidates, Outputs, Search
from scrfd_ros.detection.views import Plan, View, plan_views
from scrfd_ros.errors import ModelError
from scrfd_ros.faces import Faces, FloatArray
from scrfd_ros.inference.network import Network

NetworkOfSize: TypeAlias = "Callable[[tuple[int, int]], Network | None]"
"""From width and height of the input, pixels, to the network of that size.

None if there is none, or none yet. Called for every image whose size is not in use, so it must not
take long.
"""

_logger = logging.getLogger(__name__)

_MAX_OTHERS = 12
"""Sizes of input that are kept ready besides the first. Each takes some MiB, those of parts less.
"""


@dataclass(frozen=True, eq=False)
class Batch:
    """Inputs of a network, and what is on them.

    Attributes:
        blob: float32 [N, 3, H, W].
        images: number of the image on each of the N inputs.
        views: of that image on each of the N inputs.
        config: what the inputs were prepared by, and their outputs are decoded by.
        search: what drew them; it runs the network on them and reads its outputs.
        turn: counts what it drew, in the same memory; None for a blob with memory of its own.
    """

    blob: FloatArray
    images: tuple[int, ...]
    views: tuple[tuple[View, ...], ...]
    config: DetectorConfig
    search: Search
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
        sized: gives this network for other sizes of input, where each takes a network of its own.
            Where it gives none, the network itself is used.

    Attributes:
        network: as given.
        takes_all_sizes: whether it takes every width and height of input, so that also plans of
            `plan_parts` can be searched.
        largest_input: width and height, pixels, of its largest input, which images are scaled to
            fit into: the configured one, or the only one that the network takes.
        levels: what its outputs are, from the finest stride to the coarsest.
        batch: how many inputs it takes at once.

    Raises:
        ModelError: the network is not an SCRFD network, or does not take this input size.
    """

    def __init__(
        self,
        network: Network,
        config: DetectorConfig = DetectorConfig(),
        sized: NetworkOfSize | None = None,
    ) -> None:
        self.network = network
        self._config = config
        self._sized = sized
        self._check_network()
        _, _, height, width = network.inputs[0].shape
        # An engine with free sizes takes those it was built for, which need not be all.
        is_free = width is None and height is None and network.device is None
        levels = self._small_levels() if is_free else None
        self.takes_all_sizes = levels is not None
        self.largest_input = width or config.largest_input[0], height or config.largest_input[1]
        fits = config.fits_images and (self.takes_all_sizes or sized is not None)
        step = coarsest_stride(len(network.outputs))
        self._step = step if fits else None
        size = self.largest_input
        if self._step is not None and self.takes_all_sizes:  # rather than square, as cameras are
            size = plan_views(4, 3, *size, step=step).size
        is_whole = not any(side % step for side in size)  # else a run shows how it is rounded
        self._first = self._last = Search(network, size, levels if is_whole else None)
        if is_free and levels is None and config.fits_images:
            _logger.warning(
                "%s: every image is scaled to %dx%d, as other sizes of input fail, although the "
                "file allows them",
                network.path,
                *size,
            )
        self._others: OrderedDict[tuple[int, int], Search] = OrderedDict()  # by last use
        self.levels = self._first.levels
        self.batch = self._first.batch

    def _small_levels(self) -> Sequence[Level] | None:
        """What the outputs are, seen at a small size of input; None if the network fails at it.

        Such a run takes a fiftieth of the time. Some files declare free sizes and have others fixed
        inside.
        """
        side = 2 * coarsest_stride(len(self.network.outputs))
        try:
            return Search(self.network, (side, side)).levels
        except ModelError:
            return None

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
        return self._first.has_landmarks

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels, of the input that was tried when the detector was made."""
        return self._first.size

    def _check_network(self) -> None:
        inputs, config = self.network.inputs, self._config
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] not in (3, None):
            found = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in inputs)
            raise ModelError(
                f"{self.network.path}: an SCRFD network has one input [1, 3, height, width]; "
                f"found {found}"
            )
        width, height = config.largest_input
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
        if config.input_size in (AUTO, max(fixed_height or 0, fixed_width or 0)):
            return
        if fixed_height not in (height, None) or fixed_width not in (width, None):
            raise ModelError(
                f"{self.network.path}: takes images of {fixed_width}x{fixed_height} only, not "
                f"{width}x{height}; set the detector's input size to "
                f"[{fixed_width}, {fixed_height}] or {AUTO}"
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
        plans: Sequence[Plan | None] | None = None,
    ) -> list[Faces]:
        """Faces of several images, each in pixels of its own image.

        They are processed in batches of at most `batch` inputs of one size, so that memory does not
        grow with their number; only the images themselves lie together on a device that draws the
        inputs.

        Args:
            images: uint8 [H, W, 3] BGR, of any sizes.
            done: called with the name of each stage that ends, repeatedly: prepare (letterbox and
                normalize), detect (run the network), decode.
            plans: how each image is searched; None, for one or for all, is `plan` of its size.

        Raises:
            ValueError: an image is another array.
            ModelError: the network fails.
        """
        config = self._config
        images = [checked_image(image) for image in images]
        whole = self._plans(images, config)
        plans = whole if plans is None else [a or b for a, b in zip(plans, whole, strict=True)]
        candidates: dict[int, list[Candidates]] = {}
        for search, batches in self._work(plans):
            self._last = search
            for inputs, chosen in self._chosen(search, images, batches, config, done):
                _collect(search, inputs, chosen, candidates)
                done("decode")
        faces = self._faces(candidates, config)
        done("decode")
        return faces

    def plan(self, width: int, height: int) -> Plan:
        """How the whole of an image of this size, pixels, is searched."""
        return self._plan(width, height, self._config)

    def device_milliseconds(self) -> dict[str, float]:
        """Milliseconds that the last batch took on the device.

        copy_in, network, copy_out, and, where the device draws the network's input and chooses the
        candidates, draw and candidates. With a CUDA graph these two are part of network. Empty
        where the backend does not measure them.
        """
        if self._last.device is not None:
            return self._last.device.milliseconds()
        return self._last.network.device_milliseconds()

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
        self._last = batch.search
        return BatchOutputs(batch, batch.search.run(batch.blob))

    def decode(self, outputs: Iterable[BatchOutputs]) -> list[Faces]:
        """The faces of each image that was given to one call of `prepare`, in its own pixels.

        Args:
            outputs: those of all its batches, such as map(detector.infer, batches).

        Raises:
            ValueError: a batch has been overwritten by a later one.
        """
        candidates: dict[int, list[Candidates]] = {}
        config = self._config
        for batch, rows in outputs:
            self._check_turn(batch)
            config, search = batch.config, batch.search
            chosen = [search.chosen(row, config.score_threshold) for row in rows]
            inputs = list(zip(batch.images, batch.views, strict=True))
            _collect(search, inputs, chosen, candidates)
        return self._faces(candidates, config)

    def _plans(self, images: Sequence[NDArray[np.uint8]], config: DetectorConfig) -> list[Plan]:
        return [self._plan(image.shape[1], image.shape[0], config) for image in images]

    def _plan(self, width: int, height: int, config: DetectorConfig) -> Plan:
        tiles, large_faces = config.tiles, config.large_faces
        return plan_views(width, height, *self.largest_input, tiles, large_faces, self._step)

    def _work(self, plans: Sequence[Plan]) -> Iterator[tuple[Search, list[list[Input]]]]:
        """The inputs of images in batches, by their size."""
        by_size: dict[tuple[int, int], list[Input]] = {}
        for number, (size, views) in enumerate(plans):
            for _, on_input in groupby(views, key=lambda view: view.canvas):
                by_size.setdefault(size, []).append((number, tuple(on_input)))
        for size, inputs in by_size.items():
            search = self._search(size)
            batch = search.batch
            yield search, [inputs[at : at + batch] for at in range(0, len(inputs), batch)]

    def _search(self, size: tuple[int, int]) -> Search:
        """What searches inputs of this size: larger ones if the network has no others."""
        if size == self._first.size:
            return self._first
        search = self._others.pop(size, None)
        if search is None:
            network = self.network if self.takes_all_sizes else None
            if network is None and self._sized is not None:
                network = self._sized(size)
            if network is None:
                return self._first
            if len(self._others) == _MAX_OTHERS:
                self._others.popitem(last=False)
            search = Search(network, size, self.levels if network is self.network else None)
        self._others[size] = search
        return search

    def _chosen(
        self,
        search: Search,
        images: Sequence[NDArray[np.uint8]],
        batches: Sequence[Sequence[Input]],
        config: DetectorConfig,
        done: Callable[[str], None],
    ) -> Iterator[tuple[Sequence[Input], Sequence[ChosenAnchors]]]:
        """The inputs of each batch, and the anchors chosen on them."""
        threshold = config.score_threshold
        if search.device is not None:
            used = {number: images[number] for inputs in batches for number, _ in inputs}
            found = search.device.search(used, batches, threshold, done)
            yield from zip(batches, found, strict=True)
            return
        for inputs in batches:
            blob = search.draw([(images[number], views) for number, views in inputs])
            done("prepare")
            rows = search.run(blob)
            done("detect")
            yield inputs, [search.chosen(row, threshold) for row in rows]

    def _batches(
        self, images: Sequence[NDArray[np.uint8]], config: DetectorConfig
    ) -> Iterator[Batch]:
        for search, batches in self._work(self._plans(images, config)):
            for inputs in batches:
                numbers, views = zip(*inputs, strict=True)
                blob = search.draw([(images[number], of_image) for number, of_image in inputs])
                yield Batch(blob, numbers, views, config, search, search.turn)

    def _faces(
        self, candidates: Mapping[int, Sequence[Candidates]], config: DetectorConfig
    ) -> list[Faces]:
        return [self._best(candidates[number], config) for number in sorted(candidates)]

    def _check_size(self, config: DetectorConfig) -> None:
        if config.input_size != self._config.input_size:
            raise ValueError(
                f"detector.input_size is {self._config.input_text} and cannot change to "
                f"{config.input_text}: load the detector again"
            )

    def _check_turn(self, batch: Batch) -> None:
        if batch.turn not in (None, batch.search.turn):
            raise ValueError(
                "a later batch has overwritten this one: infer and decode each batch before the "
                "next one is prepared"
            )

    def _best(self, parts: Sequence[Candidates], config: DetectorConfig) -> Faces:
        """The faces among all candidates of an image."""
        scores, points, _ = parts[0] if len(parts) == 1 else _joined(parts)
        # Half precision overflows without an error. A box with its corners exchanged is no face.
        sound = np.isfinite(points).reshape(len(points), 2 * points.shape[1]).all(axis=1)
        sound &= np.isfinite(scores)
        sound &= (points[:, 0] <= points[:, 1]).all(axis=1)
        order = (-scores).argsort(kind="stable")
        order = order[sound[order]]
        kept = nms(points[order, :2].reshape(-1, 4), config.nms_threshold, config.max_faces or None)
        order = order[kept]
        points = points[order]
        return Faces(
            boxes=points[:, :2].reshape(-1, 4),
            scores=scores[order],
            landmarks=points[:, 2:] if self.has_landmarks else None,
        )


def _collect(
    search: Search,
    inputs: Sequence[Input],
    chosen: Sequence[ChosenAnchors],
    candidates: dict[int, list[Candidates]],
) -> None:
    """Add what was chosen on some inputs to the candidates of their images."""
    for (number, views), of_input in zip(inputs, chosen, strict=True):
        located = search.located(of_input)
        candidates.setdefault(number, []).extend(_in_image(located, views))


def _joined(parts: Sequence[Candidates]) -> Candidates:
    return Candidates(*map(np.concatenate, zip(*parts, strict=True)))


def _in_image(candidates: Candidates, views: Sequence[View]) -> Iterator[Candidates]:
    """The candidates on one input, in pixels of the image, by the view that each lies in.

    Those in no other view belong to the first, if it does not stand beside other parts.
    """
    first, *others = views
    rest = candidates
    for view in views if first.gap else others:
        x, y, width, height = view.target
        around = view.gap // 2
        low, beyond = (x - around, y - around), (x + width + around, y + height + around)
        inside = ((rest.centers >= low) & (rest.centers < beyond)).all(axis=1)
        yield _seen_in(view, rest.where(inside))
        rest = rest.where(~inside)
    if not first.gap:
        yield _seen_in(first, rest)


def _seen_in(view: View, candidates: Candidates) -> Candidates:
    """The candidates of a view that count there, in pixels of the image, instead of the input."""
    points = candidates.points
    if any(view.target[:2]):  # as a rule both begin at the top left
        points -= np.array(view.target[:2], np.float32)
    points /= np.array(view.scales, np.float32)
    if any(view.source[:2]):
        points += np.array(view.source[:2], np.float32)
    if not view.is_limited:
        return candidates
    low, high = points[:, 0], points[:, 1]
    drop = (high - low < view.smallest).all(axis=1)
    drop |= (low < view.bounds[:2]).any(axis=1) | (high > view.bounds[2:]).any(axis=1)
    return candidates.where(~drop)
