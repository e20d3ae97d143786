"""Where detections go wrong: kinds of errors, missed events, confusion, reliability of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vidkd.annotations import Annotations
from vidkd.annotations.model import AMBIGUOUS
from vidkd.errors import AnnotationError, UsageError
from vidkd.evaluation.characteristics import characteristics
from vidkd.evaluation.confusion import (
    confusion_of_sets,
    in_order,
    moments,
    scores_at_moments,
    segment_confusion,
)
from vidkd.evaluation.detad import (
    ERRORS,
    KINDS,
    LEAST_TIOU,
    PER_EVENT,
    TRUE_POSITIVE,
    Judged,
    best_f1,
    judge,
    mean,
    normalised_map,
    profile,
)
from vidkd.evaluation.predictions import DenseScores, Detection
from vidkd.evaluation.reliability import Reliability, reliability


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
    truth = {
        name: sorted(video.segments, key=lambda item: (item.start, item.end))
        for name, video in annotations.videos.items()
    }
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
    found = [judge(label, detections, truth, ambiguous, tiou) for label in classes]
    judged = [item for own in found for item in own.judged]
    judged.sort(key=lambda item: (-item.score, item.video, item.start, item.end, item.label))
    confidence = np.array([item.score for item in judged])
    right = np.array([item.kind == TRUE_POSITIVE for item in judged], dtype=bool)
    events = [
        (name, item)
        for label in classes
        for name in sorted(truth)
        for item in truth[name]
        if item.label == label
    ]
    taken = np.concatenate([item.scores_of_events for item in found])
    if threshold is None:
        threshold = best_f1(confidence, right, len(events))
    bins = characteristics(events, annotations, truth, lengths)
    seen = taken >= threshold
    grid, told, values = scores_at_moments(annotations, judged, threshold, scores, frame_rate)
    labels = moments(truth, annotations.classes, grid)
    limit = np.full(len(annotations.classes), 0.5 if scores is not None else 1.0)
    if scores is not None and score_thresholds is not None:
        limit = in_order(np.array(score_thresholds), scores.classes, annotations.classes)
    soft = scores is not None and len(values) > 0
    own = {label: number for number, label in enumerate(annotations.classes)} if soft else {}
    in_range = len(judged) > 0 and confidence.min() >= 0 and confidence.max() <= 1
    average = mean([item.average_precision() for item in found])
    return Diagnosis(
        tiou=tiou,
        threshold=threshold,
        map=average,
        impact={
            kind: mean([item.average_precision(kind) for item in found]) - average
            for kind in ERRORS
        },
        profile=profile(found),
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
                    normalised_map(found, place == number),
                )
                for number, text in enumerate(names)
            )
            for key, (names, place) in bins.items()
        },
        classes=annotations.classes,
        segment_confusion=segment_confusion(judged, truth, annotations.classes, tiou, threshold),
        frame_confusion=confusion_of_sets(labels, values >= limit),
        frames=told,
        segment_reliability=reliability(confidence, right) if in_range else None,
        frame_reliability=reliability(values.ravel(), labels.ravel()) if soft else None,
        class_reliability={
            label: reliability(values[:, k], labels[:, k]).error
            for label, k in own.items()
            if label in classes
        },
        notes=tuple(_notes(detections, annotations, classes, len(judged))),
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
