"""Frame mAP: on which moments scores are compared with the ground truth, and the comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from vidkd.annotations import Annotations, Segment, VideoAnnotation
from vidkd.errors import AnnotationError, UsageError
from vidkd.evaluation.predictions import DenseScores

FrameAp = Callable[[np.ndarray, np.ndarray], float]
"""AP of one class from the scores (N,) and labels (N,) of all frames."""

CHARADES_MOMENTS = np.arange(25) / 25
"""The moments of a video in the localisation task of Charades, as shares of its duration."""


@dataclass(frozen=True)
class Grid:
    """The moments of every video that count, and how they were chosen."""

    times: dict[str, np.ndarray]
    """Seconds, by video id, in the order of ids that decides between equal scores."""
    description: str
    """For the output."""
    notes: tuple[str, ...] = ()
    """What else the reader of the number should know."""


def upsample_scores(scores: np.ndarray, pts: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the scores at other moments: linear between the midpoints of the rows.

    Before the first midpoint and after the last one the scores stay as they are there.

    Args:
        scores: (T, K), T at least 1.
        pts: (T, 2) start and end second of every row, in temporal order.
        times: (N,) seconds.

    Returns:
        (N, K) float64.
    """
    middle = midpoints(pts)
    columns = [_interpolate(column, middle, times) for column in np.asarray(scores).T]
    return np.stack(columns, axis=1) if columns else np.zeros((len(times), 0))


def _interpolate(column: np.ndarray, middle: np.ndarray, times: np.ndarray) -> np.ndarray:
    if len(times) == len(middle) and np.array_equal(times, middle):
        return column.astype(np.float64)
    return np.interp(times, middle, column)


def midpoints(pts: np.ndarray) -> np.ndarray:
    """Return (T,) the midpoints of (T, 2) start and end seconds."""
    return np.asarray(pts, dtype=np.float64).mean(axis=1)


def charades_grid(
    annotations: Annotations, scores: DenseScores, frame_rate: float | None = None
) -> Grid:
    """Return 25 moments per video: j/25 of the duration, j = 0 to 24 (Charades localisation).

    Raises:
        AnnotationError: a video has no duration.
        UsageError: a frame rate is given.
    """
    if frame_rate is not None:
        raise UsageError("charades-25 has its own moments", remedy="leave out the frame rate")
    times = {}
    for name, video in sorted(annotations.videos.items()):
        if video.duration is None:
            raise AnnotationError(
                f"video {name!r} has no duration, which the 25 moments are spread over",
                remedy="add the durations, or use the protocol charades-all",
            )
        times[name] = CHARADES_MOMENTS * video.duration
    return Grid(times, "25 equally spaced moments of every video")


def frame_grid(
    annotations: Annotations, scores: DenseScores, frame_rate: float | None, *, rows: bool = False
) -> Grid:
    """Return the frames of the ground truth, or else the rows of the predictions.

    When a frame rate is given, or every video of the ground truth has its own, frame j of a video
    is its moment (j + 1/2) / rate, for all frames that fit into the duration. Otherwise, the
    frames are the rows of the prediction file, at their midpoints; a video without predictions
    then has rows as long as those of the others.

    Args:
        annotations: the videos to evaluate.
        scores: the predictions.
        frame_rate: frames per second for all videos; None asks the annotations.
        rows: take the rows even if the annotations know their frame rate.
    """
    videos = sorted(annotations.videos.items())
    rates = [video.frame_rate if frame_rate is None else frame_rate for _, video in videos]
    known = [rate for rate in rates if rate is not None]
    if len(known) == len(videos) and not (rows and frame_rate is None):
        times = {
            # A duration is a multiple of 1/rate in floating point: 59.8 s at 10/s are 598 frames.
            name: (np.arange(int(_length(video, scores) * rate + 1e-6)) + 0.5) / rate
            for (name, video), rate in zip(videos, known, strict=True)
        }
        shown = ", ".join(f"{rate:g}" for rate in sorted(set(known))[:3])
        shown += ", ..." if len(set(known)) > 3 else ""
        return Grid(
            times,
            f"the frames of the ground truth at {shown} frames/s, scores up-sampled linearly"
            " between the midpoints of the prediction rows",
        )
    steps = [
        np.diff(pts[:, 0]) if len(pts) > 1 else pts[:, 1] - pts[:, 0]
        for _, pts in scores.videos.values()
        if len(pts)
    ]
    usual = float(np.median(np.concatenate(steps))) if steps else 1.0
    usual = usual if usual > 0 else 1.0
    times = {}
    for name, video in videos:
        if has_scores(scores, name):
            times[name] = midpoints(scores.videos[name][1])
        else:
            count = max(1, int(_length(video, scores) / usual + 1e-6))
            times[name] = (np.arange(count) + 0.5) * usual
    notes: tuple[str, ...] = ()
    if known and not rows:
        notes = ("only some videos have a frame rate in the annotations, so that none was used",)
    return Grid(times, "the rows of the prediction file, at their midpoints", notes)


def has_scores(scores: DenseScores, video: str) -> bool:
    """Return whether there is at least one row of scores for a video."""
    return video in scores.videos and len(scores.videos[video][0]) > 0


def _length(video: VideoAnnotation, scores: DenseScores) -> float:
    """Return the seconds that count: of the video, else the predictions, else the actions."""
    if video.duration is not None:
        return video.duration
    if has_scores(scores, video.id):
        return float(scores.videos[video.id][1][-1, 1])
    return max((segment.end for segment in video.segments), default=0.0)


def frame_labels(segments: Iterable[Segment], times: np.ndarray) -> np.ndarray:
    """Return (N,) bool: which moments lie in one of the segments, both bounds included."""
    inside = np.zeros(len(times), dtype=bool)
    for segment in segments:
        inside |= (times >= segment.start) & (times <= segment.end)
    return inside


def frame_ap(scores: np.ndarray, labels: np.ndarray, *, weight: float = 1.0) -> float:
    """Return the non-interpolated AP of one class over all frames; NaN without a positive.

    Equal scores keep the order they are given in.

    Args:
        scores: (N,) any real numbers; minus infinity for frames without a prediction.
        labels: (N,) bool.
        weight: how many false positives each frame without the class counts as.
    """
    labels = np.asarray(labels, dtype=bool)
    if not labels.any():
        return float("nan")
    # Only the ranks of positives count, and there are few: sorting the plain scores of the rest
    # and looking the positives up takes a fraction of the time of a stable argsort of everything.
    place = np.flatnonzero(labels)
    place = place[np.argsort(-scores[place], kind="stable")]
    wanted = scores[place]
    others = np.sort(scores[~labels])
    above = len(others) - np.searchsorted(others, wanted, side="right")
    equal = len(others) - np.searchsorted(others, wanted, side="left") > above
    if equal.any():
        above[equal] += _earlier_equals(scores, labels, place[equal])
    found = np.arange(1, len(place) + 1)
    return float((found / (found + weight * above)).sum() / len(place))


def _earlier_equals(scores: np.ndarray, labels: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return how many negatives with the same score lie before each of some positives."""
    values = np.unique(scores[place])
    slot = np.minimum(np.searchsorted(values, scores), len(values) - 1)
    tied = np.flatnonzero(~labels & (values[slot] == scores))
    # One sorted list of (value, position) pairs as single integers.
    keys = np.sort(slot[tied] * len(scores) + tied)
    group = slot[place] * len(scores)
    return np.searchsorted(keys, group + place) - np.searchsorted(keys, group)


class FrameComparison:
    """Frame AP of many classes, with all that does not depend on the scores computed once.

    Equal scores rank in the order of the videos' ids, then of time. A video without rows scores
    minus infinity.

    Args:
        annotations: the ground truth.
        grid: the moments that are compared.
        pts: by video, (T, 2) start and end second of the rows that will be scored, T at least 1.
    """

    def __init__(self, annotations: Annotations, grid: Grid, pts: Mapping[str, np.ndarray]) -> None:
        self._videos = [name for name in grid.times if name in pts]
        self._blend = _Blend.between(
            [midpoints(pts[name]) for name in self._videos],
            [grid.times[name] for name in self._videos],
        )
        self._scored = np.concatenate(
            [np.full(len(times), name in pts) for name, times in grid.times.items()]
        )
        # Positive moments by class: few among all.
        self._positives: dict[str, list[np.ndarray]] = {name: [] for name in annotations.classes}
        start = 0
        for name, times in grid.times.items():
            by_class: dict[str, list[Segment]] = {}
            for segment in annotations.videos[name].segments:
                by_class.setdefault(segment.label, []).append(segment)
            for label, segments in by_class.items():
                inside = start + np.flatnonzero(frame_labels(segments, times))
                self._positives.setdefault(label, []).append(inside)
            start += len(times)

    def aps(
        self,
        scores: Mapping[str, np.ndarray],
        names: Sequence[str],
        classes: Sequence[str],
        ap: FrameAp = frame_ap,
        threads: int = 1,
    ) -> dict[str, float]:
        """Return the AP of every class; NaN for one that is not present.

        Args:
            scores: by video, (T, K) at the rows named before.
            names: the K classes of the columns; others score minus infinity.
            classes: those to compare.
            ap: of one class.
            threads: classes compared at once; sorting leaves the interpreter lock alone.
        """
        rows = [scores[name] for name in self._videos]
        columns = dict(zip(names, np.concatenate(rows).T, strict=True)) if rows else {}

        def compare(label: str) -> float:
            places = self._positives.get(label, [])
            labels = np.zeros(len(self._scored), dtype=bool)
            labels[np.concatenate([np.zeros(0, dtype=np.int64), *places])] = True
            if label not in columns:
                return ap(np.full(len(labels), -np.inf), labels)
            values = np.ascontiguousarray(columns[label])
            values = values if self._blend is None else self._blend(values)
            if len(values) < len(labels):
                values, scored = np.full(len(labels), -np.inf), values
                values[self._scored] = scored
            return ap(values, labels)

        with ThreadPoolExecutor(threads) as pool:
            return dict(zip(classes, pool.map(compare, classes), strict=True))


def frame_aps(
    annotations: Annotations,
    scores: DenseScores,
    grid: Grid,
    classes: Sequence[str],
    ap: FrameAp = frame_ap,
) -> dict[str, float]:
    """Return the frame AP of every class over the moments of all videos, see `FrameComparison`."""
    rows = {name: rows for name, (rows, _) in scores.videos.items() if len(rows)}
    pts = {name: scores.videos[name][1] for name in rows}
    return FrameComparison(annotations, grid, pts).aps(rows, scores.classes, classes, ap)


@dataclass(frozen=True)
class _Blend:
    """Linear interpolation within each of many videos at once, as ``numpy.interp`` does it.

    Attributes:
        left: (N,) row before each moment, counted over all videos.
        right: (N,) row after it; the same row before the first and after the last of a video.
        offset: (N,) seconds from the one to the moment.
        span: (N,) seconds from the one to the other, 1 where they are the same.
    """

    left: np.ndarray
    right: np.ndarray
    offset: np.ndarray
    span: np.ndarray

    @classmethod
    def between(cls, middles: list[np.ndarray], times: list[np.ndarray]) -> _Blend | None:
        """Return what takes scores from the middles of rows to other times; None if they agree."""
        if all(map(np.array_equal, middles, times)):
            return None
        parts: list[tuple[np.ndarray, ...]] = []
        start = 0
        for middle, moments in zip(middles, times, strict=True):
            before = np.searchsorted(middle, moments, side="right") - 1
            left = np.maximum(before, 0)
            right = np.where(before < 0, left, np.minimum(before + 1, len(middle) - 1))
            apart = right > left
            offset = np.where(apart, moments - middle[left], 0.0)
            span = np.where(apart, middle[right] - middle[left], 1.0)
            parts.append((start + left, start + right, offset, span))
            start += len(middle)
        return cls(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def __call__(self, column: np.ndarray) -> np.ndarray:
        rows = column.astype(np.float64)
        first = rows[self.left]
        return (rows[self.right] - first) / self.span * self.offset + first
