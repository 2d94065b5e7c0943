# SPDX-License-Identifier: Apache-2.0
"""`Faces`: the value that every stage of the pipeline takes and returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.arrays import check_array

LANDMARK_NAMES = (
    "image-left eye",
    "image-right eye",
    "nose",
    "image-left mouth corner",
    "image-right mouth corner",
)
"""The order of the five landmarks. Left and right are the image's, not the person's."""

FloatArray = NDArray[np.float32]


class IdentityState(IntEnum):
    """How certain it is who somebody is.

    Attributes:
        UNKNOWN: nobody in the gallery, or not looked up.
        TENTATIVE: like one person, but not, or not yet, certain enough to use the name.
        KNOWN: that person.
    """

    UNKNOWN = 0
    TENTATIVE = 1
    KNOWN = 2


class Identity(NamedTuple):
    """Who a face belongs to, by a gallery of people.

    Attributes:
        state: how certain that is.
        person_id: of the person, if the state is known; of the most similar person, if it is
            tentative; else the anonymous id of a stranger, or "".
        name: of the person, if the state is known; else "", so that nobody is called by a name that
            is not certain.
        similarity: cosine of the newest embedding and the nearest template of the most similar
            person, -1 to 1; 0 if the face was not looked up.
        margin: by how much that is above the similarity of the second most similar person, or above
            -1 if there is no second one, 0 to 2; 0 if the face was not looked up.
    """

    state: IdentityState = IdentityState.UNKNOWN
    person_id: str = ""
    name: str = ""
    similarity: float = 0.0
    margin: float = 0.0


@dataclass(frozen=True, eq=False)
class Faces:
    """The N faces of one image, best score first, one row per face.

    All coordinates are pixels of the original image: x to the right, y down, the origin at the
    outer corner of the top left pixel. They are floats and may lie outside the image. Values that
    are not finite are accepted, since messages and half precision can hold them; the pipeline
    returns none.

    Attributes:
        boxes: float32 [N, 4], x1, y1, x2, y2.
        scores: float32 [N], 0 to 1.
        landmarks: float32 [N, 5, 2], x and y in the order of `LANDMARK_NAMES`; None if the
            detector finds no landmarks.
        embeddings: float32 [N, D], rows of unit length, or of zeros for faces that were not
            embedded; None without a recognizer.
        embedding_norms: float32 [N], length of each embedding before it was normalized, 0 for faces
            that were not embedded; None exactly if `embeddings` is None.
        ids: int64 [N], a number from 1 that a face keeps from image to image; None without
            tracking.
        identities: N of them; None without a gallery.

    Raises:
        ValueError: boxes or scores are missing, an array has another shape or dtype, or there are
            not N identities.
    """

    boxes: FloatArray
    scores: FloatArray
    landmarks: FloatArray | None = None
    embeddings: FloatArray | None = None
    embedding_norms: FloatArray | None = None
    ids: NDArray[np.int64] | None = None
    identities: tuple[Identity, ...] | None = None

    def __post_init__(self) -> None:
        check_array(self.scores, "Faces.scores", (None,))
        count = len(self.scores)
        check_array(self.boxes, "Faces.boxes", (count, 4))
        if self.landmarks is not None:
            check_array(self.landmarks, "Faces.landmarks", (count, len(LANDMARK_NAMES), 2))
        if self.embeddings is not None:
            check_array(self.embeddings, "Faces.embeddings", (count, None))
        if self.embedding_norms is not None:
            check_array(self.embedding_norms, "Faces.embedding_norms", (count,))
        if self.ids is not None:
            check_array(self.ids, "Faces.ids", (count,), np.int64)
        if (self.embeddings is None) != (self.embedding_norms is None):
            raise ValueError("Faces.embeddings and Faces.embedding_norms must be given together")
        if self.identities is not None and len(self.identities) != count:
            raise ValueError(f"Faces.identities are {len(self.identities)} for {count} faces")

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def centers(self) -> NDArray[np.float64]:
        """The center of each box, float64 [N, 2], x, y, pixels."""
        corners = self.boxes.astype(np.float64)
        return (corners[:, :2] + corners[:, 2:]) / 2

    @property
    def sizes(self) -> NDArray[np.float64]:
        """Width and height of each box, float64 [N, 2], pixels."""
        corners = self.boxes.astype(np.float64)
        return corners[:, 2:] - corners[:, :2]

    @property
    def embedded(self) -> NDArray[np.bool_]:
        """Which faces have an embedding, bool [N]."""
        if self.embedding_norms is None:
            return np.zeros(len(self), np.bool_)
        return self.embedding_norms > 0

    def with_embeddings(self, embeddings: FloatArray, norms: FloatArray) -> Faces:
        """The same faces with embeddings, float32 [N, D], and norms, float32 [N].

        Raises:
            ValueError: one of them is another array.
        """
        return replace(self, embeddings=embeddings, embedding_norms=norms)

    def as_json(self) -> list[dict[str, object]]:
        """One dictionary per face: id (with tracking only), score, box, landmarks and embedding.

        Landmarks and embedding are [] for a face without them. With a gallery also person (the
        name, or None if the face is not known), person_id, similarity, margin and state (unknown,
        tentative or known).
        """
        return [
            {
                **({} if self.ids is None else {"id": self.ids[row].item()}),
                "score": self.scores[row].item(),
                "box": self.boxes[row].tolist(),
                "landmarks": [] if self.landmarks is None else self.landmarks[row].tolist(),
                "embedding": (
                    self.embeddings[row].tolist()
                    if self.embeddings is not None and self.embedded[row]
                    else []
                ),
                **({} if self.identities is None else _identity_as_json(self.identities[row])),
            }
            for row in range(len(self))
        ]


def _identity_as_json(identity: Identity) -> dict[str, object]:
    return {
        "person": identity.name or None,
        "person_id": identity.person_id,
        "similarity": identity.similarity,
        "margin": identity.margin,
        "state": identity.state.name.lower(),
    }


def boxes_around(centers: NDArray[np.float64], sizes: NDArray[np.float64]) -> FloatArray:
    """Boxes, float32 [N, 4], x1, y1, x2, y2, from centers and sizes, float64 [N, 2]."""
    return np.hstack((centers - sizes / 2, centers + sizes / 2)).astype(np.float32)


def ious(boxes: FloatArray, others: FloatArray) -> FloatArray:
    """Intersection over union of each box with each other one, float32 [N, M].

    0 for two boxes without an area. Not the IoU of `scrfd_ros.detection.nms`, which counts whole
    pixels.

    Args:
        boxes, others: float32 [N, 4] and [M, 4], x1, y1, x2, y2.
    """
    lower = np.maximum(boxes[:, None, :2], others[:, :2])
    upper = np.minimum(boxes[:, None, 2:], others[:, 2:])
    common = (upper - lower).clip(0).prod(axis=2)
    areas, other_areas = ((side[:, 2:] - side[:, :2]).prod(axis=1) for side in (boxes, others))
    union = areas[:, None] + other_areas - common
    overlaps: FloatArray = common / np.where(union == 0, 1, union)
    return overlaps


def stacked_embeddings(embeddings: Sequence[Sequence[float]]) -> FloatArray | None:
    """Embeddings as in `Faces`, float32 [N, D], or None if all are empty.

    Args:
        embeddings: one sequence for each of N faces; an empty one becomes a row of zeros.

    Raises:
        ValueError: their lengths differ, or one of them is not a sequence.
    """
    if not all(hasattr(embedding, "__len__") for embedding in embeddings):
        raise ValueError("embeddings must be a sequence of numbers for each face, got a number")
    dimensions = max(map(len, embeddings), default=0)
    if dimensions == 0:
        return None
    stacked = np.zeros((len(embeddings), dimensions), np.float32)
    for row, embedding in zip(stacked, embeddings, strict=True):
        if len(embedding) not in (0, dimensions):
            raise ValueError(f"embeddings of {dimensions} and of {len(embedding)} numbers")
        if len(embedding) > 0:
            row[:] = embedding
    return stacked
