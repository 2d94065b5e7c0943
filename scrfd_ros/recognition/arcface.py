# SPDX-License-Identifier: Apache-2.0
"""ArcFace: an aligned face as a vector that tells people apart.

ArcFace: Additive Angular Margin Loss for Deep Face Recognition, Deng et al., CVPR 2019,
https://arxiv.org/abs/1801.07698. The cosine of two embeddings measures how alike the faces are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.errors import ModelError
from scrfd_ros.inference.batches import run, run_in_batches
from scrfd_ros.inference.blob import BlobWriter
from scrfd_ros.inference.network import Network
from scrfd_ros.recognition.alignment import CROP_SIZE, check_crops

PIXEL_MEAN = 127.5
PIXEL_SCALE = 127.5

BATCH_TOLERANCE = 2e-2
"""Maximum distance between embeddings of a face in a batch and alone, relative to their length.

In FP16, where kernels differ between batch sizes, it is 0.009.
"""

_TINY = np.finfo(np.float32).tiny


class ArcFace:
    """An ArcFace network as a function from aligned faces to embeddings.

    Keeps a buffer between calls: use one for each thread.

    Args:
        network: one input [N or 1, 3, 112, 112] float32, one output [N, D].

    Raises:
        ModelError: the network has another form.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        if len(network.inputs) != 1 or len(network.outputs) != 1:
            raise ModelError(self._not_arcface())
        batch, *image_shape = network.inputs[0].shape
        expected = (3, CROP_SIZE, CROP_SIZE)
        if len(image_shape) != 3 or any(
            have not in (want, None) for have, want in zip(image_shape, expected, strict=True)
        ):
            raise ModelError(self._not_arcface())
        if batch not in (1, None):
            raise ModelError(
                f"{network.path}: takes {batch} faces at once; expected a batch of 1 or any"
            )
        self._writer = BlobWriter(
            *((0.0, 1.0) if network.normalizes_input else (PIXEL_MEAN, PIXEL_SCALE))
        )
        noise = np.random.default_rng(0).standard_normal((2, *expected)).astype(np.float32)
        alone = [run(network, noise[:1]).copy(), run(network, noise[1:]).copy()]
        if alone[0].ndim != 2 or len(alone[0]) != 1:
            raise ModelError(self._not_arcface())
        self.dimensions: int = alone[0].shape[1]
        self.takes_batches = batch is None and self._batch_agrees(noise, np.concatenate(alone))

    def _not_arcface(self) -> str:
        tensors = {"inputs": self.network.inputs, "outputs": self.network.outputs}
        found = "; ".join(f"{kind} {', '.join(map(str, sides))}" for kind, sides in tensors.items())
        return (
            f"{self.network.path}: an ArcFace network has one input [N, 3, {CROP_SIZE}, "
            f"{CROP_SIZE}] and one output [N, 512]; found {found}"
        )

    def _batch_agrees(self, blob: NDArray[np.float32], alone: NDArray[np.float32]) -> bool:
        # Some exports declare a free batch yet refuse it, or flatten the faces into one row.
        try:
            together = run(self.network, blob)
        except ModelError:
            return False
        return together.shape == alone.shape and bool(
            (
                np.linalg.norm(together - alone, axis=1)
                <= BATCH_TOLERANCE * np.linalg.norm(alone, axis=1)
            ).all()
        )

    def prepare(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Normalize aligned faces, uint8 [N, 112, 112, 3] BGR, to float32 [N, 3, 112, 112].

        Raises:
            ValueError: `crops` is another array.
        """
        check_crops(crops)
        blob = np.empty((len(crops), 3, CROP_SIZE, CROP_SIZE), np.float32)
        if len(crops):
            # Each face becomes a row of one image: four calls of OpenCV instead of four for each.
            planes = blob.reshape(len(crops), 3, -1).swapaxes(0, 1)
            self._writer.write(crops.reshape(len(crops), -1, 3), planes)
        return blob

    def embed(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Embeddings of aligned faces, in batches as large as the network takes.

        Args:
            crops: uint8 [N, 112, 112, 3] BGR, from `alignment.align_faces`.

        Returns:
            embeddings: float32 [N, D], rows of unit length; zeros where the network's output is
                zero.
            norms: float32 [N], the lengths of the rows before they were normalized.

        Raises:
            ValueError: `crops` is another array.
            ModelError: the network fails.
        """
        blob = self.prepare(crops)
        raw = np.empty((len(crops), self.dimensions), np.float32)
        for rows, output in run_in_batches(self.network, blob, self.takes_batches):
            raw[rows] = output
        norms = np.sqrt((raw * raw).sum(axis=1))  # np.linalg.norm: the same bits, 60 us later
        raw /= np.maximum(norms, _TINY)[:, None]
        return raw, norms
