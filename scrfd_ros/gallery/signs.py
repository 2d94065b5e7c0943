# SPDX-License-Identifier: Apache-2.0
"""The signs of embeddings: a first choice among very many templates, much quicker than cosines.

Of two vectors at an angle of a, a share of about a / pi of the numbers differ in sign (Charikar,
Similarity estimation techniques from rounding algorithms, 2002): 0.37 at a cosine of 0.4, and 0.5
give or take 0.03 for two people. So the rows with the fewest differences are worth a look, and the
others are not. Nothing has to be trained or built: a template is one row
of bits, which comes and goes with it.

Counting bits that differ is the one thing for which numpy and OpenCV are too slow.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEAREST = 700
"""So many rows are worth a look. Fewer find the first person too, but less often the second, who
makes the margin."""

_logger = logging.getLogger(__name__)


def of(embeddings: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The signs of embeddings [N, D], a bit each: uint8 [N, D / 8]."""
    return np.packbits(embeddings > 0, axis=-1)


def nearest(signs: NDArray[np.uint8], embedding: NDArray[np.float32]) -> NDArray[np.intp]:
    """The `NEAREST` rows whose signs differ least from those of an embedding, in order.

    Args:
        signs: at least that many.
        embedding: float32 [D].
    """
    faiss = _faiss()
    faiss.omp_set_num_threads(1)  # of this thread; others would wait in a loop for work
    _, rows = faiss.knn_hamming(of(embedding)[np.newaxis], signs, NEAREST)
    return np.sort(rows[0]).astype(np.intp)


def can_search() -> bool:
    """Whether the library that `nearest` needs is there; if not, a warning says so once."""
    return _faiss() is not None


@functools.cache
def _faiss() -> Any:
    try:
        import faiss

        faiss.knn_hamming  # noqa: B018  older ones lack it
    except (ImportError, AttributeError) as error:
        _logger.warning(
            "the gallery is large, and every template is compared with every face, which takes "
            "about 0.1 ms for 1,000 templates; much quicker with the Python package faiss-cpu, "
            "version 1.8 or later (%s): pip install faiss-cpu",
            error,
        )
        return None
    return faiss
