"""Characteristics of events by which their detection may differ (Alwassel et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from vidkd.annotations import Annotations, Segment

LENGTHS = (30.0, 60.0, 120.0, 180.0)
"""Seconds that divide the paper's lengths XS, S, M, L and XL."""
_SHARES = (0.2, 0.4, 0.6, 0.8)
_COUNTS = ("1", "2 to 4", "5 to 8", "over 8")
_OVERLAPS = (0.0, 0.5)


def characteristics(
    events: Sequence[tuple[str, Segment]],
    annotations: Annotations,
    truth: Mapping[str, Sequence[Segment]],
    lengths: Sequence[float] | None,
) -> dict[str, tuple[list[str], np.ndarray]]:
    """Return by characteristic the names of its bins and the bin (N,) of every event.

    A bin reaches from above one border up to and including the next.
    """
    length = np.array([item.end - item.start for _, item in events])
    if lengths is None:
        lengths = LENGTHS
        if len(set(np.digitize(length, LENGTHS, right=True))) < 3:
            fifths = np.quantile(length, (0.2, 0.4, 0.6, 0.8))
            lengths = sorted({float(f"{value:.2g}") for value in fifths})
    total = np.array([annotations.videos[name].duration or np.nan for name, _ in events])
    count = np.array(
        [sum(other.label == item.label for other in truth[name]) for name, item in events]
    )
    shared = np.array([_overlapped(item, truth[name]) for name, item in events])
    made = {
        "length": _binned(length, lengths, "s"),
        "instances": (list(_COUNTS), np.digitize(count, (1, 4, 8), right=True)),
        "overlap with other classes": _binned(100 * shared, [100 * v for v in _OVERLAPS], "%"),
    }
    if np.isfinite(total).all():
        made["coverage of the video"] = _binned(
            100 * np.minimum(length / total, 1), [100 * v for v in _SHARES], "%"
        )
    return made


def _binned(
    values: np.ndarray, borders: Sequence[float], unit: str
) -> tuple[list[str], np.ndarray]:
    unit = f" {unit}" if unit else ""
    names = [f"up to {borders[0]:g}{unit}" if borders[0] > 0 else f"0{unit}"]
    names += [f"{low:g} to {high:g}{unit}" for low, high in pairwise(borders)]
    names += [f"over {borders[-1]:g}{unit}"]
    return names, np.digitize(values, borders, right=True)


def _overlapped(item: Segment, others: Sequence[Segment]) -> float:
    """Return the share of an event during which an action of another class goes on."""
    if item.end <= item.start:
        return 0.0
    covered, reached = 0.0, item.start
    for other in others:  # by start
        if other.label != item.label and other.end > reached and other.start < item.end:
            end = min(other.end, item.end)
            covered += end - max(other.start, reached)
            reached = end
    return covered / (item.end - item.start)
