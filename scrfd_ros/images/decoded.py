# SPDX-License-Identifier: Apache-2.0
"""A decoded image, with the mapping of faces back to the image as it was sent."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.faces import Faces
from scrfd_ros.images.orientation import points_before_turn, turn


class DecodedImage(NamedTuple):
    """The pixels of an image message, and how they relate to the image as it was sent.

    Faces are searched in `upright`; `restore` maps them back.

    Attributes:
        image: uint8 [H, W, 3] BGR, not turned. May be read-only.
        reduction: 1, 2, 4 or 8: `image` has 1/`reduction` of the scale of the image as it was sent.
        damage: a sentence that says what is wrong with the data and what to do; empty if no damage
            is known. See `scrfd_ros.images.decoding.decode`.
        rotation: one of `scrfd_ros.images.orientation.ROTATIONS`; turns `image` upright.
    """

    image: NDArray[np.uint8]
    reduction: int = 1
    damage: str = ""
    rotation: int = 0

    @property
    def upright(self) -> NDArray[np.uint8]:
        """The image to search, uint8 [H, W, 3] BGR: `image` turned by `rotation`."""
        return turn(self.image, self.rotation)

    def restore(self, faces: Faces) -> Faces:
        """Faces in pixels of `upright`, mapped to pixels of the image as it was sent.

        The landmarks keep their order: "image-left" refers to the upright image.
        """
        faces = self.turn_back(faces)
        factor = np.float32(self.reduction)
        return replace(
            faces,
            boxes=faces.boxes * factor,
            landmarks=None if faces.landmarks is None else faces.landmarks * factor,
        )

    def turn_back(self, faces: Faces) -> Faces:
        """Faces in pixels of `upright`, mapped to pixels of `image`."""
        if self.rotation == 0:
            return faces
        size = self.image.shape[1], self.image.shape[0]
        ends = points_before_turn(faces.boxes.reshape(-1, 2, 2), self.rotation, size)
        landmarks = faces.landmarks
        if landmarks is not None:
            landmarks = points_before_turn(landmarks, self.rotation, size)
        boxes = np.concatenate((ends.min(axis=1), ends.max(axis=1)), axis=1)
        return replace(faces, boxes=boxes, landmarks=landmarks)
