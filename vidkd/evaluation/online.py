"""Online detection: calibrated AP, and how long after its start an action is found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidkd.annotations import Annotations
from vidkd.errors import UsageError
from vidkd.evaluation.frames import Grid, frame_ap, frame_grid, frame_labels, has_scores, midpoints
from vidkd.evaluation.predictions import DenseScores

FALSE_POSITIVE_RATE = 0.05
"""Share of the rows without a class that may score as high as what counts as found."""


def calibrated_ap(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the AP of one class as if there were as many negatives as positives.

    De Geest et al., "Online Action Detection", ECCV 2016, section 4: the precision at a rank is
    ``TP / (TP + FP / w)``, with w the ratio of negatives to positives. A class is then no easier
    for being frequent: scores that say nothing have about 0.5 in every class.

    Args:
        scores: (N,) as for :func:`vidkd.evaluation.frame_ap`.
        labels: (N,) bool.
    """
    positives = int(labels.sum())
    return frame_ap(scores, labels, weight=positives / max(len(labels) - positives, 1))


def online_grid(
    annotations: Annotations, scores: DenseScores, frame_rate: float | None = None
) -> Grid:
    """Return the rows of the predictions, each of which is one decision.

    Raises:
        UsageError: a frame rate is given; between two rows the scores would know the second one.
    """
    if frame_rate is not None:
        raise UsageError(
            "oad compares the rows of the predictions, which are the decisions",
            remedy="leave out the frame rate",
        )
    return frame_grid(annotations, scores, None, rows=True)


@dataclass(frozen=True)
class Delay:
    """When the events of one class, or of all, were found.

    Attributes:
        threshold: the score that counts as found; NaN for all classes together.
        delays: (E,) seconds from the start of each event to the end of the first row over it that
            reaches the threshold; infinite where none does.
        false_alarms: runs of rows that reach the threshold and touch no event of the class.
        hours: of all rows.
    """

    threshold: float
    delays: np.ndarray
    false_alarms: int
    hours: float

    def to_json(self) -> dict[str, Any]:
        """Return the numbers; NaN for a median that lies among the events never found."""
        count = len(self.delays)
        never = int(np.isinf(self.delays).sum())
        # The upper of two middle ones where the lower alone is finite.
        median = float(np.median(self.delays)) if count and 2 * never < count else math.nan
        return {
            "threshold": self.threshold,
            "events": count,
            "never_found": never / count if count else math.nan,
            "median_seconds": median,
            "false_alarms_per_hour": self.false_alarms / self.hours if self.hours else math.nan,
        }


def detection_delays(
    annotations: Annotations, scores: DenseScores, thresholds: Mapping[str, float] | None = None
) -> dict[str, Delay]:
    """Return by class, and under "" for all together, how long after its start an event is found.

    A row is over an event if its midpoint lies in it, both bounds included; its score is known at
    its end. The first row over the event that reaches the threshold finds it (Hoai and De la Torre,
    "Max-Margin Early Event Detectors", IJCV 2014, who count what fires before the start as false).
    What fires already before the event finds it at its first row.

    Args:
        annotations: the events; those of videos without scores, and those shorter than the rows are
            apart, are never found.
        scores: rows in temporal order.
        thresholds: by class; None takes the lowest that no more than ``FALSE_POSITIVE_RATE`` of
            the rows without the class reach.
    """
    rows = {
        name: (midpoints(scores.videos[name][1]), scores.videos[name][1][:, 1])
        for name in annotations.videos
        if has_scores(scores, name)
    }
    columns = {name: index for index, name in enumerate(scores.classes)}
    hours = sum(float(scores.videos[name][1][-1, 1]) for name in rows) / 3600
    found = {}
    for label in annotations.classes:
        events = {
            name: [item for item in video.segments if item.label == label]
            for name, video in annotations.videos.items()
        }
        inside = {name: frame_labels(events[name], middle) for name, (middle, _) in rows.items()}
        column = {
            name: scores.videos[name][0][:, columns[label]].astype(np.float64)
            if label in columns
            else np.full(len(inside[name]), -np.inf)
            for name in rows
        }
        threshold = (
            _threshold([column[name][~inside[name]] for name in rows])
            if thresholds is None
            else thresholds.get(label, math.inf)
        )
        delays, alarms = [], 0
        for name, items in events.items():
            if name not in rows:
                delays += [math.inf] * len(items)
                continue
            middle, end = rows[name]
            fires = (column[name] >= threshold) & np.isfinite(column[name])
            for item in items:
                over = fires & (middle >= item.start) & (middle <= item.end)
                delays.append(float(end[over][0]) - item.start if over.any() else math.inf)
            edges = np.flatnonzero(np.diff(np.concatenate([[0], fires, [0]])))
            alarms += sum(not inside[name][a:b].any() for a, b in edges.reshape(-1, 2))
        found[label] = Delay(threshold, np.array(delays), alarms, hours)
    every = np.concatenate([item.delays for item in found.values()]) if found else np.zeros(0)
    alarms = sum(item.false_alarms for item in found.values())
    return {"": Delay(math.nan, every, alarms, hours), **found}


def _threshold(negatives: list[np.ndarray]) -> float:
    """Return the least number that at most the given share of the negatives reaches."""
    ranked = np.sort(np.concatenate(negatives))[::-1] if negatives else np.zeros(0)
    allowed = int(FALSE_POSITIVE_RATE * len(ranked))
    return float(np.nextafter(ranked[allowed], np.inf)) if allowed < len(ranked) else 0.0
