# SPDX-License-Identifier: Apache-2.0
"""Which faces and tracks belong together, so that all together match best.

SciPy has such a function. But to load its module takes 50 MiB and a third of a second, for the few
faces of an image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]


def best_pairs(values: NDArray[np.float64]) -> _Pairs:
    """Rows and columns that are paired so that the sum of the values of all pairs is largest.

    Args:
        values: float64 [N, M], finite; a pair counts only if its value is above 0.

    Returns:
        Rows, ascending, and their columns, intp [K]. No row and no column is there twice.

    Raises:
        ValueError: a value is not finite.
    """
    if not np.isfinite(values).all():
        raise ValueError("values of pairs must be finite")
    possible = values > 0
    contested_rows, contested_columns = possible.sum(axis=1) > 1, possible.sum(axis=0) > 1
    # Most pairs are the only ones of their row and column.
    contested = possible & (contested_rows[:, None] | contested_columns)
    pairs = possible & ~contested
    if contested.any():
        rows, columns = contested.any(axis=1).nonzero()[0], contested.any(axis=0).nonzero()[0]
        part = np.where(contested, values, 0)[np.ix_(rows, columns)]
        chosen = _assigned(part) if len(rows) <= len(columns) else _assigned(part.T)[::-1]
        rows, columns = rows[chosen[0]], columns[chosen[1]]
        pairs[rows, columns] = contested[rows, columns]
    found: _Pairs = pairs.nonzero()
    return found


def _assigned(values: NDArray[np.float64]) -> _Pairs:
    """The best column for every row, at least as many columns as rows.

    By shortest augmenting paths: Crouse, On implementing 2D rectangular assignment algorithms, IEEE
    Transactions on Aerospace and Electronic Systems 52(4), 2016. Names as there, where the sum of
    the costs is minimized.
    """
    costs = values.max() - values
    row_count, column_count = costs.shape
    u, v = np.zeros(row_count), np.zeros(column_count)
    column_of, row_of = np.full(row_count, -1), np.full(column_count, -1)
    for start in range(row_count):
        shortest = np.full(column_count, np.inf)
        open_paths = np.full(column_count, np.inf)  # shortest, except where a path went through
        before = np.full(column_count, -1)
        visited: list[int] = []
        row, length = start, 0.0
        while True:
            lengths = costs[row] - v
            lengths += length - u[row]
            shorter = lengths < open_paths
            shorter[visited] = False
            before[shorter] = row
            shortest[shorter] = open_paths[shorter] = lengths[shorter]
            column = int(open_paths.argmin())
            length = shortest[column]
            if row_of[column] < 0:
                break
            visited.append(column)
            open_paths[column] = np.inf
            row = row_of[column]
        u[start] += length
        u[row_of[visited]] += length - shortest[visited]
        v[visited] -= length - shortest[visited]
        while True:  # exchange the pairs along the path
            row = row_of[column] = before[column]
            column_of[row], column = column, column_of[row]
            if row == start:
                break
    return np.arange(row_count), column_of
