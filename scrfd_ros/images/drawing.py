# SPDX-License-Identifier: Apache-2.0
"""Draw faces into an image."""

from __future__ import annotations

import unicodedata
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfd_ros.arrays import checked_image
from scrfd_ros.faces import Faces, Identity, IdentityState

_BOX_COLOR = (80, 200, 60)  # BGR, as all colors here
_TEXT_COLOR = (20, 20, 20)
_LANDMARK_COLORS = ((255, 160, 40), (255, 160, 40), (60, 220, 250), (90, 80, 250), (90, 80, 250))
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FRACTION_BITS = 4  # OpenCV draws at fractions of a pixel given as fixed-point integers
_FARTHEST = 2**28  # fixed point; OpenCV refuses numbers beyond 32 bits
_SHOWN_OF_ID = 8  # digits
# Letters without an accent that Unicode could take off.
_LATIN = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "Ae", "ø": "o", "Ø": "O", "œ": "oe", "Œ": "Oe", "ł": "l", "Ł": "L"}
    | {"đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th"}
)


def draw_faces(image: NDArray[np.uint8], faces: Faces) -> NDArray[np.uint8]:
    """Draw boxes, landmarks and labels into a copy of an image.

    A face is labeled with its id, as #3, or its row; and with its score, or who it is if it was
    looked up. OpenCV's fonts have ASCII only: a name is drawn without accents, or if it has other
    letters as the first digits of the person's id. Boxes that are not finite are skipped.

    Args:
        image: uint8 [H, W, 3] BGR.
        faces: in pixels of the image.

    Returns:
        uint8 [H, W, 3] BGR, a new array.

    Raises:
        ValueError: the image has another shape or dtype.
    """
    canvas = checked_image(image).copy()
    unit = max(min(canvas.shape[:2]) / 720, 0.5)
    for row, (box, size) in enumerate(zip(faces.boxes, faces.sizes, strict=True)):
        if not np.isfinite(box).all():
            continue
        # Lines scale with the image; labels and dots also with the face, so as not to hide it.
        face_unit = min(unit, max(size.min() / 65, 0.7))
        number = f"#{faces.ids[row]}" if faces.ids is not None else str(row)
        said = f"{faces.scores[row]:.2f}"
        if faces.identities is not None:
            said = who(faces.identities[row], is_ascii=True)
        _draw_box(canvas, _fixed_point(box), f"{number} {said}".strip(), unit, face_unit)
        if faces.landmarks is not None:
            radius = round(2 * face_unit * 2**_FRACTION_BITS)
            points = _fixed_point(faces.landmarks[row])
            for point, color in zip(points, _LANDMARK_COLORS, strict=True):
                cv2.circle(
                    canvas, point, radius, color, cv2.FILLED, cv2.LINE_AA, shift=_FRACTION_BITS
                )
    return canvas


def who(identity: Identity, *, is_ascii: bool = False) -> str:
    """Who a face belongs to, for a label: a name, ? if it is not certain, or a stranger's short id.

    Args:
        identity: of the face.
        is_ascii: without accents, and with the person's short id for a name in other letters.
    """
    if identity.state is IdentityState.TENTATIVE:
        return "?"
    if identity.state is IdentityState.UNKNOWN:
        kind, _, rest = identity.person_id.partition("-")
        return f"{kind} {rest[:_SHOWN_OF_ID]}".strip()
    if not is_ascii:
        return identity.name
    plain = unicodedata.normalize("NFKD", identity.name.translate(_LATIN))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return plain if plain.isascii() else identity.person_id[:_SHOWN_OF_ID]


def _fixed_point(coordinates: NDArray[np.float32]) -> list[Any]:
    """Fixed-point coordinates for OpenCV, whose origin is the center of the first pixel."""
    fixed = np.round((coordinates.astype(np.float64) - 0.5) * 2**_FRACTION_BITS)
    fixed = np.nan_to_num(fixed, nan=-_FARTHEST).clip(-_FARTHEST, _FARTHEST)
    values: list[Any] = fixed.astype(int).tolist()
    return values


def _draw_box(
    canvas: NDArray[np.uint8], corners: list[int], label: str, unit: float, face_unit: float
) -> None:
    x1, y1, x2, y2 = corners
    line = max(round(2 * unit), 1)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), _BOX_COLOR, line, cv2.LINE_AA, shift=_FRACTION_BITS)
    text_scale = 0.5 * face_unit
    (width, height), baseline = cv2.getTextSize(label, _FONT, text_scale, 1)
    left, top = (round(value / 2**_FRACTION_BITS + 0.5) for value in (x1, y1))
    # Keep the label in the image, its beginning if it is too long.
    left = max(min(left, canvas.shape[1] - 1 - width), 0)
    bottom = max(top, height + baseline)
    top = bottom - height - baseline
    cv2.rectangle(canvas, (left, top), (left + width, bottom), _BOX_COLOR, cv2.FILLED)
    place = (left, bottom - baseline // 2)
    cv2.putText(canvas, label, place, _FONT, text_scale, _TEXT_COLOR, 1, cv2.LINE_AA)
