"""Which classes are taken for which: by segments, and by moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vidkd.annotations import Annotations, Segment
from vidkd.evaluation.detad import TRUE_POSITIVE, Judged, times_of
from vidkd.evaluation.events import temporal_iou
from vidkd.evaluation.frames import Grid, frame_grid, frame_labels, has_scores, upsample_scores
from vidkd.evaluation.predictions import DenseScores

_RATE = 10.0
"""Moments per second where nothing says the rate."""


def segment_confusion(
    judged: Sequence[Judged],
    truth: Mapping[str, Sequence[Segment]],
    classes: Sequence[str],
    tiou: float,
    threshold: float,
) -> np.ndarray:
    """Return (K + 1, K + 1) counts: every event is in one row, every detection in one column.

    Detections have their own events first; then the others choose, best first, among the events
    of other classes that are left.
    """
    number = {label: place for place, label in enumerate(classes)}
    table = np.zeros((len(classes) + 1, len(classes) + 1), dtype=np.int64)
    left = {name: list(items) for name, items in truth.items()}
    seen = [item for item in judged if item.score >= threshold]
    wrong = []
    for item in seen:
        if item.kind != TRUE_POSITIVE:
            wrong.append(item)
            continue
        own = [event for event in left[item.video] if event.label == item.label]
        overlaps = temporal_iou(np.array([(item.start, item.end)]), times_of(own))[0]
        left[item.video].remove(own[int(overlaps.argmax())])
        table[number[item.label], number[item.label]] += 1
    for item in wrong:
        others = [event for event in left[item.video] if event.label != item.label]
        overlaps = temporal_iou(np.array([(item.start, item.end)]), times_of(others))[0]
        if len(others) and overlaps.max() >= tiou:
            event = others[int(overlaps.argmax())]
            left[item.video].remove(event)
            table[number[event.label], number[item.label]] += 1
        else:
            table[-1, number[item.label]] += 1
    for items in left.values():
        for event in items:
            table[number[event.label], -1] += 1
    return table


def confusion_of_sets(truth: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the confusion matrix (K + 1, K + 1) of moments that may have several classes.

    Classes that are true and seen count on the diagonal. What is true and not seen is divided
    evenly among the classes that are seen and not true, or counts as nothing where there are none;
    what is seen where nothing is missing counts in the last row. So the row of a class adds up to
    its moments.

    Args:
        truth: (N, K) bool.
        seen: (N, K) bool.
    """
    count = truth.shape[1]
    table = np.zeros((count + 1, count + 1))
    missing, wrong = truth & ~seen, seen & ~truth
    many = wrong.sum(axis=1)
    table[:count, :count] = missing.T.astype(float) @ (wrong / np.maximum(many, 1)[:, None])
    table[np.arange(count), np.arange(count)] += (truth & seen).sum(axis=0)
    table[:count, -1] = missing[many == 0].sum(axis=0)
    table[-1, :count] = wrong[~missing.any(axis=1)].sum(axis=0)
    table[-1, -1] = (~truth.any(axis=1) & ~seen.any(axis=1)).sum()
    return table


def scores_at_moments(
    annotations: Annotations,
    judged: Sequence[Judged],
    threshold: float,
    scores: DenseScores | None,
    frame_rate: float | None,
) -> tuple[Grid, str, np.ndarray]:
    """Return the moments, what they are, and the scores (N, K) there; 0 where there are none.

    Without dense scores, a class has the score 1 where a detection is seen.
    """
    classes = annotations.classes
    rates = [video.frame_rate for video in annotations.videos.values()]
    if scores is None and frame_rate is None and None in rates:
        frame_rate = _RATE
    grid = frame_grid(annotations, scores or DenseScores(classes, {}), frame_rate)
    parts = []
    for name, times in grid.times.items():
        values = np.zeros((len(times), len(classes)))
        if scores is None:
            for item in judged:
                if item.video == name and item.score >= threshold:
                    inside = (times >= item.start) & (times <= item.end)
                    values[inside, classes.index(item.label)] = 1.0
        elif has_scores(scores, name):
            values = in_order(upsample_scores(*scores.videos[name], times), scores.classes, classes)
        parts.append(values.reshape(-1, len(classes)))
    told = grid.description
    if scores is None:
        rate = f" at {frame_rate:g} moments/s" if frame_rate else ""
        told = f"the detections at or above the threshold{rate}"
    return grid, told, np.concatenate(parts)


def in_order(values: np.ndarray, names: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Return the columns (..., K) of the wanted classes; 0 for one that is not among the names."""
    known = [(k, list(names).index(name)) for k, name in enumerate(wanted) if name in names]
    found = np.zeros((*values.shape[:-1], len(wanted)))
    for column, place in known:
        found[..., column] = values[..., place]
    return found


def moments(
    truth: Mapping[str, Sequence[Segment]], classes: Sequence[str], grid: Grid
) -> np.ndarray:
    """Return (N, K) bool: which classes go on at each moment."""
    return np.concatenate(
        [
            np.stack(
                [frame_labels([i for i in truth[name] if i.label == k], times) for k in classes],
                axis=1,
            )
            for name, times in grid.times.items()
        ]
    )
