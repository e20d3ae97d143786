"""Segments from the scores of snippets as they come: `clear_segments`, without waiting.

What has ended is what `vidkd.detection.segments.clear_segments` finds in all the scores at once.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from vidkd.recipe import SegmentSettings


class Change(NamedTuple):
    """What one snippet changes for one segment."""

    state: Literal["begin", "certain", "end"]
    label: int
    number: int
    """Of the segment, from 1 in the order of beginning."""
    start: float
    end: float | None
    score: float


class Grouping:
    """Runs of snippets at or above the release score that reach the threshold.

    A segment *begins* when its run first reaches the threshold, and its start lies where the run
    rose above the release score. It is *certain* as soon as it is as long as the shortest segment
    that is shown, whatever comes: at once, where any length is shown. It *ends* when a score falls
    below the release score, or the scores end. One that ends too short was never certain.

    Args:
        classes: K.
        threshold: the score a segment has to reach.
        settings: ``release``, as a share of the threshold, and the shortest segment.
    """

    def __init__(self, classes: int, threshold: float, settings: SegmentSettings) -> None:
        self._threshold = threshold
        self._release = settings.release * threshold
        self._minimum = settings.minimum_seconds - 1e-9
        self._count = 0
        self._open = np.zeros(classes, dtype=bool)
        self._start = np.zeros(classes)
        self._area = np.zeros(classes)
        self._number = np.zeros(classes, dtype=np.int64)  # 0 until it has reached the threshold
        self._certain = np.zeros(classes, dtype=bool)
        self._last: tuple[np.ndarray, float, float] | None = None

    def add(self, scores: np.ndarray, start: float, end: float) -> list[Change]:
        """Take the scores (K,) of the next snippet, from ``start`` to ``end`` in seconds."""
        scores = np.nan_to_num(scores.astype(np.float64), nan=0.0)
        # As in `cell_borders`: halfway between the end of a snippet and the start of the next.
        border = start if self._last is None else (self._last[2] + start) / 2
        self._close_cell(border)
        active = scores >= self._release
        changes = self._ended(np.nonzero(self._open & ~active)[0], border)
        new = active & ~self._open
        self._start[new], self._area[new] = border, 0.0
        self._number[new], self._certain[new] = 0, False
        self._open = active
        for label in np.nonzero(active & (scores >= self._threshold) & (self._number == 0))[
            0
        ].tolist():
            self._count += 1
            self._number[label] = self._count
            changes.append(self._change("begin", label, float(scores[label])))
        lasting = active & (self._number > 0) & ~self._certain
        for label in np.nonzero(lasting & (border - self._start >= self._minimum))[0].tolist():
            self._certain[label] = True
            changes.append(self._change("certain", label, float(scores[label])))
        self._last = scores, border, end
        return changes

    def finish(self) -> list[Change]:
        """End what is open: no snippet follows the last one, or only after a long pause.

        The next snippet begins anew; segments go on to be numbered.
        """
        if self._last is None:
            return []
        border = self._last[2]
        self._close_cell(border)
        changes = self._ended(np.nonzero(self._open)[0], border)
        self._open[:], self._last = False, None
        return changes

    def _close_cell(self, border: float) -> None:
        """Add the last snippet, which ends here, to the runs that are open."""
        if self._last is not None:
            scores, begin, _ = self._last
            self._area[self._open] += scores[self._open] * (border - begin)

    def _ended(self, labels: np.ndarray, border: float) -> list[Change]:
        changes = []
        for label in labels[self._number[labels] > 0].tolist():
            mean = float(self._area[label] / (border - self._start[label]))
            if not self._certain[label] and border - self._start[label] >= self._minimum:
                changes.append(self._change("certain", label, mean))
            changes.append(self._change("end", label, mean, border))
        return changes

    def _change(
        self,
        state: Literal["begin", "certain", "end"],
        label: int,
        score: float,
        end: float | None = None,
    ) -> Change:
        start, number = float(self._start[label]), int(self._number[label])
        return Change(state, label, number, start, end, score)
