"""From class scores per snippet to segments in seconds.

Two answers for two readers. `scores_to_segments` is the ranked list an evaluation wants: proposals,
then temporal non-maximum suppression per class (`suppression`). A student with a segment head makes
the proposals itself (`Candidates`); else they are made at several thresholds, by temporal
actionness grouping, a watershed (Xiong et al. 2017, "A Pursuit of Temporal Accuracy in General
Activity Detection"; Zhao et al. 2017, "Temporal Action Detection with Structured Segment
Networks"), or by hysteresis. What a person wants are segments that do not overlap within a class:
`clear_segments`, and `clear_candidates` for a segment head.

Every snippet owns a cell of the time axis, and a segment is a run of cells. See `cell_borders`.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import islice

import numpy as np

from vidkd.detection.suppression import suppressed
from vidkd.evaluation import Detection
from vidkd.evaluation.predictions import Candidates
from vidkd.recipe import SegmentSettings

FLANK = 0.25
"""Width of what a region is contrasted with on either side, as a share of its duration."""
LONG_SECONDS = 20.0
"""Duration from which on a longer region gains little by its length alone."""


def cell_borders(pts: np.ndarray) -> np.ndarray:
    """Return the (T+1,) borders, in seconds, of the cells that the snippets own.

    Snippets overlap when the stride is shorter than the snippet and leave gaps when it is longer.
    The border between two neighbours lies halfway between the end of the one and the start of the
    next, which for full snippets is the midpoint between their centres, and for adjoining
    snippets is exactly their common boundary, also beside the shorter snippet at a video's end.

    Args:
        pts: (T, 2) start and end second of every snippet, both in ascending order.

    Raises:
        ValueError: ``pts`` has another shape or is out of order.
    """
    pts = np.asarray(pts, dtype=np.float64)
    if pts.ndim != 2 or pts.shape[1] != 2:
        raise ValueError(f"pts must have the shape (T, 2), not {pts.shape}")
    if len(pts) == 0:
        return np.zeros(0)
    borders = np.concatenate([pts[:1, 0], (pts[:-1, 1] + pts[1:, 0]) / 2, pts[-1:, 1]])
    if not np.all(np.diff(borders) > 0):
        raise ValueError("pts must be in ascending order, and every end after its start")
    return borders


def scores_to_segments(
    scores: np.ndarray,
    pts: np.ndarray,
    classes: Sequence[str],
    settings: SegmentSettings,
    candidates: Candidates | None = None,
) -> list[Detection]:
    """Group the scores of every class into ranked, possibly overlapping segments.

    ``settings.method`` says how one threshold makes proposals; those of all thresholds are pooled.

    - ``watershed``: the runs of snippets at or above the threshold are basins. From each basin a
      region grows over the basins that follow it as long as no more than a tolerated share of the
      region's duration lies below the threshold; the tolerance is 1 - tau of Xiong et al.
    - ``hysteresis``: a run of snippets at or above ``settings.release`` times the threshold that
      reaches the threshold somewhere.

    A region scores as `_rank` says. ``settings.nms`` then drops regions that overlap a better one
    of their class, or lowers their scores.

    Args:
        scores: (T, K) in [0, 1]; NaN counts as 0.
        pts: (T, 2) seconds.
        classes: K names.
        settings: thresholds, tolerances, NMS, shortest segment and largest number of segments.
        candidates: of a segment head; they take the place of what grouping proposes.

    Returns:
        at most ``settings.maximum_per_video`` detections, best first.
    """
    scores, borders = _checked(scores, pts, classes)
    if scores.size == 0:
        return []
    if candidates is not None:
        return _ranked(candidates, classes, settings)
    if settings.method == "hysteresis":
        proposals = [
            np.stack(_hysteresis(scores, threshold, settings.release * threshold))
            for threshold in settings.thresholds
        ]
    else:
        proposals = [
            _grow(*_basins(scores >= threshold), borders, tolerance)
            for threshold in settings.thresholds
            for tolerance in settings.tolerances
        ]
    label, first, last = np.unique(np.concatenate(proposals, axis=1), axis=1)
    rank = _rank(scores, borders, label, first, last)
    return _ranked(Candidates(label, rank, borders[first], borders[last]), classes, settings)


def _ranked(
    found: Candidates, classes: Sequence[str], settings: SegmentSettings
) -> list[Detection]:
    """Suppress what overlaps a better segment of its class; return the rest, best first."""
    order = np.argsort(found.label, kind="stable")
    label, rank = found.label[order], found.score[order]
    start, end = found.start[order], found.end[order]
    keep = end - start >= max(settings.minimum_seconds - 1e-9, 1e-9)
    label, rank, start, end = label[keep], rank[keep], start[keep], end[keep]
    # A class never needs more than maximum_per_video kept segments, and merging the classes'
    # lists lazily stops all of them once the video's list is full.
    ranked = heapq.merge(
        *(
            suppressed(
                start[of_class], end[of_class], rank[of_class], int(label[of_class[0]]), settings
            )
            for of_class in _groups(label)
        ),
        key=lambda item: -item[0],
    )
    return [
        Detection(label=classes[number], score=score, start=begin, end=stop)
        for score, number, begin, stop in islice(ranked, settings.maximum_per_video)
    ]


def shown_segments(
    scores: np.ndarray,
    pts: np.ndarray,
    classes: Sequence[str],
    threshold: float,
    settings: SegmentSettings,
    candidates: Candidates | None,
) -> list[Detection]:
    """Return what a person is shown: `clear_candidates` of a segment head, else `clear_segments`.

    Args:
        scores: (T, K) in [0, 1].
        pts: (T, 2) seconds.
        classes: K names.
        threshold: the score a segment has to reach.
        settings: ``release``, as a share of the threshold, and the shortest segment.
        candidates: of the segment head; None without one.
    """
    shortest = settings.minimum_seconds
    if candidates is not None:
        return clear_candidates(candidates, classes, threshold=threshold, minimum_seconds=shortest)
    release = settings.release * threshold
    return clear_segments(
        scores, pts, classes, threshold=threshold, release=release, minimum_seconds=shortest
    )


def clear_segments(
    scores: np.ndarray,
    pts: np.ndarray,
    classes: Sequence[str],
    *,
    threshold: float,
    release: float | None = None,
    minimum_seconds: float = 0.0,
) -> list[Detection]:
    """Return segments that do not overlap within a class, by thresholding with hysteresis.

    A segment is a run of snippets at or above ``release`` that reaches ``threshold`` somewhere; so
    a score that trembles around the threshold makes one segment instead of many.

    Args:
        scores: (T, K) in [0, 1]; NaN counts as 0.
        pts: (T, 2) seconds.
        classes: K names.
        threshold: the score a segment has to reach.
        release: the score at which it ends; by default 60 % of ``threshold``.
        minimum_seconds: shorter segments are dropped.

    Returns:
        detections sorted by start; the score is the time-weighted mean of the class inside.
    """
    release = 0.6 * threshold if release is None else release
    if not 0 <= release <= threshold:
        raise ValueError("release must lie between 0 and threshold")
    scores, borders = _checked(scores, pts, classes)
    if scores.size == 0:
        return []
    label, first, last = _hysteresis(scores, threshold, release)
    keep = borders[last] - borders[first] >= minimum_seconds - 1e-9
    label, first, last = label[keep], first[keep], last[keep]
    means = _mean_inside(scores, borders, label, first, last)
    found = [
        Detection(label=classes[k], score=float(mean), start=float(start), end=float(end))
        for k, mean, start, end in zip(label, means, borders[first], borders[last], strict=True)
    ]
    return sorted(found, key=lambda item: (item.start, item.end, item.label))


def clear_candidates(
    candidates: Candidates,
    classes: Sequence[str],
    *,
    threshold: float,
    minimum_seconds: float = 0.0,
) -> list[Detection]:
    """Return the segments of a segment head that do not overlap within a class.

    The best comes first. Of a worse one what lies under a better one is cut off, and if that is
    more than half of it, it is dropped.

    Args:
        candidates: scores in [0, 1].
        classes: K names.
        threshold: the score a segment has to reach.
        minimum_seconds: shorter segments are dropped.

    Returns:
        detections sorted by start.
    """
    kept: dict[int, list[tuple[float, float]]] = {}
    found = []
    for n in np.argsort(-candidates.score, kind="stable"):
        score = float(candidates.score[n])
        if score < threshold:
            break
        label = int(candidates.label[n])
        whole = start, end = float(candidates.start[n]), float(candidates.end[n])
        taken = kept.setdefault(label, [])
        for first, last in taken:
            if start < last and first < end:
                # The longer of the two parts beside the better one.
                start, end = max((start, min(end, first)), (max(start, last), end), key=_length)
        if end - start < max(minimum_seconds, (whole[1] - whole[0]) / 2, 1e-9):
            continue
        taken.append((start, end))
        found.append(Detection(label=classes[label], score=score, start=start, end=end))
    return sorted(found, key=lambda item: (item.start, item.end, item.label))


def _length(interval: tuple[float, float]) -> float:
    return interval[1] - interval[0]


def _checked(
    scores: np.ndarray, pts: np.ndarray, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    scores = np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=0.0)
    borders = cell_borders(pts)
    if scores.ndim != 2 or scores.shape != (max(len(borders) - 1, 0), len(classes)):
        raise ValueError(
            f"scores must have the shape (T, K) = ({max(len(borders) - 1, 0)}, {len(classes)}),"
            f" not {scores.shape}"
        )
    return scores, borders


def _basins(active: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return label, first and last border of every run of True in (T, K), class by class."""
    padded = np.pad(active.T.astype(np.int8), ((0, 0), (1, 1)))
    steps = np.diff(padded, axis=1)
    label, first = np.nonzero(steps == 1)
    last = np.nonzero(steps == -1)[1]
    return label, first, last


def _hysteresis(
    scores: np.ndarray, threshold: float, release: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return label, first and last border of the runs at ``release`` that reach ``threshold``."""
    label, first, last = _basins(scores >= release)
    reached = np.cumsum(np.pad(scores >= threshold, ((1, 0), (0, 0))), axis=0)
    keep = reached[last, label] > reached[first, label]
    return label[keep], first[keep], last[keep]


def _grow(
    label: np.ndarray, first: np.ndarray, last: np.ndarray, borders: np.ndarray, tolerance: float
) -> np.ndarray:
    """Let every basin absorb the basins after it; return (3, N): label, first, last border.

    Basin s has absorbed up to e while the covered share stays at tau = 1 - tolerance or more:
    D[e] - D[s-1] >= tau (end[e] - start[s]), with D the cumulative duration of the basins. That is
    f[e] >= g[s] for f = D - tau end and g = D - duration - tau start, so that a basin's reach is
    the element before the first later f below its g: found for all basins at once by
    descending a table of range minima, in O(N log N) however far the basins reach.
    """
    if len(label) == 0 or tolerance <= 0:
        return np.stack([label, first, last])
    tau = 1.0 - tolerance
    start, end = borders[first], borders[last]
    covered = np.cumsum(end - start)
    # Rounding must not decide whether a share of exactly tau is enough.
    g = covered - (end - start) - tau * start - 1e-9 * max(1.0, abs(borders[-1]))
    # An element of minus infinity after every class stops growth from one class into the next.
    position = np.arange(len(label)) + np.concatenate([[0], np.cumsum(np.diff(label) != 0)])
    minima = [np.full(int(position[-1]) + 2, -np.inf)]
    minima[0][position] = covered - tau * end
    while len(minima[-1]) > 1 << (len(minima) - 1):
        # minima[k][i] is the smallest of the 2**k elements that begin at i.
        half = 1 << (len(minima) - 1)
        previous = minima[-1]
        minima.append(np.minimum(previous[:-half], previous[half:]))
    reach = position.copy()
    for level in range(len(minima) - 1, -1, -1):
        following = reach + 1
        inside = following < len(minima[level])
        smallest = np.full(len(reach), -np.inf)
        smallest[inside] = minima[level][following[inside]]
        reach = np.where(smallest >= g, reach + (1 << level), reach)
    basin_at = np.zeros(len(minima[0]), dtype=np.int64)
    basin_at[position] = np.arange(len(label))
    return np.stack([label, first, last[basin_at[reach]]])


def _mean_inside(
    scores: np.ndarray,
    borders: np.ndarray,
    label: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
) -> np.ndarray:
    """Return the time-weighted mean score of each region (label, first border, last border)."""
    area = _area(scores, borders)
    return (area[last, label] - area[first, label]) / (borders[last] - borders[first])


def _area(scores: np.ndarray, borders: np.ndarray) -> np.ndarray:
    """Return (T + 1, K), the integral of the scores over time up to every border."""
    area = np.cumsum(scores * np.diff(borders)[:, None], axis=0)
    return np.concatenate([np.zeros((1, scores.shape[1])), area])


def _rank(
    scores: np.ndarray,
    borders: np.ndarray,
    label: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
) -> np.ndarray:
    """Return the score of each region (label, first border, last border), in [0, 1].

    The mean inside alone prefers the tip of every peak to the whole of it. So the mean score of
    the flanks, a quarter of the region on either side, is taken off (the outer-inner contrast of
    Shou et al. 2018, AutoLoc); and as the noise of a mean falls with the square root of its
    length, the contrast counts times sqrt(d / (d + 20 s)), d being the duration. docs/detect.md
    has the measurements.
    """
    area = _area(scores, borders)

    def until(time: np.ndarray) -> np.ndarray:
        cell = np.clip(np.searchsorted(borders, time, side="right") - 1, 0, len(borders) - 2)
        share = (time - borders[cell]) / (borders[cell + 1] - borders[cell])
        return area[cell, label] * (1 - share) + area[cell + 1, label] * share

    start, end = borders[first], borders[last]
    duration = end - start
    left = np.maximum(start - FLANK * duration, borders[0])
    right = np.minimum(end + FLANK * duration, borders[-1])
    outside = np.zeros_like(duration)
    width = (start - left) + (right - end)
    beside = (area[first, label] - until(left)) + (until(right) - area[last, label])
    np.divide(beside, width, out=outside, where=width > 0)
    contrast = np.clip(_mean_inside(scores, borders, label, first, last) - outside, 0.0, 1.0)
    return contrast * np.sqrt(duration / (duration + LONG_SECONDS))


def _groups(label: np.ndarray) -> list[np.ndarray]:
    """Return the indices of every distinct label; ``label`` is sorted."""
    if len(label) == 0:
        return []
    return np.split(np.arange(len(label)), np.nonzero(np.diff(label))[0] + 1)
