"""Dividing videos: whole sources, every class everywhere, close to the shares."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from vidkd.annotations import Annotations, Segment, VideoAnnotation
from vidkd.annotations.division import divide
from vidkd.errors import UsageError

SHARES = {"training": 60.0, "validation": 20.0, "testing": 20.0}


def dataset(videos: int, classes: int, seed: int) -> Annotations:
    """Return videos of a few classes each, some of the classes rare."""
    dice = random.Random(seed)
    found = {}
    for number in range(videos):
        labels = {f"c{min(int(dice.expovariate(0.5)), classes - 1)}" for _ in range(3)}
        segments = tuple(Segment(0, 1, label) for label in sorted(labels))
        found[f"v{number}"] = VideoAnnotation(f"v{number}", duration=1.0, segments=segments)
    return Annotations.of_labels(found)


@pytest.mark.parametrize("seed", range(5))
def test_classes_are_in_all_subsets_and_sources_in_one(seed: int) -> None:
    truth = dataset(90, 8, seed)
    sources = {name: f"person {int(name[1:]) // 3}" for name in truth.videos}
    found = divide(truth, sources, SHARES, seed)
    assert list(found.videos) == list(truth.videos)
    places: dict[str, set[str]] = {}
    for name, video in found.videos.items():
        places.setdefault(sources[name], set()).add(video.subset)
    assert all(len(place) == 1 for place in places.values())
    for label in truth.classes:
        have = {
            sources[name]: video.subset
            for name, video in found.videos.items()
            if any(item.label == label for item in video.segments)
        }
        counts = Counter(have.values())
        if len(have) >= 6:
            assert set(counts) == set(SHARES), label
        # Of a rare class training has its part first.
        assert counts["training"] >= 1
        if len(have) >= 15:
            for name, share in SHARES.items():
                assert counts[name] / len(have) == pytest.approx(share / 100, abs=0.12)
    assert divide(truth, sources, SHARES, seed) == found


def test_three_videos_are_one_each_and_two_are_too_few() -> None:
    truth = dataset(3, 2, 0)
    alone = {name: name for name in truth.videos}
    found = divide(truth, alone, SHARES)
    assert {video.subset for video in found.videos.values()} == set(SHARES)
    with pytest.raises(UsageError, match="1 sources"):
        divide(truth, dict.fromkeys(truth.videos, "same"), SHARES)
