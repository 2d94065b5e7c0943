# SPDX-License-Identifier: Apache-2.0
"""Small faces, enlarged by a super-resolution network before they are aligned.

Such as Real-ESRGAN, https://arxiv.org/abs/2107.10833. It shows what faces tend to look like, not
what this one looks like: docs/small-faces.md has what that does to recognition.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.arrays import checked_image
from scrfd_ros.config import SuperResolutionConfig
from scrfd_ros.errors import ModelError
from scrfd_ros.inference.batches import run, run_in_batches
from scrfd_ros.inference.blob import BlobWriter
from scrfd_ros.inference.network import Network
from scrfd_ros.recognition.alignment import CROP_SIZE, align_faces, similarity_transforms

_MIDDLE = np.array([(CROP_SIZE - 1) / 2, (CROP_SIZE - 1) / 2, 1])
"""Of an aligned face, as homogeneous coordinates."""


def window_size(max_size: float) -> int:
    """Side, pixels, of the square around a face of `max_size` that the network sees.

    The face's own square fits in at any angle.
    """
    return 8 * math.ceil(math.sqrt(2) * max_size / 8)


class SuperResolution:
    """Aligns faces as `align_faces` does, but enlarges small ones first.

    What it costs does not depend on the faces' sizes, and has a bound: windows of one size, at most
    `max_faces` of them. Keeps buffers between calls: use one per thread.

    Args:
        network: one input [N or 1, 3, H, W] float32, RGB from 0 to 1, and one output, the same
            enlarged by a whole number. H and W are free, or the `window_size` of `max_size`.
        config: may be replaced between calls by one of the same max_size. A face is smaller than
            max_size if the square that becomes the aligned face has a smaller side in the image.
            It is about as high as the face's box (0.96 to 1.12 times).

    Raises:
        ModelError: the network has another form, or cannot run.
    """

    def __init__(
        self, network: Network, config: SuperResolutionConfig = SuperResolutionConfig()
    ) -> None:
        self.network = network
        self._config = config
        self._window = window_size(config.max_size)
        self._writer = BlobWriter(0.0, 255.0)
        expected = (3, self._window, self._window)
        if (
            len(network.inputs) != 1
            or len(network.outputs) != 1
            or len(network.inputs[0].shape) != 4
            or any(
                have not in (want, None)
                for have, want in zip(network.inputs[0].shape[1:], expected, strict=True)
            )
            or network.inputs[0].shape[0] not in (1, None)
        ):
            raise ModelError(self._not_super_resolution(network.outputs[0].shape))
        self._takes_batches = network.inputs[0].shape[0] is None
        enlarged = run(network, np.zeros((1, *expected), np.float32))
        self._factor = enlarged.shape[-1] // self._window
        side = self._factor * self._window
        if self._factor < 1 or enlarged.shape != (1, 3, side, side):
            raise ModelError(self._not_super_resolution(enlarged.shape))

    @property
    def config(self) -> SuperResolutionConfig:
        """The options of the next call.

        Raises:
            ValueError: it is set to one of another maximum size.
        """
        return self._config

    @config.setter
    def config(self, config: SuperResolutionConfig) -> None:
        if config.max_size != self._config.max_size:
            raise ValueError(
                f"super_resolution.max_size is {self._config.max_size} and cannot change to "
                f"{config.max_size}: load the network again"
            )
        self._config = config

    def _not_super_resolution(self, output: tuple[int | None, ...]) -> str:
        inputs = ", ".join(map(str, self.network.inputs))
        return (
            f"{self.network.path}: a network that enlarges faces of {self._config.max_size} pixels "
            f"has one input [N, 3, {self._window}, {self._window}] (sizes may be free) and one "
            f"output, the same enlarged; found {inputs} and an output {list(output)}"
        )

    def align(self, image: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Aligned faces, uint8 [N, 112, 112, 3] BGR; black where they reach beyond the image.

        Args:
            image: uint8 [H, W, 3] BGR.
            landmarks: float32 [N, 5, 2], pixels of the image; those that matter most first.

        Raises:
            ValueError: as `align_faces`.
        """
        image = checked_image(image)
        crops = align_faces(image, landmarks)
        transforms = similarity_transforms(landmarks)
        scales = np.linalg.norm(transforms[:, :, 0], axis=1)
        rows = np.flatnonzero(scales * self._config.max_size > CROP_SIZE)
        rows = rows[: self._config.max_faces]
        blob = np.empty((len(rows), 3, self._window, self._window), np.float32)
        corners = np.empty((len(rows), 2), np.float32)
        for row, planes, corner in zip(rows, blob, corners, strict=True):
            middle = cv2.invertAffineTransform(transforms[row]) @ _MIDDLE
            corner[:] = np.round(middle - (self._window - 1) / 2)
            move = np.array([[1, 0, -corner[0]], [0, 1, -corner[1]]])
            window = cv2.warpAffine(image, move, (self._window, self._window))
            self._writer.write(window.astype(np.uint8, copy=False), planes)
        for part, enlarged in run_in_batches(self.network, blob, self._takes_batches):
            pixels = np.clip(255 * enlarged + 0.5, 0, 255).astype(np.uint8)
            for number, planes in enumerate(pixels, part.start):
                row = rows[number]
                # Coordinates are of the pixels' centers, the first at 0.
                points = (landmarks[row] - corners[number] + 0.5) * self._factor - 0.5
                face = np.ascontiguousarray(planes[::-1].transpose(1, 2, 0))
                crops[row] = align_faces(face, points[None].astype(np.float32))[0]
        return crops
