"""The assignment problem, exactly: which row goes with which column for the least total cost."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def assign(cost: Array) -> list[tuple[int, int]]:
    """Match rows with columns so that the sum of their costs is least.

    The Hungarian method by shortest augmenting paths with potentials (Kuhn 1955; Jonker and
    Volgenant 1987), O(n^2 m) for n <= m: exact, and quick for the few people of a picture.

    Args:
        cost: (n, m) finite costs.

    Returns:
        min(n, m) pairs (row, column), sorted by row.
    """
    cost = np.asarray(cost, dtype=np.float64)
    if cost.ndim != 2 or not np.isfinite(cost).all():
        raise ValueError("costs must be a matrix of finite numbers")
    if cost.shape[0] > cost.shape[1]:
        return sorted((row, column) for column, row in assign(cost.T))
    rows, columns = cost.shape
    # Column `columns` is a start that belongs to the row being added.
    row_potential, potential = np.zeros(rows), np.zeros(columns + 1)
    owner = np.full(columns + 1, -1)
    for row in range(rows):
        owner[columns] = row
        column = columns
        distance = np.full(columns, np.inf)
        previous = np.full(columns, columns)
        done = np.zeros(columns + 1, dtype=bool)
        while owner[column] >= 0:
            done[column] = True
            here = owner[column]
            reduced = cost[here] - row_potential[here] - potential[:columns]
            open_columns = ~done[:columns]
            better = open_columns & (reduced < distance)
            distance[better], previous[better] = reduced[better], column
            column = int(np.argmin(np.where(open_columns, distance, np.inf)))
            step = distance[column]
            row_potential[owner[done]] += step
            potential[done] -= step
            distance[open_columns] -= step
        while column != columns:
            owner[column] = owner[previous[column]]
            column = int(previous[column])
        owner[columns] = -1
    return sorted((int(owner[column]), column) for column in range(columns) if owner[column] >= 0)
