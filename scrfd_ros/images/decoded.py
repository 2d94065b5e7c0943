# SPDX-License-Identifier: Apache-2.0
"""A decoded image, with the mapping of faces back to the image as it was sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.faces import Faces
from scrfd_ros.images.orientation import points_before_turn, turn


class WholeImage:
    """An image at full scale, which is decoded when it is first used.

    Args:
        size: its width and height, pixels.
        decode: returns it, uint8 [H, W, 3] BGR, or raises ImageError.
    """

    def __init__(self, size: tuple[int, int], decode: Callable[[], NDArray[np.uint8]]) -> None:
        self.size = size
        self._decode = decode

    @cached_property
    def image(self) -> NDArray[np.uint8]:
        return self._decode()


class DecodedImage(NamedTuple):
    """The pixels of an image message, and how they relate to the image as it was sent.

    Faces are searched in `upright`, which `enlarge` maps to `upright_whole`. They are cut out of
    that, and `restore` maps them to the image as it was sent.

    Attributes:
        image: uint8 [H, W, 3] BGR, not turned. May be read-only.
        reduction: 1, 2, 4 or 8: `image` has 1/`reduction` of the scale of the image as it was sent.
        damage: a sentence that says what is wrong with the data and what to do; empty if no damage
            is known. See `scrfd_ros.images.decoding.decode`.
        rotation: one of `scrfd_ros.images.orientation.ROTATIONS`; turns `image` upright.
        source: what `image` is reduced from; None if the reduction is 1.
    """

    image: NDArray[np.uint8]
    reduction: int = 1
    damage: str = ""
    rotation: int = 0
    source: WholeImage | None = None

    @property
    def upright(self) -> NDArray[np.uint8]:
        """The image to search, uint8 [H, W, 3] BGR: `image` turned by `rotation`."""
        return turn(self.image, self.rotation)

    @property
    def whole(self) -> NDArray[np.uint8]:
        """The image as it was sent, uint8 [H, W, 3] BGR.

        Raises:
            ImageError: `image` is reduced, and the whole cannot be decoded.
        """
        return self.image if self.source is None else self.source.image

    @property
    def upright_whole(self) -> NDArray[np.uint8]:
        """`whole`, turned by `rotation`."""
        return turn(self.whole, self.rotation)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image as it was sent, pixels."""
        return self.source.size if self.source else (self.image.shape[1], self.image.shape[0])

    def enlarge(self, faces: Faces) -> Faces:
        """Faces in pixels of `upright`, mapped to pixels of `upright_whole`."""
        if self.reduction == 1:
            return faces
        # The sizes of reduced images are rounded up. A turn can bring the pixels beyond the edge of
        # the whole image from the end to the start.
        width, height = self.size
        beyond_x = self.image.shape[1] * self.reduction - width
        beyond_y = self.image.shape[0] * self.reduction - height
        starts = {0: (0, 0), 90: (beyond_y, 0), 180: (beyond_x, beyond_y), 270: (0, beyond_x)}
        start = np.array(starts[self.rotation], np.float32)
        factor = np.float32(self.reduction)
        return replace(
            faces,
            boxes=faces.boxes * factor - np.tile(start, 2),
            landmarks=None if faces.landmarks is None else faces.landmarks * factor - start,
        )

    def restore(self, faces: Faces) -> Faces:
        """Faces in pixels of `upright_whole`, mapped to pixels of the image as it was sent.

        The landmarks keep their order: "image-left" refers to the upright image.
        """
        if self.rotation == 0:
            return faces
        ends = points_before_turn(faces.boxes.reshape(-1, 2, 2), self.rotation, self.size)
        landmarks = faces.landmarks
        if landmarks is not None:
            landmarks = points_before_turn(landmarks, self.rotation, self.size)
        boxes = np.concatenate((ends.min(axis=1), ends.max(axis=1)), axis=1)
        return replace(faces, boxes=boxes, landmarks=landmarks)
