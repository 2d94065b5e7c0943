# SPDX-License-Identifier: Apache-2.0
"""Small faces, upscaled by a super-resolution network before they are aligned.

Such a network, Real-ESRGAN for example (https://arxiv.org/abs/2107.10833), adds detail that faces
typically have, not that of this face. docs/small-faces.md shows how that affects recognition.
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
"""Center of an aligned face, homogeneous coordinates."""


def window_size(max_size: float) -> int:
    """Side, pixels, of the square window of the image that the network upscales.

    A face of `max_size` fits into it at any angle.
    """
    return 8 * math.ceil(math.sqrt(2) * max_size / 8)


class SuperResolution:
    """Aligns faces as `align_faces` does, but upscales small ones first.

    The cost is bounded and does not depend on the sizes of faces: at most `max_faces` windows, all
    of one size. Keeps buffers between calls: use one for each thread.

    Args:
        network: one input [N or 1, 3, H, W] float32, RGB from 0 to 1, and one output, the same
            image upscaled by a whole number. H and W are free, or the `window_size` of max_size.
        config: may be replaced between calls by one of the same max_size. The size of a face is the
            side of the square of the image that becomes the aligned face, pixels. It is 0.96 to
            1.12 times the height of the face's box.

    Raises:
        ModelError: the network has another form, or fails.
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
        upscaled = run(network, np.zeros((1, *expected), np.float32))
        self._factor = upscaled.shape[-1] // self._window
        side = self._factor * self._window
        if self._factor < 1 or upscaled.shape != (1, 3, side, side):
            raise ModelError(self._not_super_resolution(upscaled.shape))

    @property
    def config(self) -> SuperResolutionConfig:
        """The options of the next call.

        Raises:
            ValueError: it is set to one with another maximum size.
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
            f"{self.network.path}: a network that upscales faces of {self._config.max_size} pixels "
            f"has one input [N, 3, {self._window}, {self._window}] (sizes may be free) and one "
            f"output, the same upscaled; found {inputs} and an output {list(output)}"
        )

    def align(self, image: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Aligned faces, uint8 [N, 112, 112, 3] BGR, black beyond the image.

        Args:
            image: uint8 [H, W, 3] BGR.
            landmarks: float32 [N, 5, 2], pixels of the image. The first small ones are upscaled.

        Raises:
            ValueError: one of them is another array, or landmarks are not finite.
            ModelError: the network fails.
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
        for part, upscaled in run_in_batches(self.network, blob, self._takes_batches):
            pixels = np.clip(255 * upscaled + 0.5, 0, 255).astype(np.uint8)
            for number, planes in enumerate(pixels, part.start):
                row = rows[number]
                # Here coordinates are those of OpenCV: 0 is the center of the first pixel.
                points = (landmarks[row] - corners[number] + 0.5) * self._factor - 0.5
                face = np.ascontiguousarray(planes[::-1].transpose(1, 2, 0))
                crops[row] = align_faces(face, points[None].astype(np.float32))[0]
        return crops
