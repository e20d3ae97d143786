"""Where detections go wrong, after Alwassel et al. 2018, "Diagnosing Error in Temporal Action
Detectors" (DETAD), and what scores and frames say beside it.

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
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from vidkd.annotations import Annotations, Segment
from vidkd.annotations.model import AMBIGUOUS
from vidkd.errors import AnnotationError, UsageError
from vidkd.evaluation.average_precision import interpolated
from vidkd.evaluation.events import ClassEvents, temporal_iou
from vidkd.evaluation.frames import Grid, frame_grid, frame_labels, has_scores, upsample_scores
from vidkd.evaluation.predictions import DenseScores, Detection

TRUE_POSITIVE = "true positive"
ERRORS = ("double", "wrong border", "wrong class", "both", "background")
KINDS = (TRUE_POSITIVE, *ERRORS)
LEAST_TIOU = 0.1
"""Below this tIoU a detection has nothing to do with an event (section 4.1 of the paper)."""
PER_EVENT = 10
"""Detections of a class that are looked at, as a multiple of its events."""
BINS = 15
"""Of equal width in [0, 1], for the reliability of scores."""
LENGTHS = (30.0, 60.0, 120.0, 180.0)
"""Seconds that divide the paper's lengths XS, S, M, L and XL."""
_SHARES = (0.2, 0.4, 0.6, 0.8)
_COUNTS = ("1", "2 to 4", "5 to 8", "over 8")
_OVERLAPS = (0.0, 0.5)
_RATE = 10.0


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
class Event:
    """One action of the ground truth.

    Attributes:
        video: id.
        label: its class.
        start: seconds.
        end: seconds.
        score: of the detection that has it, or None if it is missed.
        bins: by characteristic, the name of its bin.
    """

    video: str
    label: str
    start: float
    end: float
    score: float | None
    bins: dict[str, str]


@dataclass(frozen=True)
class Bin:
    """The events of one bin of one characteristic.

    Attributes:
        name: such as ``2-4 s``.
        events: how many.
        missed: of them, by all detections.
        missed_at_threshold: of them, by the detections at or above the threshold.
        normalised_map: the mAP of these events alone in [0, 1], detections of other events left
            out, with precision as if every class had the same number of events (section 4.2).
    """

    name: str
    events: int
    missed: int
    missed_at_threshold: int
    normalised_map: float


@dataclass(frozen=True)
class Reliability:
    """How often scores are right.

    Attributes:
        count: (B,) in each of B bins of equal width over [0, 1].
        score: (B,) mean score in it; NaN where there is none.
        correct: (B,) share that is right; NaN where there is none.
        error: expected calibration error: the mean of |score - correct| over all scores.
    """

    count: np.ndarray
    score: np.ndarray
    correct: np.ndarray
    error: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        values = {name: getattr(self, name).tolist() for name in ("count", "score", "correct")}
        return {"bins": len(self.count), "expected_calibration_error": self.error, **values}


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        tiou: alpha.
        threshold: the score from which a detection counts as one that a user would see.
        map: mAP of the detections looked at, in [0, 1], as ActivityNet has it.
        impact: by kind of error, the mAP gained when the detections of this kind are taken away.
        profile: (10, 6) share of each of `KINDS` among the detections ranked (i G, (i + 1) G] in
            their class; NaN where there are none.
        detections: all that were looked at, best first.
        events: of the classes, by video and start.
        characteristics: by name, its bins.
        classes: K names.
        segment_confusion: (K + 1, K + 1) events and detections at the threshold: rows the truth,
            columns what was detected, the last of both nothing.
        frame_confusion: the same in moments; see `confusion_of_sets`.
        frames: what the moments are.
        segment_reliability: of detections; a right one is a true positive. None if the scores
            do not lie in [0, 1].
        frame_reliability: of the dense scores of all classes; None without dense scores.
        class_reliability: by class, the expected calibration error of its dense scores.
        notes: what was left out.
    """

    tiou: float
    threshold: float
    map: float
    impact: dict[str, float]
    profile: np.ndarray
    detections: tuple[Judged, ...]
    events: tuple[Event, ...]
    characteristics: dict[str, tuple[Bin, ...]]
    classes: tuple[str, ...]
    segment_confusion: np.ndarray
    frame_confusion: np.ndarray
    frames: str
    segment_reliability: Reliability | None
    frame_reliability: Reliability | None
    class_reliability: dict[str, float]
    notes: tuple[str, ...]

    def counts(self, *, seen: bool = False) -> dict[str, int]:
        """Return how many detections are of each kind, all or only those at the threshold."""
        kinds = [i.kind for i in self.detections if not seen or i.score >= self.threshold]
        return {kind: kinds.count(kind) for kind in KINDS}

    def missed(self) -> list[Event]:
        """Return the events that no detection at or above the threshold has."""
        return [i for i in self.events if i.score is None or i.score < self.threshold]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        reliability = {"segments": self.segment_reliability, "frames": self.frame_reliability}
        return {
            "tiou": self.tiou,
            "threshold": self.threshold,
            "map": self.map,
            "kinds": self.counts(),
            "kinds_at_threshold": self.counts(seen=True),
            "impact": self.impact,
            "profile": self.profile.tolist(),
            "events": len(self.events),
            "missed_at_threshold": len(self.missed()),
            "characteristics": {
                name: [asdict(item) for item in bins] for name, bins in self.characteristics.items()
            },
            "confusion": {
                "classes": [*self.classes, "nothing"],
                "segments": self.segment_confusion.tolist(),
                "frames": self.frame_confusion.tolist(),
                "compared_on": self.frames,
            },
            "reliability": {
                name: None if item is None else item.to_json() for name, item in reliability.items()
            },
            "class_calibration_errors": self.class_reliability,
            "notes": list(self.notes),
        }


def diagnose(
    detections: Mapping[str, Sequence[Detection]],
    annotations: Annotations,
    *,
    tiou: float = 0.5,
    threshold: float | None = None,
    lengths: Sequence[float] | None = None,
    scores: DenseScores | None = None,
    score_thresholds: Sequence[float] | None = None,
    frame_rate: float | None = None,
) -> Diagnosis:
    """Say what every detection and every event is.

    Args:
        detections: by video id; all proposals with their scores say most.
        annotations: the videos to look at; detections of others are left out.
        tiou: alpha, above 0.1 and up to 1.
        threshold: score from which a detection is seen; by default that of the best F1 over all
            classes on these very detections.
        lengths: seconds that divide the lengths of events; by default the paper's, or fifths of
            the events where those would leave fewer than three bins.
        scores: dense scores of the same videos, for frames.
        score_thresholds: (K,) the dense score from which a class is seen; by default 0.5.
        frame_rate: moments per second for frames; by default as in the protocol ``frame``.

    Raises:
        UsageError: alpha is out of range.
        AnnotationError: there is no event to compare with, or no video of the result.
    """
    if not LEAST_TIOU < tiou <= 1:
        raise UsageError(
            f"{tiou:g} is no tIoU to diagnose at", remedy="give one above 0.1 and up to 1"
        )
    ambiguous = {
        name: [item for item in video.segments if item.label == AMBIGUOUS]
        for name, video in annotations.videos.items()
    }
    annotations = annotations.actions()
    truth = {name: sorted(video.segments, key=_place) for name, video in annotations.videos.items()}
    classes = [
        name
        for name in annotations.classes
        if any(item.label == name for items in truth.values() for item in items)
    ]
    if detections and not detections.keys() & truth.keys():
        raise AnnotationError(
            f"no video of the result, such as {next(iter(detections))!r}, is among the annotations,"
            f" such as {next(iter(truth))!r}",
            remedy="name another --subset, or call the videos the same in both",
        )
    if not classes:
        raise AnnotationError(
            "the annotations have no action to compare with", remedy="name another --subset"
        )
    judged: list[Judged] = []
    found: dict[str, _Class] = {}
    for label in classes:
        found[label] = _judge(label, detections, truth, ambiguous, tiou)
        judged += found[label].judged
    judged.sort(key=lambda item: (-item.score, item.video, item.start, item.end, item.label))
    events = [
        (name, item)
        for label in classes
        for name in sorted(truth)
        for item in truth[name]
        if item.label == label
    ]
    taken = np.concatenate([item.scores_of_events for item in found.values()])
    if threshold is None:
        threshold = _best_f1(
            np.array([item.score for item in judged]),
            np.array([item.kind == TRUE_POSITIVE for item in judged], dtype=bool),
            len(events),
        )
    bins = _characteristics(events, annotations, truth, lengths)
    seen = taken >= threshold
    confusion = _segment_confusion(judged, truth, annotations.classes, tiou, threshold)
    grid, told, values = _frames(annotations, judged, threshold, scores, frame_rate)
    labels = _moments(truth, annotations.classes, grid)
    limit = np.full(len(annotations.classes), 0.5 if scores is not None else 1.0)
    if scores is not None and score_thresholds is not None:
        limit = _in_order(np.array(score_thresholds), scores.classes, annotations.classes)
    soft = scores is not None and len(values) > 0
    own = {label: number for number, label in enumerate(annotations.classes)}
    judged_scores = np.array([item.score for item in judged])
    in_range = len(judged) > 0 and judged_scores.min() >= 0 and judged_scores.max() <= 1
    return Diagnosis(
        tiou=tiou,
        threshold=threshold,
        map=_mean([item.average_precision() for item in found.values()]),
        impact={
            kind: _mean([item.average_precision(kind) for item in found.values()])
            - _mean([item.average_precision() for item in found.values()])
            for kind in ERRORS
        },
        profile=_profile(list(found.values())),
        detections=tuple(judged),
        events=tuple(
            Event(
                name,
                item.label,
                item.start,
                item.end,
                float(score) if np.isfinite(score) else None,
                {key: names[place[number]] for key, (names, place) in bins.items()},
            )
            for number, ((name, item), score) in enumerate(zip(events, taken, strict=True))
        ),
        characteristics={
            key: tuple(
                Bin(
                    text,
                    int((place == number).sum()),
                    int((~np.isfinite(taken[place == number])).sum()),
                    int((~seen[place == number]).sum()),
                    _normalised_map(list(found.values()), place == number),
                )
                for number, text in enumerate(names)
            )
            for key, (names, place) in bins.items()
        },
        classes=annotations.classes,
        segment_confusion=confusion,
        frame_confusion=confusion_of_sets(labels, values >= limit),
        frames=told,
        segment_reliability=reliability(
            judged_scores, np.array([item.kind == TRUE_POSITIVE for item in judged])
        )
        if in_range
        else None,
        frame_reliability=reliability(values.ravel(), labels.ravel()) if soft else None,
        class_reliability={
            label: reliability(values[:, own[label]], labels[:, own[label]]).error
            for label in classes
        }
        if soft
        else {},
        notes=tuple(_notes(detections, annotations, classes, len(judged))),
    )


@dataclass(frozen=True)
class _Class:
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


def _judge(
    label: str,
    detections: Mapping[str, Sequence[Detection]],
    truth: Mapping[str, Sequence[Segment]],
    ambiguous: Mapping[str, Sequence[Segment]],
    tiou: float,
) -> _Class:
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
    excuses = {name: _times(items) for name, items in ambiguous.items()}
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
    return _Class(judged, partner, scores)


def _kind(
    label: str, place: tuple[float, float], events: Sequence[Segment], hit: bool, tiou: float
) -> tuple[str, float, tuple[str, float, float] | None]:
    """Return the kind of a detection, and tIoU and place of the event that decides it."""
    overlaps = temporal_iou(np.array([place]), _times(events))[0]
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


def _times(items: Sequence[Segment]) -> np.ndarray:
    return np.array([(item.start, item.end) for item in items], dtype=np.float64).reshape(-1, 2)


def _place(item: Segment) -> tuple[float, float]:
    return item.start, item.end


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _best_f1(scores: np.ndarray, hits: np.ndarray, positives: int) -> float:
    """Return the lowest score that is still seen where F1 is best; scores are best first."""
    if not hits.any():
        return float(scores.max(initial=0.0))
    f1 = 2 * np.cumsum(hits) / (np.arange(1, len(hits) + 1) + positives)
    # A threshold cannot part equal scores.
    last = np.append(scores[1:] < scores[:-1], True)
    return float(scores[int(np.where(last, f1, -1.0).argmax())])


def _profile(found: Sequence[_Class]) -> np.ndarray:
    counts = np.zeros((PER_EVENT, len(KINDS)))
    for item in found:
        for rank, judged in enumerate(item.judged):
            counts[rank // item.positives, KINDS.index(judged.kind)] += 1
    total = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)


def _characteristics(
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


def _normalised_map(found: Sequence[_Class], inside: np.ndarray) -> float:
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
    return _mean(values)


def _segment_confusion(
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
        overlaps = temporal_iou(np.array([(item.start, item.end)]), _times(own))[0]
        left[item.video].remove(own[int(overlaps.argmax())])
        table[number[item.label], number[item.label]] += 1
    for item in wrong:
        others = [event for event in left[item.video] if event.label != item.label]
        overlaps = temporal_iou(np.array([(item.start, item.end)]), _times(others))[0]
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


def reliability(scores: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Reliability:
    """Compare scores with how often they are right.

    Args:
        scores: (N,) in [0, 1].
        correct: (N,) bool.
        bins: of equal width; a score on a border is in the upper one, 1 in the last.
    """
    place = np.minimum((np.asarray(scores, dtype=np.float64) * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    total = np.bincount(place, weights=scores, minlength=bins)
    right = np.bincount(place, weights=np.asarray(correct, dtype=float), minlength=bins)
    empty = np.full(bins, np.nan)
    return Reliability(
        count,
        np.divide(total, count, out=empty.copy(), where=count > 0),
        np.divide(right, count, out=empty.copy(), where=count > 0),
        float(np.abs(total - right).sum() / max(len(place), 1)),
    )


def _frames(
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
            values = _in_order(
                upsample_scores(*scores.videos[name], times), scores.classes, classes
            )
        parts.append(values.reshape(-1, len(classes)))
    told = grid.description
    if scores is None:
        rate = f" at {frame_rate:g} moments/s" if frame_rate else ""
        told = f"the detections at or above the threshold{rate}"
    return grid, told, np.concatenate(parts)


def _in_order(values: np.ndarray, names: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Return the columns (..., K) of the wanted classes; 0 for one that is not among the names."""
    known = [(k, list(names).index(name)) for k, name in enumerate(wanted) if name in names]
    found = np.zeros((*values.shape[:-1], len(wanted)))
    for column, place in known:
        found[..., column] = values[..., place]
    return found


def _moments(
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


def _notes(
    detections: Mapping[str, Sequence[Detection]],
    annotations: Annotations,
    classes: Sequence[str],
    looked_at: int,
) -> list[str]:
    notes = []
    others = [name for name in detections if name not in annotations.videos]
    if others:
        notes.append(f"{len(others)} videos of the result are not among these annotations")
    missing = [name for name in annotations.videos if name not in detections]
    if missing:
        notes.append(f"no result for {len(missing)} videos, such as {missing[0]}")
    inside = [i for name in annotations.videos for i in detections.get(name, ())]
    unknown = sum(item.label not in classes for item in inside)
    if unknown:
        notes.append(f"{unknown} detections of classes without an event are left out")
    rest = len(inside) - unknown - looked_at
    if rest:
        notes.append(
            f"{rest} detections are left out: below the {PER_EVENT} best for each event of their"
            " class, or over an ambiguous segment"
        )
    return notes
