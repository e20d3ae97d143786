"""Dividing videos into subsets, so that every class is learnt and measured."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vidkd.annotations.model import AMBIGUOUS, Annotations
from vidkd.errors import UsageError

SUBSETS = ("training", "validation", "testing")
_MOST_STEPS = 20_000
"""Sources placed in all trials together; so large sets are divided in fewer trials."""


@dataclass(frozen=True)
class _Source:
    """What must stay together: the videos of one person, place or recording."""

    videos: tuple[str, ...]
    labels: Counter[str]
    """Segments of each class."""


def divide(
    annotations: Annotations,
    sources: Mapping[str, str],
    shares: Mapping[str, float],
    seed: int = 0,
) -> Annotations:
    """Return the annotations with their videos divided anew into subsets.

    The division is an iterative stratification (Sechidis et al. 2011) of whole sources: the rarest
    class that is left comes first, and each of its sources goes to the subset that has the smallest
    part of what it should have of this class. From several orders of the sources that division is
    taken which leaves the fewest classes out of a subset, and then the one closest to the shares.

    Args:
        annotations: all videos of them are divided.
        sources: what each video is from, by its id; videos of one source stay together.
        shares: of the videos, by the names of the subsets, the one for training first.
        seed: of the orders.

    Raises:
        UsageError: there are fewer sources than subsets.
    """
    groups: dict[str, list[str]] = {}
    for video in annotations.videos:
        groups.setdefault(sources[video], []).append(video)
    if len(groups) < len(shares):
        raise UsageError(
            f"{len(groups)} sources of videos cannot be divided into {', '.join(shares)}",
            remedy="let single videos be divided (--split-by random), or add videos",
        )
    items = [
        _Source(
            tuple(videos),
            Counter(
                segment.label
                for video in videos
                for segment in annotations.videos[video].segments
                if segment.label != AMBIGUOUS
            ),
        )
        for videos in groups.values()
    ]
    wanted = {name: share / sum(shares.values()) for name, share in shares.items()}
    dice = random.Random(seed)
    trials = max(1, min(100, _MOST_STEPS // len(items)))
    best = min(
        (_place(dice.sample(items, len(items)), wanted) for _ in range(trials)),
        key=lambda placed: _badness(placed, wanted),
    )
    subset_of = {
        video: name for name, found in best.items() for item in found for video in item.videos
    }
    videos = {
        key: replace(video, subset=subset_of[key]) for key, video in annotations.videos.items()
    }
    return replace(annotations, videos=videos)


def _place(items: Sequence[_Source], wanted: Mapping[str, float]) -> dict[str, list[_Source]]:
    """Place sources one after the other; every subset gets one at least."""
    total = sum((item.labels for item in items), Counter[str]())
    videos = sum(len(item.videos) for item in items)
    placed: dict[str, list[_Source]] = {name: [] for name in wanted}
    have = {name: Counter[str]() for name in wanted}
    count = dict.fromkeys(wanted, 0)
    left = list(items)
    while left:
        rarest = Counter(label for item in left for label in item.labels)
        label = min(rarest, key=lambda name: (rarest[name], name)) if rarest else None
        # Large sources first: what is left over evens out.
        mine = sorted(
            (item for item in left if label is None or label in item.labels),
            key=lambda item: -len(item.videos),
        )
        for item in mine:
            name = min(
                wanted,
                key=lambda name: (
                    0.0 if label is None else have[name][label] / (wanted[name] * total[label]),
                    count[name] / (wanted[name] * videos),
                ),
            )
            placed[name].append(item)
            have[name] += item.labels
            count[name] += len(item.videos)
        done = {id(item) for item in mine}
        left = [item for item in left if id(item) not in done]
    for name in placed:
        if not placed[name]:
            most = max(placed, key=lambda other: len(placed[other]))
            moved = min(placed[most], key=lambda item: len(item.videos))
            placed[most].remove(moved)
            placed[name].append(moved)
    return placed


def _badness(
    placed: Mapping[str, Sequence[_Source]], wanted: Mapping[str, float]
) -> tuple[float, float]:
    """Return how many classes subsets lack, training counted thrice, and how far the shares are."""
    have = {name: sum((i.labels for i in found), Counter[str]()) for name, found in placed.items()}
    total = sum(have.values(), Counter[str]())
    training = next(iter(wanted))
    lacking = sum(
        (3 if name == training else 1) * sum(label not in have[name] for label in total)
        for name in wanted
    )
    videos = {name: sum(len(i.videos) for i in found) for name, found in placed.items()}
    every = sum(videos.values())
    off = sum(abs(videos[name] / every - share) for name, share in wanted.items())
    for label, number in total.items():
        off += sum(abs(have[n][label] / number - share) for n, share in wanted.items()) / len(total)
    return lacking, off
