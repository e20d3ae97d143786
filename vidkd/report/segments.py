"""Segments for people: which classes are shown, in which order and colour, and times as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from vidkd.annotations import Segment
from vidkd.console import clock
from vidkd.evaluation import Detection

PALETTE = (
    "#3b82f6",
    "#f59e0b",
    "#10b981",
    "#ec4899",
    "#8b5cf6",
    "#ef4444",
    "#14b8a6",
    "#a3a619",
    "#f97316",
    "#6366f1",
    "#84cc16",
    "#d946ef",
)


def rgb(colour: str) -> tuple[int, int, int]:
    """Turn ``#rrggbb`` into three integers of 0..255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def choose_labels(
    classes: Sequence[str],
    scores: np.ndarray | None,
    segments: Iterable[Detection],
    truth: Iterable[Segment],
    limit: int,
    minimum: int = 0,
) -> list[str]:
    """Choose at most ``limit`` classes worth a row, in the order in which they first happen.

    Classes with annotated or detected segments come before all others, those that last longest
    first; the rows up to ``minimum`` are filled with the classes of the highest scores.

    Args:
        classes: K names.
        scores: (T, K), or None when there are only segments.
        segments: what was detected.
        truth: what is annotated; may be empty.
        limit: the largest number of rows.
        minimum: the number of rows to fill when fewer classes have segments.
    """
    weight: dict[str, float] = {}
    first: dict[str, float] = {}
    # An annotated second counts like a detected one of score 1.
    spans = [(item.label, item.start, item.end, item.score) for item in segments]
    spans += [(item.label, item.start, item.end, 1.0) for item in truth]
    for label, start, end, score in spans:
        weight[label] = weight.get(label, 0.0) + score * (end - start)
        first[label] = min(first.get(label, np.inf), start)
    chosen = sorted(weight, key=lambda label: -weight[label])[:limit]
    chosen.sort(key=lambda label: first[label])
    if scores is not None and len(scores) and len(chosen) < min(minimum, limit):
        for number in np.argsort(-scores.max(axis=0), kind="stable"):
            if len(chosen) >= min(minimum, limit, len(classes)):
                break
            if classes[number] not in chosen:
                chosen.append(classes[number])
    return chosen


def colour_of(labels: Sequence[str]) -> dict[str, str]:
    """Give every label its colour, in order."""
    return {label: PALETTE[number % len(PALETTE)] for number, label in enumerate(labels)}


def segment_rows(segments: Iterable[Detection]) -> list[tuple[str, str, str, str]]:
    """Return the rows (action, start, end, score) of a table of segments, sorted by start."""
    ordered = sorted(segments, key=lambda item: (item.start, item.end, item.label))
    return [
        (item.label, clock(item.start), clock(item.end), f"{item.score:.2f}") for item in ordered
    ]
