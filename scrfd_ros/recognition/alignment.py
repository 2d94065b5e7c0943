# SPDX-License-Identifier: Apache-2.0
"""Cut faces out of an image so that their landmarks lie where the recognizer expects them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.arrays import check_array, check_finite, checked_image, written

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

_CENTER = TEMPLATE.mean(axis=0)
_OFFSETS = TEMPLATE - _CENTER
_TURNED_OFFSETS = _OFFSETS[:, ::-1] * (1, -1)


def check_crops(crops: Any) -> None:
    """Refuse anything but aligned faces, uint8 [N, 112, 112, 3] BGR.

    Raises:
        ValueError: it is something else.
    """
    check_array(crops, "crops", (None, CROP_SIZE, CROP_SIZE, 3), np.uint8)


def check_landmarks(landmarks: Any) -> None:
    """Refuse anything but landmarks, real numbers [N, 5, 2].

    Raises:
        ValueError: it is something else.
    """
    check_array(landmarks, "landmarks", (None, *TEMPLATE.shape), None)


def similarity_transforms(landmarks: NDArray[np.float32]) -> NDArray[np.float64]:
    """The least-squares similarity transform of each face onto `TEMPLATE`.

    Umeyama, Least-squares estimation of transformation parameters between two point patterns,
    IEEE PAMI 13(4), 1991. In the plane, with points as complex numbers z, rotation and scale
    together are one factor, and the least squares have a closed form without an SVD:
    sum(conj(z - mean z) * (template - mean template)) / sum(|z - mean z|^2).

    Args:
        landmarks: float32 [N, 5, 2], pixels, order of `scrfd_ros.faces.LANDMARK_NAMES`.

    Returns:
        float64 [N, 2, 3], from pixels of the image to pixels of the crop. All zeros except for the
        translation if the five landmarks are one point, which cannot be aligned.

    Raises:
        ValueError: landmarks have another shape, or are not finite.
    """
    check_landmarks(landmarks)
    check_finite(landmarks, "landmarks")
    points = landmarks.astype(np.float64)
    center = points.sum(axis=1) / len(TEMPLATE)
    points -= center[:, None]
    spread = np.square(points).sum(axis=(1, 2))
    spread[spread == 0] = np.inf
    real = (points * _OFFSETS).sum(axis=(1, 2)) / spread
    imaginary = (points * _TURNED_OFFSETS).sum(axis=(1, 2)) / spread
    x, y = center.T
    transforms = np.empty((len(points), 2, 3))
    transforms[:, 0, 0] = transforms[:, 1, 1] = real
    transforms[:, 0, 1] = -imaginary
    transforms[:, 1, 0] = imaginary
    transforms[:, 0, 2] = _CENTER[0] - (real * x - imaginary * y)
    transforms[:, 1, 2] = _CENTER[1] - (imaginary * x + real * y)
    return transforms


def align_faces(image: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Aligned faces, uint8 [N, 112, 112, 3] BGR, black beyond the image.

    Args:
        image: uint8 [H, W, 3] BGR.
        landmarks: float32 [N, 5, 2], pixels of the image.

    Raises:
        ValueError: one of them is another array, or landmarks are not finite.
    """
    image = checked_image(image)
    if image.shape[:2] == (1, 1):  # refused by OpenCV 4.5; beyond the image all is black anyway
        image = np.pad(image, ((0, 1), (0, 0), (0, 0)))
    transforms = similarity_transforms(landmarks)
    crops = np.empty((len(transforms), CROP_SIZE, CROP_SIZE, 3), np.uint8)
    for crop, transform in zip(crops, transforms, strict=True):
        written(cv2.warpAffine(image, transform, (CROP_SIZE, CROP_SIZE), dst=crop), crop)
    return crops
