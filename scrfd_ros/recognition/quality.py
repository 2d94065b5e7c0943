# SPDX-License-Identifier: Apache-2.0
"""How useful a face is for recognition, told before it is embedded.

The figure and its constants come from measurements on real faces: docs/verification.md, and
bench/quality.py, which makes them.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.arrays import check_array
from scrfd_ros.recognition.alignment import CROP_SIZE, TEMPLATE, check_crops, check_landmarks

ENOUGH_PIXELS = 40.0
"""Size from which on a face is not worse for being small."""

ENOUGH_SHARPNESS = 0.19
"""Sharpness from which on a face is not worse for being blurred: 3/4 of what good images have."""

_INSIDE = (slice(24, 104), slice(20, 92))
"""The part of an aligned face, rows and columns, that is face and not what is around it."""


def face_quality(
    scores: NDArray[np.float32], landmarks: NDArray[np.float32], crops: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """How likely faces are recognized, 0 (hopeless) to 1.

    score * min(1, size / 40) * min(1, sharpness / 0.19): the detector's score falls with all that
    hides or spoils a face, least so with blur and with few pixels. A measure for ranking and for a
    threshold, not a probability.

    Args:
        scores: float32 [N], the detector's, 0 to 1.
        landmarks: float32 [N, 5, 2], pixels of the image.
        crops: uint8 [N, 112, 112, 3] BGR, the same faces aligned.

    Returns:
        float32 [N].

    Raises:
        ValueError: one of them is another array, or they are not of as many faces.
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

    112 times how far the landmarks are spread (root of the mean squared distance from their
    middle), over how far those of the template of alignment.py are. Eyes of a frontal face are
    0.31 of it apart; a head that turns changes it less than it does that distance.

    Args:
        landmarks: float32 [N, 5, 2], pixels.
    """
    check_landmarks(landmarks)
    spreads = np.hypot(*landmarks.astype(np.float64).std(axis=1).T)
    sizes: NDArray[np.float64] = CROP_SIZE * spreads / np.hypot(*TEMPLATE.std(axis=0))
    return sizes


def sharpness(crops: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How much of a face's contrast is fine detail, float64 [N]; about 0.25 in good images.

    std(M3 - M7) / std(gray) inside the face, with M3 and M7 the means over 3x3 and 7x7 pixels: a
    band of frequencies, as the differences of Gaussians of Marr and Hildreth, Theory of edge
    detection, Proc. R. Soc. B 207, 1980. The variance of the Laplacian, which is more usual, looks
    at still finer detail: it takes noise for sharpness, and told useful faces less well.

    Args:
        crops: uint8 [N, 112, 112, 3] BGR, aligned faces.
    """
    check_crops(crops)
    result = np.empty(len(crops))
    for row, crop in enumerate(crops):
        gray = cv2.cvtColor(crop[_INSIDE], cv2.COLOR_BGR2GRAY).astype(np.float32)
        band = cv2.blur(gray, (3, 3)) - cv2.blur(gray, (7, 7))
        detail, contrast = (cv2.meanStdDev(plane)[1].item() for plane in (band, gray))
        result[row] = detail / max(contrast, 1.0)  # within a gray level there is no face
    return result


def pose(landmarks: NDArray[np.float32]) -> NDArray[np.float64]:
    """How heads are turned, roughly: yaw, pitch and roll, float64 [N, 3], degrees; 0 is frontal.

    Not part of `face_quality`, to which it added nothing in the measurements.

    With x along the line of the eyes, y down at right angles to it, both from the middle of the
    eyes and in units of their distance: yaw = atan(2 nose_x), above 0 where the nose points to the
    right of the image; pitch = atan(2 (nose_y - 0.495 mouth_y)), above 0 where it points down.
    Here a nose stands out by half the distance of the eyes, and lies 0.495 of the way down to the
    mouth, as in the template of alignment.py. Roll is the angle of the line, above 0 where the eye
    on the right is lower.

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
