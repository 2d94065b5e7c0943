# SPDX-License-Identifier: Apache-2.0
"""Which faces and tracks belong together, compared with SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from scrfd_ros.tracking.assignment import best_pairs


def check(values: NDArray[np.float64]) -> None:
    """Compare with SciPy, whose pairs can have the value 0."""
    rows, columns = best_pairs(values)
    expected = values[linear_sum_assignment(values, maximize=True)].sum()
    assert values[rows, columns].sum() == pytest.approx(expected, abs=1e-9)
    assert (values[rows, columns] > 0).all()
    assert (np.diff(rows) > 0).all()
    assert len(set(columns.tolist())) == len(columns)


@pytest.mark.parametrize("possible", [0.05, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("decimals", [0, 12], ids=["many equal", "all different"])
def test_the_sum_is_the_largest(possible: float, decimals: int) -> None:
    random = np.random.default_rng(int(100 * possible) + decimals)
    for _ in range(200):
        shape = random.integers(0, 9, 2)
        check((3 * random.random(shape)).round(decimals) * (random.random(shape) < possible))


def test_large_crowds() -> None:
    random = np.random.default_rng(0)
    for shape in ((120, 150), (150, 120)):
        check(random.random(shape))
        check(random.random(shape) * (random.random(shape) < 0.03))


def test_all_pairs_together_count_not_the_best_one() -> None:
    rows, columns = best_pairs(np.array([[3.0, 2.0], [2.5, 0.0]]))
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])


def test_a_row_can_stay_alone() -> None:
    rows, columns = best_pairs(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]]))
    assert (rows.tolist(), columns.tolist()) == ([1], [0])


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_pair(shape: tuple[int, int]) -> None:
    assert [part.tolist() for part in best_pairs(np.zeros(shape))] == [[], []]


def test_values_must_be_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        best_pairs(np.array([[1.0, np.nan]]))
