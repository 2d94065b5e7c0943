# SPDX-License-Identifier: Apache-2.0
"""The detector's steps on a CUDA device, so that only images go in and only candidates come out.

kernels.cu draws the network's input from the images, and chooses the candidates from its outputs.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.detection.levels import ChosenAnchors, Level
from scrfd_ros.detection.views import View
from scrfd_ros.errors import BackendError, ModelError
from scrfd_ros.faces import LANDMARK_NAMES, FloatArray
from scrfd_ros.inference.cuda_api import CudaGraph, Resource
from scrfd_ros.inference.network import DeviceNetwork, Network, PreparedNetwork

Input: TypeAlias = "tuple[int, Sequence[View]]"
"""What lies on one input of the network: the number of an image, and views of it."""

_PTX = Path(__file__).with_name("kernels.ptx")
_PARTS = ("copy_in", "draw", "network", "candidates", "copy_out")
_TILE = 32, 8  # pixels that a block of threads draws
_ANCHORS = 256  # that a block of threads looks at
_FIRST = 256  # candidates that come back at once; more of them take another copy

# The structures of kernels.cu.
_LEVEL = np.dtype(
    [
        ("scores", np.uint64),
        ("boxes", np.uint64),
        ("landmarks", np.uint64),
        ("anchors", np.int32),
        ("unused", np.int32),
    ]
)
_HEAD = np.dtype(
    [
        ("threshold", np.float32),
        ("mean", np.float32),
        ("scale", np.float32),
        ("count", np.int32),
        ("width", np.int32),
        ("height", np.int32),
        ("anchors", np.int32),
        ("unused", np.int32),
        ("level", _LEVEL, 5),
    ]
)
_INPUT = np.dtype(
    [
        ("pixels", np.uint64),
        ("pitch", np.int32),
        ("source_size", np.int32, 2),
        ("size", np.int32, 2),
        ("second", np.int32, 4),
        ("unused", np.int32),
    ]
)
_CANDIDATE = np.dtype([("row", np.int32), ("score", np.float32), ("places", np.float32, (7, 2))])
_BEFORE_CANDIDATES = 64  # bytes, their number first


class DeviceSearch:
    """Draws images onto a network's inputs, runs it and chooses candidates, all on its device.

    Args:
        network: the detector's.
        device: its device.
        levels: what its outputs are.
        anchors: number of anchors of each level.
        input_size: width and height of its input, pixels.
        batch: maximum number of inputs at once.
        mean, scale: the network gets (pixel - mean) / scale.

    Raises:
        BackendError: the driver does not take the kernels, or memory is short.
    """

    def __init__(
        self,
        network: Network,
        device: DeviceNetwork,
        levels: Sequence[Level],
        anchors: Sequence[int],
        input_size: tuple[int, int],
        batch: int,
        *,
        mean: float,
        scale: float,
    ) -> None:
        self._network = network
        self._device = device
        self._cuda = cuda = device.cuda
        self._levels = levels
        self._anchors = sum(anchors)
        self._size = input_size
        self._points = 2 if levels[0].landmark is None else 2 + len(LANDMARK_NAMES)
        self._graphs: dict[int, CudaGraph] = {}
        self._records_graphs = True
        self._marks: list[str] = []
        with cuda.current():
            module = cuda.module(_PTX.read_bytes())
            self._draw, self._choose = (cuda.kernel(module, name) for name in ("draw", "choose"))
            self._module = module
            self._events = {part: cuda.event() for part in ("start", *_PARTS)}
            self._table = cuda.pinned(_HEAD.itemsize + batch * _INPUT.itemsize, np.uint8)
            self._table_memory = cuda.memory(self._table.nbytes)
            self._pixels = cuda.pinned(1, np.uint8)  # grows with the images
            self._pixel_memory = cuda.memory(self._pixels.nbytes)
            most = batch * self._anchors
            self._found = cuda.pinned(_BEFORE_CANDIDATES + most * _CANDIDATE.itemsize, np.uint8)
            self._found_memory = cuda.memory(self._found.nbytes)
        self._table[:] = 0
        (self._head,) = self._table[: _HEAD.itemsize].view(_HEAD)
        self._inputs = self._table[_HEAD.itemsize :].view(_INPUT)
        self._head["mean"], self._head["scale"] = mean, scale
        self._head["width"], self._head["height"] = input_size
        self._head["anchors"] = self._anchors
        self._head["level"]["anchors"][: len(levels)] = anchors
        self._candidates = self._found[_BEFORE_CANDIDATES:].view(_CANDIDATE)

    def search(
        self,
        images: Mapping[int, NDArray[np.uint8]],
        batches: Iterable[Sequence[Input]],
        threshold: float,
        done: Callable[[str], None] = lambda stage: None,
    ) -> Iterator[list[ChosenAnchors]]:
        """What scores at least the threshold, on each input of each batch.

        The images go to the device together, before the first batch.

        Args:
            images: by number, uint8 [H, W, 3] BGR, of any sizes.
            batches: what lies on the inputs.
            threshold: of the score.
            done: called with "prepare" when the work for a batch is described, and with "detect"
                when its candidates are here.

        Raises:
            ModelError: the device or the network fails.
        """
        with self._current():
            pixels, addresses = self._stage(images)
        for inputs in batches:
            self._head["threshold"] = threshold
            self._head["count"] = len(inputs)
            for row, (number, views) in enumerate(inputs):
                self._inputs[row] = _described(addresses[number], images[number], views)
            done("prepare")
            with self._current():
                chosen = self._run(pixels, len(inputs))
            pixels = pixels[:0]  # they are there now
            done("detect")
            yield chosen

    def trial(
        self, image: NDArray[np.uint8], views: Sequence[View]
    ) -> tuple[FloatArray, dict[str, FloatArray], ChosenAnchors]:
        """What the device makes of an image, to be compared with what the processor makes of it.

        Args:
            image: uint8 [H, W, 3] BGR.
            views: of it, on one input.

        Returns:
            planes: the input drawn, float32 [3, H, W].
            outputs: of the network, by name.
            chosen: all anchors whose score is a number.

        Raises:
            ModelError: the device or the network fails.
        """
        ((chosen,),) = self.search({0: image}, [[(0, views)]], -np.inf)
        width, height = self._size
        with self._current():
            prepared = self._device.prepare((1, 3, height, width))
            arrays = {}
            for name, shape in prepared.shapes.items():
                arrays[name] = self._cuda.pinned(shape, np.float32)
                self._cuda.copy_out(arrays[name], prepared.address(name), self._device.stream)
            self._cuda.synchronize(self._device.stream)
        (planes,) = arrays.pop(self._network.inputs[0].name)
        return planes, arrays, chosen

    def milliseconds(self) -> dict[str, float]:
        """Time of the last batch on the device by part, see `Scrfd.device_milliseconds`."""
        events = [self._events[part] for part in self._marks]
        with self._current():
            return {
                part: self._cuda.milliseconds(start, end)
                for part, start, end in zip(self._marks[1:], events, events[1:], strict=False)
            }

    def _stage(
        self, images: Mapping[int, NDArray[np.uint8]]
    ) -> tuple[NDArray[np.uint8], dict[int, int]]:
        """Write images into pinned memory.

        Returns:
            Their pixels there, and the address of each image on the device.
        """
        size = sum(image.size for image in images.values())
        if size > len(self._pixels):
            # Both or none, if memory is short.
            pixels, memory = self._cuda.pinned(size, np.uint8), self._cuda.memory(size)
            self._pixels, self._pixel_memory = pixels, memory
        addresses = {}
        end = 0
        for number, image in images.items():
            addresses[number] = int(self._pixel_memory) + end
            start, end = end, end + image.size
            np.copyto(self._pixels[start:end].reshape(image.shape), image)
        return self._pixels[:end], addresses

    def _run(self, pixels: NDArray[np.uint8], count: int) -> list[ChosenAnchors]:
        """The anchors chosen on so many inputs, after a copy of pixels if there are any."""
        cuda, stream = self._cuda, self._device.stream
        width, height = self._size
        prepared = self._device.prepare((count, 3, height, width))
        for row, level in enumerate(self._levels):
            addresses = self._head["level"][row]
            addresses["scores"] = prepared.address(level.score)
            addresses["boxes"] = prepared.address(level.box)
            if level.landmark is not None:
                addresses["landmarks"] = prepared.address(level.landmark)
        self._marks = []
        self._mark("start")
        if len(pixels):
            cuda.copy_in(int(self._pixel_memory), pixels, stream)
        used = _HEAD.itemsize + count * _INPUT.itemsize
        cuda.copy_in(int(self._table_memory), self._table[:used], stream)
        self._mark("copy_in")
        graph = self._graphs.get(count)
        if graph is None:
            self._queue(prepared, count, self._mark)
            self._mark("candidates")
        else:
            graph.launch()
            self._mark("network")
        total = self._copy_out(0, _FIRST)
        if total > _FIRST:
            self._copy_out(_FIRST, total)
        if graph is None and self._records_graphs and prepared.is_lasting:
            self._record(prepared, count)
        return self._split(self._candidates[:total], count)

    def _queue(self, prepared: PreparedNetwork, count: int, mark: Callable[[str], None]) -> None:
        width, height = self._size
        columns, rows = _TILE
        table, found = np.uint64(int(self._table_memory)), np.uint64(int(self._found_memory))
        planes = np.uint64(prepared.address(self._network.inputs[0].name))
        grid = -(-width // columns), -(-height // rows), count
        self._launch(self._draw, grid, (columns, rows, 1), (table, planes, found))
        mark("draw")
        prepared.enqueue()
        mark("network")
        grid = -(-count * self._anchors // _ANCHORS), 1, 1
        self._launch(self._choose, grid, (_ANCHORS, 1, 1), (table, found))

    def _launch(
        self,
        kernel: Resource,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[np.uint64],
    ) -> None:
        self._cuda.launch(kernel, grid, block, arguments, self._device.stream)

    def _record(self, prepared: PreparedNetwork, count: int) -> None:
        """Record the work for this number of inputs; it has run once, which some layers need."""
        try:
            self._graphs[count] = self._cuda.graph(
                self._device.stream, lambda: self._queue(prepared, count, lambda part: None)
            )
        except ModelError as error:
            logging.getLogger(__name__).warning(
                "%s runs without a CUDA graph: %s", self._network.path, error
            )
            self._records_graphs = False

    def _copy_out(self, begin: int, end: int) -> int:
        """Copy some candidates to this machine, and how many there are, which is returned."""
        first = _BEFORE_CANDIDATES + begin * _CANDIDATE.itemsize if begin else 0
        last = min(_BEFORE_CANDIDATES + end * _CANDIDATE.itemsize, len(self._found))
        memory = int(self._found_memory) + first
        self._cuda.copy_out(self._found[first:last], memory, self._device.stream)
        self._mark("copy_out")
        self._cuda.synchronize(self._device.stream)
        return int(self._found[:4].view(np.int32)[0])

    def _split(self, found: NDArray[Any], count: int) -> list[ChosenAnchors]:
        """Candidates by input, in the order of anchors: that of threads is not the same twice."""
        found = found[np.argsort(found["row"])]
        bounds = np.searchsorted(found["row"], np.arange(count + 1) * self._anchors)
        return [
            ChosenAnchors(
                part["row"] - number * self._anchors,
                part["score"],
                part["places"][:, : self._points],
            )
            for number, part in enumerate(np.split(found, bounds[1:-1]))
        ]

    def _mark(self, part: str) -> None:
        """Take the time at the end of a part."""
        if part not in self._marks:
            self._marks.append(part)
        self._cuda.record(self._events[part], self._device.stream)

    @contextlib.contextmanager
    def _current(self) -> Iterator[None]:
        """Make the CUDA context current; errors name the network."""
        try:
            with self._cuda.current():
                yield
        except BackendError as error:
            raise ModelError(f"{self._network.path}: {error}") from error


def _described(address: int, image: NDArray[np.uint8], views: Sequence[View]) -> tuple[Any, ...]:
    """A row of the table: views of an image at an address on the device."""
    pitch = 3 * image.shape[1]
    x, y, *source_size = views[0].source
    second = views[1].target if len(views) > 1 else (0, 0, 0, 0)
    return address + y * pitch + 3 * x, pitch, source_size, views[0].target[2:], second, 0
