# SPDX-License-Identifier: Apache-2.0
"""Where to look for faces in the next image of a camera: everywhere, or in a few parts.

Faces that are tracked are looked for around where they are expected, and new ones where the image
has changed since that part was last looked at. Every so often everything is looked at.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.detection.parts import Part
from scrfd_ros.images.scaling import scale_by_area

_CELLS = 64
"""Along the longer side of the image. Their mean colors are compared. A cell is 10 pixels of an
input of 640, about the smallest face that is found."""

_ROWS = 4  # of the image for a row of cells; to average all of them takes four times as long

_CHANGE = 2.5  # gray levels; a smaller change is none
_NOISE = 6.0  # times the usual change between two images; a smaller change is none
_AROUND = 2  # cells around a change that are looked at too
_ENTRANCE = 8
"""Cells from where the image is new, since the camera turned: a face is looked at until it is
wholly in the image."""

_AGREEMENT = 0.1  # of two images by which a shift is known, 0 to 1; 0 without any texture
_MANY = 0.003  # part of the cells that change at least if the camera turns

_MARGIN = 0.4  # around an expected face, in its sizes
_LOST = 2.0  # sizes by which that margin grows in a second in which the face was not seen
_FARTHEST = 1.0  # sizes; the largest margin
_COARSE = 1.4  # times smaller, the scale at which a face is looked for that was not seen last

_SHOULDERS, _BODY = 1.2, 9.0
"""How far a body reaches to each side of a face, in its widths, and down, in its heights. It moves
with the face; a change there does not count as that of somebody new."""

_UNSEEN = -1000.0  # color of a cell that was never looked at

_Cells = NDArray[np.float32]
_Flags = NDArray[np.bool_]
_T = TypeVar("_T", np.float32, np.bool_)


class Expected(NamedTuple):
    """Where the faces that are tracked are expected.

    Attributes:
        boxes: float32 [N, 4], x1, y1, x2, y2, pixels.
        unseen: float64 [N], seconds since each was seen.
        is_current: bool [N], whether each was seen in the last image.
    """

    boxes: NDArray[np.float32]
    unseen: NDArray[np.float64]
    is_current: NDArray[np.bool_]

    def reduced(self, times: int) -> Expected:
        """In pixels of an image that is so many times smaller."""
        return self._replace(boxes=self.boxes / np.float32(times))

    @property
    def margins(self) -> NDArray[np.float64]:
        """Around each box, in sizes of the face, float64 [N]."""
        return np.minimum(_MARGIN + _LOST * self.unseen, _FARTHEST)


class _Memory(NamedTuple):
    """What is known of one camera.

    Attributes:
        time, epoch: of the last look everywhere.
        whole: [H, W, 3], the colors of the cells then.
        shift: by how many cells the image has moved since, across and down.
        seen: [H, W, 3], the color of each cell when it was last looked at; `_UNSEEN`.
        last: [H, W, 3], colors in the last image.
        followed: bool [H, W], the cells of faces and bodies in the last image.
    """

    time: float
    epoch: int
    whole: _Cells
    shift: tuple[int, int]
    seen: _Cells
    last: _Cells
    followed: _Flags


class Glance(NamedTuple):
    """Where to look in an image.

    Attributes:
        parts: where; None for everywhere.
        after: what is known when that is done.
        after_all: what is known when all was looked at.
    """

    parts: tuple[Part, ...] | None
    after: _Memory
    after_all: _Memory

    def everywhere(self) -> Glance:
        """At the same image, everywhere."""
        return Glance(None, self.after_all, self.after_all)


class Watch:
    """Decides where to look in the images of one camera.

    For each image `look`, and `commit` once its faces were found. Until then nothing changes.
    """

    def __init__(self) -> None:
        self._memory: _Memory | None = None

    def look(
        self, image: NDArray[np.uint8], time: float, epoch: int, expected: Expected, period: float
    ) -> Glance:
        """Where to look in the next image.

        Args:
            image: uint8 [H, W, 3] BGR.
            time, epoch: when it was taken; `FrameClock` derives them.
            expected: the faces that are tracked.
            period: seconds after which all of it is looked at.
        """
        before, size = self._memory, (image.shape[1], image.shape[0])
        cells = _cells(image)
        shape = cells.shape[:2]
        followed = _followed(expected, size, shape)
        all_seen = _Memory(time, epoch, cells, (0, 0), cells, cells, followed)
        everywhere = Glance(None, all_seen, all_seen)
        if before is None or before.epoch != epoch or before.whole.shape != cells.shape:
            return everywhere
        if time - before.time >= period or not expected.is_current.any():
            return everywhere
        before, changed = _followed_camera(before, cells, followed)
        looked = followed | before.followed
        is_new = before.seen[..., 0] == _UNSEEN
        boxes = _boxes(_grown(is_new, _ENTRANCE) | _grown(changed, _AROUND))
        for x1, y1, x2, y2 in boxes:
            looked[y1:y2, x1:x2] = True
        seen = np.where(looked[..., None], cells, before.seen)
        parts = [*_around(expected), *(Part(_pixels(box, size, shape)) for box in boxes)]
        after = before._replace(seen=seen, last=cells, followed=followed)
        return Glance(tuple(parts), after, all_seen)

    def commit(self, glance: Glance) -> None:
        """Remember that this image was looked at."""
        self._memory = glance.after


def _cells(image: NDArray[np.uint8]) -> _Cells:
    """Mean colors of the cells of an image."""
    height, width = image.shape[:2]
    longer = max(width, height)
    columns, rows = (max(_CELLS * side // longer, 1) for side in (width, height))
    cells = np.empty((rows, columns, 3), np.uint8)
    scale_by_area(image[:: max(height // (_ROWS * rows), 1)], cells)
    return cells.astype(np.float32)


def _followed_camera(memory: _Memory, cells: _Cells, followed: _Flags) -> tuple[_Memory, _Flags]:
    """The memory moved as the image has, if the camera turned, and the cells that changed.

    Cells of faces and bodies, now and before, do not count as changed.
    """
    changed = _changed(cells, memory) & ~followed & ~memory.followed
    if np.count_nonzero(changed) < _MANY * changed.size or min(changed.shape) < _ENTRANCE:
        return memory, changed
    window = cv2.createHanningWindow(changed.shape[::-1], cv2.CV_32F)
    then, now = (image.mean(axis=2) for image in (memory.whole, cells))
    (across, down), agreement = cv2.phaseCorrelate(then, now, window)
    if agreement < _AGREEMENT:
        return memory, changed
    moved = _moved(memory, (round(across), round(down)))
    others = _changed(cells, moved) & ~followed & ~moved.followed
    if 2 * np.count_nonzero(others) > np.count_nonzero(changed):
        return memory, changed  # it is not the camera that moves
    return moved, others


def _moved(memory: _Memory, shift: tuple[int, int]) -> _Memory:
    """The memory of an image that has moved."""
    if shift == memory.shift:
        return memory
    by = shift[0] - memory.shift[0], shift[1] - memory.shift[1]
    return memory._replace(
        shift=shift,
        seen=_rolled(memory.seen, by, _UNSEEN),
        last=_rolled(memory.last, by, 0.0),
        followed=_rolled(memory.followed, by, False),
    )


def _rolled(cells: NDArray[_T], by: tuple[int, int], fill: float) -> NDArray[_T]:
    moved = np.full_like(cells, fill)
    (to_x, from_x), (to_y, from_y) = (
        (slice(max(step, 0), length + min(step, 0)), slice(max(-step, 0), length + min(-step, 0)))
        for step, length in zip(by, cells.shape[1::-1], strict=True)
    )
    moved[to_y, to_x] = cells[from_y, from_x]
    return moved


def _changed(cells: _Cells, memory: _Memory) -> _Flags:
    """The cells that differ from what was looked at there and in the cells around.

    By more than noise, or a change of the light, changes most cells. New ones are not among them.
    """
    noise = float(np.median(np.abs(cells - memory.last)))
    seen = memory.seen * float(np.median((cells + 1) / (memory.seen + 1)))
    around = np.ones((3, 3), np.uint8)
    beyond = np.maximum(cells - cv2.dilate(seen, around), cv2.erode(seen, around) - cells)
    changed: _Flags = beyond.max(axis=2) > max(_CHANGE, _NOISE * noise)
    changed &= memory.seen[..., 0] != _UNSEEN
    return changed


def _followed(expected: Expected, size: tuple[int, int], shape: tuple[int, ...]) -> _Flags:
    """The cells of expected faces, with margins, and of the bodies below them."""
    boxes = expected.boxes.astype(np.float64)
    (width, height), margins = (boxes[:, 2:] - boxes[:, :2]).T, expected.margins
    reach = np.stack((margins * width, margins * height), axis=1)
    faces = np.hstack((boxes[:, :2] - reach, boxes[:, 2:] + reach))
    bodies = boxes + np.stack(
        (-_SHOULDERS * width, 0 * height, _SHOULDERS * width, _BODY * height), axis=1
    )
    cells = np.concatenate((faces, bodies)) * np.tile(np.divide(shape[1::-1], size), 2)
    corners = np.hstack((np.floor(cells[:, :2]), np.ceil(cells[:, 2:])))
    followed = np.zeros(shape, np.bool_)
    for x1, y1, x2, y2 in np.maximum(corners, 0).astype(int):
        followed[y1:y2, x1:x2] = True
    return followed


def _around(expected: Expected) -> list[Part]:
    """Parts around expected faces."""
    sizes = (expected.boxes[:, 2:] - expected.boxes[:, :2]).max(axis=1)
    reach = (expected.margins * sizes)[:, None]
    boxes = np.hstack((expected.boxes[:, :2] - reach, expected.boxes[:, 2:] + reach))
    seen_as = sizes * np.where(expected.is_current, 1, _COARSE)
    return list(map(Part, map(tuple, boxes.tolist()), seen_as.tolist()))


def _grown(flags: _Flags, reach: int) -> _Flags:
    """The cells that have one of these at most so many cells away."""
    side = 2 * reach + 1
    grown: _Flags = cv2.dilate(flags.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
    return grown


def _boxes(flags: _Flags) -> list[tuple[int, int, int, int]]:
    """x1, y1, x2, y2 around the cells that lie together."""
    _, _, found, _ = cv2.connectedComponentsWithStats(flags.astype(np.uint8))
    return [(x, y, x + width, y + height) for x, y, width, height, _ in found[1:].tolist()]


def _pixels(
    box: tuple[int, int, int, int], size: tuple[int, int], shape: tuple[int, ...]
) -> tuple[float, float, float, float]:
    (rows, columns), (width, height) = shape, size
    x1, y1, x2, y2 = box
    return x1 * width / columns, y1 * height / rows, x2 * width / columns, y2 * height / rows
