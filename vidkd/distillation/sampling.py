"""Which videos train together, and which serve as negatives (METHOD section 2, "Atomic")."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BatchPlan:
    """The videos of one training step.

    Attributes:
        videos: numbers of the B videos; each has the classification, the global and the
            boundary loss.
        anchors: places in ``videos`` of the P positives of the atomic loss.
        negatives: for each of them the numbers of N videos with another label set.
    """

    videos: tuple[int, ...]
    anchors: tuple[int, ...] = ()
    negatives: tuple[tuple[int, ...], ...] = ()


def plain_batches(count: int, batch_size: int, rng: np.random.Generator) -> list[BatchPlan]:
    """Cut a random order of ``count`` videos into batches; the last may be smaller."""
    order = rng.permutation(count).tolist()
    return [
        BatchPlan(tuple(order[start : start + batch_size])) for start in range(0, count, batch_size)
    ]


def contrastive_batches(
    labels: Sequence[Hashable], batch_size: int, negatives: int, rng: np.random.Generator
) -> list[BatchPlan]:
    """Cut a random order of the videos into batches of positives and their negatives.

    A batch of B videos has P = B / (N + 1) positives with N negatives each; the negatives are
    the other videos of the batch. Every video comes once per epoch, in one of the two roles, and
    the order changes from epoch to epoch. When none of the videos left in the epoch can serve as
    a negative, one is drawn from the whole set and only its teacher's features are used.

    Args:
        labels: one label set per video; a negative is a video with a different one. When all
            are equal, any other video serves; the caller then contrasts only the snippets whose
            own labels differ (see ``has_contrast``).
        batch_size: B, at least N + 1.
        negatives: N.
        rng: the only source of randomness.
    """
    contrast = has_contrast(labels)
    left = rng.permutation(len(labels)).tolist()
    plans = []
    while left:
        videos: list[int] = []
        anchors: list[int] = []
        chosen: list[tuple[int, ...]] = []
        for _ in range(max(1, batch_size // (negatives + 1))):
            if not left or len(videos) + negatives >= batch_size:
                break
            anchor = left.pop(0)
            anchors.append(len(videos))
            videos.append(anchor)
            partners = []
            for _ in range(negatives):
                place = _first_other(left, labels, anchor, contrast)
                if place is None:
                    drawn = _draw_other(labels, anchor, contrast, rng)
                    if drawn is not None:
                        partners.append(drawn)
                else:
                    partner = left.pop(place)
                    partners.append(partner)
                    videos.append(partner)
            chosen.append(tuple(partners))
        while left and len(videos) < batch_size:
            videos.append(left.pop(0))
        plans.append(BatchPlan(tuple(videos), tuple(anchors), tuple(chosen)))
    return plans


def has_contrast(labels: Sequence[Hashable]) -> bool:
    """Say whether at least two videos have different label sets."""
    return len(set(labels)) > 1


def _first_other(
    left: Sequence[int], labels: Sequence[Hashable], anchor: int, contrast: bool
) -> int | None:
    for place, video in enumerate(left):
        if not contrast or labels[video] != labels[anchor]:
            return place
    return None


def _draw_other(
    labels: Sequence[Hashable], anchor: int, contrast: bool, rng: np.random.Generator
) -> int | None:
    others = [
        video
        for video in range(len(labels))
        if video != anchor and (not contrast or labels[video] != labels[anchor])
    ]
    return int(rng.choice(others)) if others else None


def crop_starts(
    lengths: Sequence[int], longest: int | None, rng: np.random.Generator
) -> Iterator[int]:
    """Yield for each length where a training sequence of at most ``longest`` snippets starts."""
    for length in lengths:
        spare = 0 if longest is None else max(0, length - longest)
        yield int(rng.integers(spare + 1)) if spare else 0
