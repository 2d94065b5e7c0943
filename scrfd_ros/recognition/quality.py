# SPDX-License-Identifier: Apache-2.0
"""How well a face can be recognized, estimated before it is embedded.

The figure and its constants come from measurements on real faces by bench/quality.py, described in
docs/verification.md.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.arrays import check_array
from scrfd_ros.recognition.alignment import CROP_SIZE, TEMPLATE, check_crops, check_landmarks

ENOUGH_PIXELS = 40.0
"""Size, pixels, from which more pixels do not improve recognition."""

ENOUGH_SHARPNESS = 0.19
"""Sharpness from which more of it does not improve recognition: 3/4 of that of good images."""

_INSIDE = (slice(24, 104), slice(20, 92))
"""The rows and columns of an aligned face that show the face and not its surroundings."""


def face_quality(
    scores: NDArray[np.float32], landmarks: NDArray[np.float32], crops: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """How likely faces are recognized, 0 (hopeless) to 1.

    score * min(1, size / 40) * min(1, sharpness / 0.19). The detector's score falls with everything
    that hides or spoils a face, but little with blur and small size. The product is a measure for
    ranking and for a threshold, not a probability.

    Args:
        scores: float32 [N], the detector's, 0 to 1.
        landmarks: float32 [N, 5, 2], pixels of the image.
        crops: uint8 [N, 112, 112, 3] BGR, the same faces aligned.

    Returns:
        float32 [N].

    Raises:
        ValueError: one of them is another array, or their numbers of faces differ.
    """
    check_array(scores, "scores", (None,), None)
    large = np.minimum(face_sizes(landmarks) / ENOUGH_PIXELS, 1)
    sharp = np.minimum(sharpness(crops) / ENOUGH_SHARPNESS, 1)
    if not len(scores) == len(landmarks) == len(crops):
        raise ValueError(
            f"scores, landmarks and crops must be of the same faces, got {len(scores)}, "
            f"{len(landmarks)} and {len(crops)}"
        )
    return (scores * large * sharp).astype(np.float32)


def face_sizes(landmarks: NDArray[np.float32]) -> NDArray[np.float64]:
    """Side of the square of the image that becomes an aligned face, pixels, float64 [N].

    112 times the spread of the landmarks, over that of the template of alignment.py. The spread is
    the root mean square distance from their mean. The eyes of a frontal face are 0.31 of the side
    apart; when a head turns, the side changes less than that distance.

    Args:
        landmarks: float32 [N, 5, 2], pixels.
    """
    check_landmarks(landmarks)
    spreads = np.hypot(*landmarks.astype(np.float64).std(axis=1).T)
    sizes: NDArray[np.float64] = CROP_SIZE * spreads / np.hypot(*TEMPLATE.std(axis=0))
    return sizes


def sharpness(crops: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The part of a face's contrast that is fine detail, float64 [N]; about 0.25 in good images.

    std(M3 - M7) / std(gray) inside the face, where M3 and M7 are means over 3x3 and 7x7 pixels.
    This selects a band of frequencies, like the differences of Gaussians of Marr and Hildreth,
    Theory of edge detection, Proc. R. Soc. B 207, 1980. The more common variance of the Laplacian
    measures still finer detail: it takes noise for sharpness, and predicted recognition less well.

    Args:
        crops: uint8 [N, 112, 112, 3] BGR, aligned faces.
    """
    check_crops(crops)
    result = np.empty(len(crops))
    for row, crop in enumerate(crops):
        gray = cv2.cvtColor(crop[_INSIDE], cv2.COLOR_BGR2GRAY).astype(np.float32)
        band = cv2.blur(gray, (3, 3)) - cv2.blur(gray, (7, 7))
        detail, contrast = (cv2.meanStdDev(plane)[1].item() for plane in (band, gray))
        result[row] = detail / max(contrast, 1.0)  # less than a gray level is no face
    return result


def pose(landmarks: NDArray[np.float32]) -> NDArray[np.float64]:
    """Approximate yaw, pitch and roll of heads, float64 [N, 3], degrees; 0 is frontal.

    Not part of `face_quality`: the measurements show no gain.

    The x axis runs along the line between the eyes, the y axis down at right angles to it. The
    origin is the middle between the eyes, the unit their distance. yaw = atan(2 nose_x), positive
    if the nose points to the right of the image. pitch = atan(2 (nose_y - 0.495 mouth_y)), positive
    if it points down. This assumes that a nose stands out by half the distance of the eyes and lies
    0.495 of the way down to the mouth, as in the template of alignment.py. Roll is the angle of the
    line between the eyes, positive if the eye on the right is lower.

    Args:
        landmarks: float32 [N, 5, 2], pixels, order of `scrfd_ros.faces.LANDMARK_NAMES`.
    """
    check_landmarks(landmarks)
    points = landmarks[..., 0] + 1j * landmarks[..., 1].astype(np.float64)
    line = points[:, 1] - points[:, 0]
    scale = np.where(line == 0, np.inf, line)
    middle = points[:, :2].mean(axis=1)
    nose = (points[:, 2] - middle) / scale
    mouth = (points[:, 3:].mean(axis=1) - middle) / scale
    yaw, pitch = np.arctan(2 * nose.real), np.arctan(2 * (nose.imag - 0.495 * mouth.imag))
    angles: NDArray[np.float64] = np.stack((yaw, pitch, np.angle(line)), axis=1)
    return np.degrees(angles)
