"""What kind of error a detection is, after Alwassel et al. 2018, "Diagnosing Error in Temporal
Action Detectors" (DETAD).

A class with G events keeps its 10 G best detections. At a tIoU of alpha they choose their events by
score, as in ActivityNet's mAP; each one is of one kind:

- true positive: it has an event of its class;
- double: an event of its class reaches alpha, but a better detection has that event;
- wrong border: an event of its class reaches 0.1, and none reaches alpha;
- wrong class: an event of another class reaches alpha;
- both: an event of another class reaches 0.1, and none reaches alpha;
- background: no event reaches 0.1.

The paper leaves open what counts where actions overlap and several of these hold; here it is the
first in this order, so that someone who coughs while walking is not said to be confused with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vidkd.annotations import Segment
from vidkd.evaluation.average_precision import interpolated
from vidkd.evaluation.events import ClassEvents, temporal_iou
from vidkd.evaluation.predictions import Detection

TRUE_POSITIVE = "true positive"
ERRORS = ("double", "wrong border", "wrong class", "both", "background")
KINDS = (TRUE_POSITIVE, *ERRORS)
LEAST_TIOU = 0.1
"""Below this tIoU a detection has nothing to do with an event (section 4.1 of the paper)."""
PER_EVENT = 10
"""Detections of a class that are looked at, as a multiple of its events."""


@dataclass(frozen=True)
class Judged:
    """One detection and what it is.

    Attributes:
        video: id.
        label: its class.
        score: its score.
        start: seconds.
        end: seconds.
        kind: one of `KINDS`.
        tiou: with ``event``.
        event: label, start and end of the event that decided, or None for background.
    """

    video: str
    label: str
    score: float
    start: float
    end: float
    kind: str
    tiou: float
    event: tuple[str, float, float] | None


@dataclass(frozen=True)
class JudgedClass:
    """The detections of one class, best first, and its events."""

    judged: list[Judged]
    partner: np.ndarray
    """(N,) number of the event that each detection has, or -1."""
    scores_of_events: np.ndarray
    """(G,) score of the detection that has it; minus infinity where there is none."""

    @property
    def positives(self) -> int:
        return len(self.scores_of_events)

    def average_precision(self, without: str = "") -> float:
        """Return the AP, with the detections of a kind taken away."""
        keep = np.array([item.kind != without for item in self.judged], dtype=bool)
        return interpolated(self.partner[keep] >= 0, self.positives)


def judge(
    label: str,
    detections: Mapping[str, Sequence[Detection]],
    truth: Mapping[str, Sequence[Segment]],
    ambiguous: Mapping[str, Sequence[Segment]],
    tiou: float,
) -> JudgedClass:
    """Say what the detections of one class are; those over ambiguous segments are left out."""
    events = {name: [i for i in items if i.label == label] for name, items in truth.items()}
    count = sum(map(len, events.values()))
    ranked = sorted(
        (
            (-item.score, name, item.start, item.end)
            for name in truth
            for item in detections.get(name, ())
            if item.label == label
        ),
    )
    excuses = {name: times_of(items) for name, items in ambiguous.items()}
    ranked = [
        item
        for item in ranked
        if not (temporal_iou(np.array([item[2:]]), excuses[item[1]]) > 0).any()
    ][: PER_EVENT * count]
    kept: dict[str, list[Detection]] = {}
    for score, name, start, end in ranked:
        kept.setdefault(name, []).append(Detection(label, -score, start, end))
    partner = ClassEvents(events, kept).matches(tiou)
    judged = []
    for (score, name, start, end), event in zip(ranked, partner, strict=True):
        kind, overlap, other = _kind(label, (start, end), truth[name], bool(event >= 0), tiou)
        judged.append(Judged(name, label, -score, start, end, kind, overlap, other))
    scores = np.full(count, -np.inf)
    for item, event in zip(judged, partner, strict=True):
        if event >= 0:
            scores[event] = item.score
    return JudgedClass(judged, partner, scores)


def _kind(
    label: str, place: tuple[float, float], events: Sequence[Segment], hit: bool, tiou: float
) -> tuple[str, float, tuple[str, float, float] | None]:
    """Return the kind of a detection, and tIoU and place of the event that decides it."""
    overlaps = temporal_iou(np.array([place]), times_of(events))[0]
    own = np.array([item.label == label for item in events], dtype=bool)
    best_own = float(overlaps[own].max(initial=0.0))
    best_other = float(overlaps[~own].max(initial=0.0))
    if hit:
        kind, mask = TRUE_POSITIVE, own
    elif best_own >= tiou:
        kind, mask = "double", own
    elif best_own >= LEAST_TIOU:
        kind, mask = "wrong border", own
    elif best_other >= tiou:
        kind, mask = "wrong class", ~own
    elif best_other >= LEAST_TIOU:
        kind, mask = "both", ~own
    else:
        return "background", max(best_own, best_other), None
    number = int(np.where(mask, overlaps, -1.0).argmax())
    event = events[number]
    return kind, float(overlaps[number]), (event.label, event.start, event.end)


def times_of(items: Sequence[Segment]) -> np.ndarray:
    """Return start and end second (N, 2) of segments."""
    return np.array([(item.start, item.end) for item in items], dtype=np.float64).reshape(-1, 2)


def best_f1(scores: np.ndarray, hits: np.ndarray, positives: int) -> float:
    """Return the lowest score that is still seen where F1 is best; scores are best first."""
    if not hits.any():
        return float(scores.max(initial=0.0))
    f1 = 2 * np.cumsum(hits) / (np.arange(1, len(hits) + 1) + positives)
    # A threshold cannot part equal scores.
    last = np.append(scores[1:] < scores[:-1], True)
    return float(scores[int(np.where(last, f1, -1.0).argmax())])


def profile(found: Sequence[JudgedClass]) -> np.ndarray:
    """Return the share (10, 6) of each kind among the detections ranked (i G, (i + 1) G]."""
    counts = np.zeros((PER_EVENT, len(KINDS)))
    for item in found:
        for rank, judged in enumerate(item.judged):
            counts[rank // item.positives, KINDS.index(judged.kind)] += 1
    total = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)


def normalised_map(found: Sequence[JudgedClass], inside: np.ndarray) -> float:
    """Return the mean over classes of AP_N for the events in a bin; NaN without any.

    Precision at a rank is R N / (R N + F) with the recall R, the number of false positives F and
    N events per class, the mean over all classes (Hoiem et al. 2012; section 4.2 of the paper).
    """
    usual = len(inside) / len(found)
    values, first = [], 0
    for item in found:
        own = inside[first : first + item.positives]
        first += item.positives
        if not own.any():
            continue
        hits = item.partner >= 0
        keep = ~hits
        keep[hits] = own[item.partner[hits]]
        hits = hits[keep]
        recall = np.cumsum(hits) / own.sum()
        precision = np.divide(
            recall * usual,
            recall * usual + np.cumsum(~hits),
            out=np.zeros_like(recall),
            where=recall > 0,
        )
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        values.append(float(envelope[hits].sum() / own.sum()))
    return mean(values)


def mean(values: Sequence[float]) -> float:
    """Return the mean; NaN of nothing."""
    return float(np.mean(values)) if values else float("nan")
