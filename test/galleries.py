# SPDX-License-Identifier: Apache-2.0
"""Made-up people for tests of galleries: their embeddings are random, not of faces."""

from __future__ import annotations

import numpy as np

from scrfd_ros.gallery.people import GalleryInfo, Look

INFO = GalleryInfo("w600k_mbf", "0" * 64, 512)


def looks(person: int, count: int = 3) -> list[Look]:
    """Looks at a made-up person: unit vectors near a direction of its own."""
    random = np.random.default_rng(person)
    vectors = random.normal(size=512) + 0.5 * random.normal(size=(count, 512))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [Look(vector, 0.9, 0.0, 0.0) for vector in vectors.astype(np.float32)]
