# SPDX-License-Identifier: Apache-2.0
"""The most similar other face has the greatest cosine, and is never the face itself."""

from __future__ import annotations

import numpy as np

from scrfd_ros.recognition.similarity import nearest_others


def unit_rows(count: int) -> np.ndarray:
    rows = np.random.default_rng(count).standard_normal((count, 512)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_equals_comparing_one_by_one() -> None:
    embeddings = unit_rows(20)
    rows, cosines = nearest_others(embeddings)
    for row, embedding in enumerate(embeddings):
        others = [
            -2 if other == row else float(embedding @ embeddings[other]) for other in range(20)
        ]
        assert rows[row] == np.argmax(others)
        np.testing.assert_allclose(cosines[row], max(others), atol=1e-6)


def test_two_opposite_faces_are_each_others_nearest() -> None:
    embeddings = np.array([[1, 0], [-1, 0]], np.float32)
    rows, cosines = nearest_others(embeddings)
    assert rows.tolist() == [1, 0]
    assert cosines.tolist() == [-1, -1] and cosines.dtype == np.float32
    np.testing.assert_array_equal(embeddings, [[1, 0], [-1, 0]])
