"""Event mAP: which detections count as which events of the ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from vidkd.annotations import Segment
from vidkd.evaluation.predictions import Detection


def temporal_iou(detections: np.ndarray, events: np.ndarray) -> np.ndarray:
    """Return (N, M) temporal intersection over union of (N, 2) and (M, 2) seconds.

    Two instants, whose union has no length, have a tIoU of 0.
    """
    start = np.maximum(detections[:, None, 0], events[None, :, 0])
    end = np.minimum(detections[:, None, 1], events[None, :, 1])
    shared = np.maximum(end - start, 0.0)
    lengths = (detections[:, 1] - detections[:, 0])[:, None] + (events[:, 1] - events[:, 0])
    union = lengths - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


@dataclass(frozen=True)
class _Video:
    """One class in one video: detections best first, events by start and end."""

    ranks: np.ndarray
    """(N,) rank of every detection in the class."""
    overlaps: np.ndarray
    """(N, M) tIoU of detections and events."""
    first: int
    """Number of the first event in the class."""
    excused: np.ndarray
    """(N,) bool, whether a detection touches an ambiguous segment."""


class ClassEvents:
    """All events and detections of one class, and the ways to match them.

    Detections are ranked by score; equal scores by video id, start and end. The events of a video
    are in the order of start and end. So the order of entries in a file changes no number.

    Args:
        truth: the events of the class, by video id.
        detections: the detections of the class, by video id.
        ambiguous: segments of the videos where detections do not count as false.
    """

    def __init__(
        self,
        truth: Mapping[str, Iterable[Segment]],
        detections: Mapping[str, Iterable[Detection]],
        ambiguous: Mapping[str, Iterable[Segment]] | None = None,
    ) -> None:
        ranked = sorted(
            (-item.score, name, item.start, item.end)
            for name, items in detections.items()
            for item in items
        )
        ranks: dict[str, list[int]] = {}
        for rank, (_, name, _, _) in enumerate(ranked):
            ranks.setdefault(name, []).append(rank)
        times = np.array([item[2:] for item in ranked], dtype=np.float64).reshape(-1, 2)
        self.count = len(ranked)
        """Number of detections."""
        self.positives = 0
        """Number of events."""
        self._videos = []
        for name in sorted({*truth, *ranks}):
            events = _times(truth.get(name, ()))
            own = np.array(ranks.get(name, []), dtype=np.int64)
            touched = temporal_iou(times[own], _times((ambiguous or {}).get(name, ()))) > 0
            self._videos.append(
                _Video(
                    own,
                    temporal_iou(times[own], events),
                    self.positives,
                    np.asarray(touched.any(axis=1)),
                )
            )
            self.positives += len(events)

    def matches(self, tiou: float, *, strict: bool = False) -> np.ndarray:
        """Return (N,) the event that each detection takes, or -1, when they choose by score.

        Each takes the free event that it overlaps most, if the tIoU suffices; so a detection
        whose best event is gone may have its second best (ActivityNet).

        Args:
            tiou: the threshold.
            strict: the tIoU must exceed the threshold (THUMOS14) instead of reaching it.
        """
        partner = np.full(self.count, -1, dtype=np.int64)
        for video in self._videos:
            enough = video.overlaps > tiou if strict else video.overlaps >= tiou
            open_ = np.where(enough, video.overlaps, -1.0)
            for row in np.flatnonzero(enough.any(axis=1)):
                best = int(open_[row].argmax())
                if open_[row, best] >= 0:
                    partner[video.ranks[row]] = video.first + best
                    open_[:, best] = -1.0
        return partner

    def greedy(self, tiou: float, *, strict: bool = False) -> np.ndarray:
        """Return (N,) bool: true positives when detections choose by score; see `matches`."""
        return self.matches(tiou, strict=strict) >= 0

    def by_event(self, tiou: float) -> np.ndarray:
        """Return (N,) bool: true positives when events choose their detections (THUMOS14 toolkit).

        Each event, in temporal order, takes the free detection of its video that overlaps it most,
        if the tIoU exceeds the threshold; scores only decide between equal overlaps.
        """
        hits = np.zeros(self.count, dtype=bool)
        for video in self._videos:
            free = video.overlaps.copy()
            for column in range(free.shape[1] if len(free) else 0):
                best = int(free[:, column].argmax())
                if free[best, column] > tiou:
                    hits[video.ranks[best]] = True
                    free[best] = -1.0
        return hits

    def partners(self, tiou: float) -> np.ndarray:
        """Return (N,) the event that each detection overlaps most, or -1 (PKU-MMD).

        Several detections may have the same event. Of equally overlapped events the later counts.
        """
        partner = np.full(self.count, -1, dtype=np.int64)
        for video in self._videos:
            if video.overlaps.size:
                last = video.overlaps.shape[1] - 1
                best = last - video.overlaps[:, ::-1].argmax(axis=1)
                reached = video.overlaps.max(axis=1) >= tiou
                partner[video.ranks[reached]] = video.first + best[reached]
        return partner

    def excused(self) -> np.ndarray:
        """Return (N,) bool: detections that touch an ambiguous segment of their video."""
        excused = np.zeros(self.count, dtype=bool)
        for video in self._videos:
            excused[video.ranks] = video.excused
        return excused


def _times(segments: Iterable[Segment]) -> np.ndarray:
    pairs = sorted((item.start, item.end) for item in segments)
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)
