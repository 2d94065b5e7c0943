"""Compare embeddings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def nearest_others(
    embeddings: NDArray[np.float32],
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """For each face, the other face that is most like it.

    Args:
        embeddings: float32 [N, D], rows of unit length, N at least 2, all of one model.

    Returns:
        rows: [N], the row of the nearest other face.
        cosines: float32 [N], their cosine, -1 to 1.
    """
    cosines = embeddings @ embeddings.T
    np.fill_diagonal(cosines, -np.inf)
    rows = cosines.argmax(axis=1)
    return rows, cosines[np.arange(len(rows)), rows]
