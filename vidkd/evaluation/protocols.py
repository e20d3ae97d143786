"""The protocols by name (docs/protocols.md), and ``evaluate``, which computes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from vidkd.annotations import AMBIGUOUS, Annotations, Segment
from vidkd.differences import listed
from vidkd.errors import AnnotationError, UsageError
from vidkd.evaluation.average_precision import (
    first_matches,
    interpolated,
    non_interpolated,
    pku_mmd,
)
from vidkd.evaluation.events import ClassEvents
from vidkd.evaluation.frames import Grid, charades_grid, frame_aps, frame_grid, has_scores
from vidkd.evaluation.online import (
    FALSE_POSITIVE_RATE,
    calibrated_ap,
    detection_delays,
    online_grid,
)
from vidkd.evaluation.predictions import DenseScores, Detection
from vidkd.evaluation.result import EvaluationResult, Measure, ground_truth_hash
from vidkd.extensions import Table

EventAp = Callable[[ClassEvents, float], float]
Ambiguous = Mapping[str, Sequence[Segment]]
"""By video."""


def _plain_truth(annotations: Annotations, notes: list[str]) -> tuple[Annotations, Ambiguous]:
    if AMBIGUOUS in annotations.classes:
        notes.append("ambiguous segments are left out")
    return annotations.actions(), {}


def _thumos_truth(annotations: Annotations, notes: list[str]) -> tuple[Annotations, Ambiguous]:
    """Take out the ambiguous segments, and let every CliffDiving also be a Diving.

    Some annotation files list the diving instances under both names already; those stay as
    they are.
    """
    ambiguous: dict[str, list[Segment]] = {}
    videos = {}
    added = 0
    both = {"CliffDiving", "Diving"} <= set(annotations.classes)
    for name, video in annotations.videos.items():
        segments = []
        diving = {(s.start, s.end) for s in video.segments if s.label == "Diving"}
        for segment in video.segments:
            if segment.label == AMBIGUOUS:
                ambiguous.setdefault(name, []).append(segment)
                continue
            segments.append(segment)
            new = (segment.start, segment.end) not in diving
            if both and segment.label == "CliffDiving" and new:
                segments.append(replace(segment, label="Diving"))
                added += 1
        videos[name] = replace(video, segments=tuple(segments))
    if added:
        notes.append(f"{added} CliffDiving segments also count as Diving")
    if ambiguous:
        number = sum(map(len, ambiguous.values()))
        notes.append(f"{number} ambiguous segments are ignored")
    classes = tuple(name for name in annotations.classes if name != AMBIGUOUS)
    return replace(annotations, classes=classes, videos=videos), ambiguous


@dataclass(frozen=True)
class Protocol:
    """One way to compute mAP."""

    kind: Literal["frame", "event"]
    """What it needs: dense scores (``frame``) or detections (``event``)."""
    description: str = ""
    """For frame protocols, which AP the protocol's own number is."""
    tiou: tuple[float, ...] = ()
    """Thresholds when none are given; empty for frame protocols."""
    measures: tuple[tuple[str, str, EventAp], ...] = ()
    """For event protocols, the AP definitions: suffix, description, function."""
    expected_classes: int | None = None
    """Number of classes in the data set, if the protocol belongs to one."""
    note: str | None = None
    """What the reader of its numbers should know."""
    grid: Callable[[Annotations, DenseScores, float | None], Grid] = frame_grid
    """For frame protocols: the moments that are compared."""
    online: bool = False
    """For frame protocols: calibrated AP and the delay of detection, too."""
    prepare: Callable[[Annotations, list[str]], tuple[Annotations, Ambiguous]] = _plain_truth
    """Makes the ground truth of the annotations, adding notes: the annotations to compare with, and
    the segments in which detections do not count as false."""


_FRAME_AP = "non-interpolated AP over all frames of all videos"


def _thumos(
    events: ClassEvents, tiou: float, ap: Callable[[np.ndarray, int], float], toolkit: bool = False
) -> float:
    hits = events.by_event(tiou) if toolkit else events.greedy(tiou, strict=True)
    return ap(hits[hits | ~events.excused()], events.positives)


_PKU_MMD = Protocol(
    "event",
    tiou=(0.1, 0.3, 0.5),
    measures=(
        (
            "",
            "AP of the PKU-MMD script, which does not recompute precision at unmatched proposals",
            lambda events, tiou: pku_mmd(events.partners(tiou), events.positives),
        ),
        (
            "voc",
            "interpolated AP (PASCAL VOC) on the same matches",
            lambda events, tiou: interpolated(
                first_matches(events.partners(tiou)), events.positives
            ),
        ),
    ),
    expected_classes=51,
)

_OWN: dict[str, Protocol] = {
    "frame": Protocol("frame", _FRAME_AP),
    "charades-25": Protocol(
        "frame",
        "non-interpolated AP over 25 moments of every video",
        expected_classes=157,
        grid=charades_grid,
    ),
    "charades-all": Protocol(
        "frame", _FRAME_AP, expected_classes=157, grid=partial(frame_grid, rows=True)
    ),
    "multithumos": Protocol("frame", _FRAME_AP, expected_classes=65),
    "tsu-frame": Protocol("frame", _FRAME_AP, expected_classes=51),
    "oad": Protocol("frame", _FRAME_AP, grid=online_grid, online=True),
    "tsu-event": replace(
        _PKU_MMD,
        note="the script of TSU divides by all 51 classes: compare its mAP with map_all_classes",
    ),
    "pku-mmd": _PKU_MMD,
    "thumos14": Protocol(
        "event",
        tiou=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
        measures=(
            (
                "",
                "non-interpolated AP, detections matched by score",
                partial(_thumos, ap=non_interpolated),
            ),
            (
                "interpolated",
                "interpolated AP on the same matches",
                partial(_thumos, ap=interpolated),
            ),
            (
                "toolkit_matching",
                "non-interpolated AP, every event takes the detection it overlaps most, as the"
                " published MATLAB toolkit does",
                partial(_thumos, ap=non_interpolated, toolkit=True),
            ),
        ),
        expected_classes=20,
        prepare=_thumos_truth,
    ),
    "anet": Protocol(
        "event",
        tiou=(0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
        measures=(
            (
                "",
                "interpolated AP, detections matched by score",
                lambda events, tiou: interpolated(events.greedy(tiou), events.positives),
            ),
        ),
    ),
}

PROTOCOLS = Table("vidkd.protocols", "protocol", _OWN)
"""By name; docs/protocols.md says which is whose."""


def evaluate(
    predictions: DenseScores | Mapping[str, Sequence[Detection]],
    annotations: Annotations,
    protocol: str,
    tiou: Sequence[float] | None = None,
    *,
    subset: str | None = None,
    frame_rate: float | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> EvaluationResult:
    """Compare predictions with the ground truth.

    Args:
        predictions: dense scores for frame protocols, detections by video id for event protocols.
        annotations: the ground truth.
        protocol: a key of ``PROTOCOLS``.
        tiou: thresholds of event protocols, each in (0, 1]; None takes the protocol's own.
        subset: evaluate this subset of the annotations; None takes all their videos.
        frame_rate: frames per second on which frame protocols compare; None takes the rate of
            the annotations if they have one, and otherwise the rows of the predictions.
        thresholds: for oad, the score of every class that counts as found, besides the one of a
            fixed rate of false positives.

    Raises:
        UsageError: no such protocol, or an option or kind of predictions that it cannot use.
        AnnotationError: no such subset, or predictions of an unknown class.
    """
    chosen = PROTOCOLS[protocol]
    overlaps = _thresholds(protocol, chosen, tiou)
    if chosen.kind == "event" and frame_rate is not None:
        raise UsageError(f"{protocol} compares events", remedy="leave out the frame rate")
    if subset is not None:
        annotations = annotations.subset(subset)
    if not annotations.videos:
        raise AnnotationError(
            "the annotations have no video", remedy="check that it is the right file"
        )
    notes = [chosen.note] if chosen.note else []
    if annotations.notes:
        notes.append(f"the reader of the annotations says: {listed(annotations.notes, 5)}")
    # The hash is of the file's content, whatever a protocol makes of it.
    content = ground_truth_hash(annotations)
    annotations, ambiguous = chosen.prepare(annotations, notes)
    delays = {}
    if chosen.expected_classes not in (None, len(annotations.classes)):
        notes.append(
            f"the annotations have {len(annotations.classes)} classes, the data set"
            f" {chosen.expected_classes}"
        )
    if isinstance(predictions, DenseScores):
        if chosen.kind == "event":
            raise UsageError(
                f"{protocol} needs detections, not dense scores",
                remedy="give ActivityNet-style results, or a frame protocol",
            )
        found = _frame_measures(predictions, annotations, chosen, frame_rate, notes)
        measures, evaluated_on = found
        if chosen.online:
            rate = f"{100 * FALSE_POSITIVE_RATE:g}_percent_false_positives"
            delays[rate] = detection_delays(annotations, predictions)
            if thresholds is not None:
                delays["own_thresholds"] = detection_delays(annotations, predictions, thresholds)
        predicted = {name for name in predictions.videos if has_scores(predictions, name)}
        extra = [name for name in predictions.videos if name not in annotations.videos]
    else:
        if chosen.kind == "frame":
            raise UsageError(
                f"{protocol} needs dense scores, not detections",
                remedy="give an HDF5 file of scores, or an event protocol",
            )
        measures = _event_measures(predictions, annotations, chosen, overlaps, ambiguous)
        evaluated_on, predicted = "the segments of the ground truth", set(predictions)
        extra = [name for name in predictions if name not in annotations.videos]
    if extra:
        count = "1 video" if len(extra) == 1 else f"{len(extra)} videos"
        notes.append(f"ignored the predictions for {count} not evaluated: {listed(extra, 5)}")
    return EvaluationResult(
        protocol=protocol,
        subset=subset or "",
        measures=measures,
        evaluated_on=evaluated_on,
        videos=len(annotations.videos),
        classes=len(annotations.classes),
        segments=sum(len(video.segments) for video in annotations.videos.values()),
        ground_truth_sha256=content,
        missing=tuple(name for name in annotations.videos if name not in predicted),
        notes=tuple(notes),
        delays=delays,
    )


def _thresholds(name: str, protocol: Protocol, tiou: Sequence[float] | None) -> tuple[float, ...]:
    if tiou is None:
        return protocol.tiou
    if protocol.kind == "frame":
        raise UsageError(f"{name} compares frames", remedy="leave out the tIoU thresholds")
    if not tiou or not all(0 < value <= 1 for value in tiou):
        raise UsageError("a tIoU threshold lies in (0, 1]", remedy="give such as 0.1,0.3,0.5")
    return tuple(sorted(set(tiou)))


def _frame_measures(
    scores: DenseScores,
    annotations: Annotations,
    protocol: Protocol,
    frame_rate: float | None,
    notes: list[str],
) -> tuple[tuple[Measure, ...], str]:
    _known_classes(scores.classes, annotations)
    lacking = [name for name in annotations.classes if name not in scores.classes]
    if lacking:
        notes.append(f"the predictions have no scores of {listed(lacking, 5)}")
    grid = protocol.grid(annotations, scores, frame_rate)
    notes.extend(grid.notes)
    classes = annotations.classes
    measures = [
        Measure("", protocol.description, frame_aps(annotations, scores, grid, classes)),
    ]
    if protocol.online:
        calibrated = frame_aps(annotations, scores, grid, classes, calibrated_ap)
        measures.append(Measure("calibrated", "AP with as many negatives as positives", calibrated))
    return tuple(measures), grid.description


def _event_measures(
    detections: Mapping[str, Sequence[Detection]],
    annotations: Annotations,
    protocol: Protocol,
    thresholds: Sequence[float],
    ambiguous: Mapping[str, Sequence[Segment]],
) -> tuple[Measure, ...]:
    truth: dict[str, dict[str, list[Segment]]] = {name: {} for name in annotations.classes}
    found: dict[str, dict[str, list[Detection]]] = {name: {} for name in annotations.classes}
    for video, entry in annotations.videos.items():
        for segment in entry.segments:
            truth[segment.label].setdefault(video, []).append(segment)
    for video, items in detections.items():
        _known_classes({item.label for item in items}, annotations)
        if video in annotations.videos:
            for item in items:
                found[item.label].setdefault(video, []).append(item)
    tables: list[dict[str, dict[str, float]]] = [{} for _ in protocol.measures]
    for label in annotations.classes:
        events = ClassEvents(truth[label], found[label], ambiguous)
        for table, (_, _, ap) in zip(tables, protocol.measures, strict=True):
            table[label] = {f"{value:g}": ap(events, value) for value in thresholds}
    return tuple(
        Measure(suffix, description, table)
        for table, (suffix, description, _) in zip(tables, protocol.measures, strict=True)
    )


def _known_classes(names: Sequence[str] | set[str], annotations: Annotations) -> None:
    known = set(annotations.classes)
    unknown = sorted(name for name in names if name not in known)
    if unknown:
        raise AnnotationError(
            f"the predictions have the unknown class {listed(unknown, 5)}",
            remedy=f"name the classes as the annotations do ({listed(annotations.classes, 5)})",
        )
