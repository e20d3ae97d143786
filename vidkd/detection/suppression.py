"""Temporal non-maximum suppression: hard, and the two soft forms.

Source of the soft forms: Bodla, Singh, Chellappa, Davis, "Soft-NMS: Improving Object Detection
With One Line of Code", ICCV 2017, with the overlap of intervals in place of boxes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vidkd.recipe import SegmentSettings


def suppressed(
    start: np.ndarray,
    end: np.ndarray,
    rank: np.ndarray,
    label: int,
    settings: SegmentSettings,
) -> Iterator[tuple[float, int, float, float]]:
    """Yield (score, label, start, end) of one class's segments, best first.

    Whenever a segment has been yielded, those left that overlap it pay for it:

    - ``hard``: what has a tIoU above ``nms_tiou`` with it is dropped.
    - ``linear``: the score of what has a tIoU above ``nms_tiou`` is multiplied by 1 - tIoU.
    - ``gaussian``: every score is multiplied by exp(-tIoU^2 / ``nms_sigma``).

    Scores only ever fall, so that the order of what is yielded is that of the final scores. Of
    equal scores the segment given first comes first.

    Args:
        start: (N,) seconds.
        end: (N,) seconds, each after its start.
        rank: (N,) scores, not negative.
        label: number of the class, passed through.
        settings: ``nms``, ``nms_tiou`` and ``nms_sigma``.
    """
    order = np.argsort(-rank, kind="stable")
    start, end, rank = start[order], end[order], rank[order]
    while len(start):
        best = int(np.argmax(rank))
        yield float(rank[best]), label, float(start[best]), float(end[best])
        overlap = np.minimum(end, end[best]) - np.maximum(start, start[best])
        union = (end - start) + (end[best] - start[best]) - overlap
        if settings.nms == "hard":
            keep = overlap <= settings.nms_tiou * union
        else:
            tiou = np.clip(overlap / union, 0.0, 1.0)
            if settings.nms == "linear":
                rank = np.where(tiou > settings.nms_tiou, rank * (1.0 - tiou), rank)
            else:
                rank = rank * np.exp(-np.square(tiou) / settings.nms_sigma)
            keep = np.ones(len(start), dtype=bool)
        keep[best] = False
        start, end, rank = start[keep], end[keep], rank[keep]
