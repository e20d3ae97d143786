"""Frame mAP of the same videos again and again, with all that does not change computed once.

The number is that of the protocol ``frame`` (``vidkd.evaluation``), bit by bit. A protocol looks
every segment up for every class and video; after each of 300 epochs on a set such as Charades (157
classes, 1,863 videos) that would take longer than the training itself does on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch

from vidkd.annotations import Annotations, Segment
from vidkd.evaluation import DenseScores
from vidkd.evaluation.frames import frame_ap, frame_grid, frame_labels, midpoints
from vidkd.evaluation.result import mean_over_classes


class FrameMap:
    """Frame mAP over the classes present.

    Args:
        annotations: the ground truth.
        pts: by video, (T, 2) start and end second of the rows that will be scored.
    """

    def __init__(self, annotations: Annotations, pts: Mapping[str, np.ndarray]) -> None:
        rows = DenseScores(
            annotations.classes, {name: (np.zeros((len(t), 0)), t) for name, t in pts.items()}
        )
        grid = frame_grid(annotations, rows, None)
        self._videos = list(grid.times)
        self._blend = _Blend.between(
            [midpoints(pts[name]) for name in self._videos], list(grid.times.values())
        )
        segments: dict[str, list[list[Segment]]] = {
            label: [[] for _ in self._videos] for label in annotations.classes
        }
        for number, name in enumerate(self._videos):
            for segment in annotations.videos[name].segments:
                segments[segment.label][number].append(segment)
        starts = [0, *accumulate(len(times) for times in grid.times.values())]
        self._count = starts[-1]
        # Positive moments by class: few among all.
        self._positives = [
            np.concatenate(
                [np.zeros(0, dtype=np.int64)]
                + [
                    start + np.flatnonzero(frame_labels(items, grid.times[name]))
                    for items, name, start in zip(of_class, self._videos, starts, strict=False)
                    if items
                ]
            )
            for of_class in segments.values()
        ]
        self._classes = annotations.classes

    def __call__(self, scores: Mapping[str, np.ndarray]) -> float:
        """Return the mAP in [0, 1]; NaN when no class is present.

        Args:
            scores: by video, (T, K) at the rows named before.
        """
        rows = np.concatenate([scores[name] for name in self._videos])
        columns = np.ascontiguousarray(rows.T)
        # Sorting leaves the interpreter lock alone.
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            found = pool.map(self._ap, columns, self._positives)
            per_class = dict(zip(self._classes, found, strict=True))
        mean = mean_over_classes(per_class, present_only=True)
        if isinstance(mean, dict):
            raise TypeError("a frame protocol gives one number")
        return mean

    def _ap(self, column: np.ndarray, place: np.ndarray) -> float:
        if not len(place):
            return float("nan")
        labels = np.zeros(self._count, dtype=bool)
        labels[place] = True
        return frame_ap(column if self._blend is None else self._blend(column), labels)


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
