# SPDX-License-Identifier: Apache-2.0
"""Similarity of embeddings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scrfd_ros.arrays import check_array


def nearest_others(
    embeddings: NDArray[np.float32],
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """For each face, the other face that is most similar.

    Args:
        embeddings: float32 [N, D], rows of unit length, N at least 2, all by the same model.

    Returns:
        rows: intp [N], the row of the most similar other face.
        cosines: float32 [N], the cosine of the two, -1 to 1.

    Raises:
        ValueError: `embeddings` is another array, or has fewer than two faces.
    """
    check_array(embeddings, "embeddings", (None, None))
    if len(embeddings) < 2:
        raise ValueError(f"embeddings must be of at least 2 faces, got {len(embeddings)}")
    cosines = embeddings @ embeddings.T
    np.fill_diagonal(cosines, -np.inf)
    rows = cosines.argmax(axis=1)
    return rows, cosines[np.arange(len(rows)), rows]
