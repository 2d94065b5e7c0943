"""Cut a face out of a picture so that its landmarks lie where the recogniser expects them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

CROP_SIZE = 112
"""Width and height of an aligned face in pixels."""

TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
"""Where the five landmarks lie in an aligned face, pixels (insightface, utils/face_align.py)."""


def similarity_transforms(landmarks: NDArray[np.float32]) -> NDArray[np.float64]:
    """The least-squares similarity transform of each face onto `TEMPLATE`.

    Umeyama, Least-squares estimation of transformation parameters between two point patterns,
    IEEE PAMI 13(4), 1991. In the plane, with points as complex numbers z, rotation and scale
    together are one factor, and the least squares have a closed form without an SVD:
    sum(conj(z - mean z) * (template - mean template)) / sum(|z - mean z|^2).

    Args:
        landmarks: float32 [N, 5, 2], pixels, order of `scrfd_ros.faces.LANDMARK_NAMES`.

    Returns:
        float64 [N, 2, 3]: picture to crop. All zeros but the translation where the five landmarks
        are one point, which no transform can align.
    """
    points = landmarks[..., 0] + 1j * landmarks[..., 1].astype(np.float64)
    target = TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1]
    centre = points.mean(axis=1, keepdims=True)
    points = points - centre
    spread = (points * points.conj()).real.sum(axis=1)
    factor = (points.conj() * (target - target.mean())).sum(axis=1)
    factor = factor / np.where(spread > 0, spread, np.inf)
    shift = target.mean() - factor * centre[:, 0]
    return np.stack(
        (
            np.stack((factor.real, -factor.imag, shift.real), axis=1),
            np.stack((factor.imag, factor.real, shift.imag), axis=1),
        ),
        axis=1,
    )


def align_faces(picture: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Aligned faces, uint8 [N, 112, 112, 3] BGR; black where they reach beyond the picture.

    Args:
        picture: uint8 [H, W, 3] BGR.
        landmarks: float32 [N, 5, 2], pixels of the picture.
    """
    crops = np.empty((len(landmarks), CROP_SIZE, CROP_SIZE, 3), np.uint8)
    for crop, transform in zip(crops, similarity_transforms(landmarks), strict=True):
        cv2.warpAffine(picture, transform, (CROP_SIZE, CROP_SIZE), dst=crop)
    return crops
