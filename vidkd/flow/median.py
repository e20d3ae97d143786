"""The 5 x 5 median filter as a network of minima and maxima, for whole batches in torch.

Selecting the median by comparing whole planes needs no branch, no sort and no copy of the 25
neighbours: every step is one minimum or maximum of two tensors. The five values of a column are
sorted once and shared by the five windows that contain it; what is left is the median of 25 values
in five sorted columns, for which a general network was thinned out by search until no step could
be left out (by the 0-1 principle, tested on all 6^5 ways to fill sorted columns with 0 and 1).
"""

from __future__ import annotations

from typing import Final, TypeAlias

import torch
from torch.nn import functional

Step: TypeAlias = tuple[int, int, bool, bool]
"""Two wires to compare, and whether the minimum (first wire) and the maximum are used later."""

_SORT: Final = ((0, 1), (3, 4), (2, 4), (2, 3), (1, 4), (0, 3), (0, 2), (1, 3), (1, 2))
"""The shortest network that sorts five values."""
_RADIUS = 2

# fmt: off
_SELECT: Final = (
    (0, 1), (3, 4), (2, 4), (2, 3), (1, 4), (0, 3), (1, 3), (5, 6), (8, 9), (7, 9), (7, 8), (6,
    9), (5, 8), (6, 8), (6, 7), (10, 11), (13, 14), (12, 14), (12, 13), (11, 14), (10, 13),
    (10, 12), (11, 13), (11, 12), (15, 16), (18, 19), (17, 18), (16, 19), (15, 18), (15, 17),
    (16, 18), (16, 17), (20, 21), (23, 24), (22, 24), (22, 23), (20, 23), (21, 22), (3, 7),
    (11, 15), (4, 8), (12, 16), (20, 9), (13, 17), (7, 15), (4, 12), (8, 16), (20, 13), (8,
    12), (20, 21), (15, 8), (13, 21), (8, 12), (9, 13), (8, 9), (15, 8), (12, 20), (8, 12),
)
# fmt: on
"""Comparisons that leave the median of 25 on wire 12; wire 5 r + c is the value of rank r in
column c, and the columns are sorted."""
_MEDIAN = 12


def _used(comparisons: tuple[tuple[int, int], ...]) -> list[Step]:
    """Say of every comparison which of its results the median depends on."""
    wanted = {_MEDIAN}
    steps: list[Step] = []
    for low, high in reversed(comparisons):
        steps.append((low, high, low in wanted, high in wanted))
        wanted |= {low, high}
    return steps[::-1]


_STEPS: Final = _used(_SELECT)


def median5(planes: torch.Tensor) -> torch.Tensor:
    """Return the median of the 5 x 5 pixels around every pixel of (N, C, H, W).

    Beyond the border the nearest pixel counts, as in OpenCV's ``medianBlur``.
    """
    height, width = planes.shape[-2:]
    padded = functional.pad(planes, (_RADIUS,) * 4, mode="replicate")
    rows = [padded[..., shift : shift + height, :] for shift in range(2 * _RADIUS + 1)]
    for low, high in _SORT:
        rows[low], rows[high] = (
            torch.minimum(rows[low], rows[high]),
            torch.maximum(rows[low], rows[high]),
        )
    wires = [row[..., shift : shift + width] for row in rows for shift in range(2 * _RADIUS + 1)]
    for low, high, least, most in _STEPS:
        one, other = wires[low], wires[high]
        if least:
            wires[low] = torch.minimum(one, other)
        if most:
            wires[high] = torch.maximum(one, other)
    return wires[_MEDIAN]
