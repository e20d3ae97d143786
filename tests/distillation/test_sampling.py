"""Batches, positives and negatives."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vidkd.distillation.batches import (
    contrastive_batches,
    crop_starts,
    has_contrast,
    plain_batches,
)

label_sets = st.lists(st.frozensets(st.integers(0, 3), max_size=3), min_size=1, max_size=40)


@given(count=st.integers(1, 50), size=st.integers(1, 20), seed=st.integers(0, 9))
def test_plain_batches_hold_every_video_once(count, size, seed):
    plans = plain_batches(count, size, np.random.default_rng(seed))
    assert sorted(video for plan in plans for video in plan.videos) == list(range(count))
    assert all(len(plan.videos) == size for plan in plans[:-1])


@given(
    labels=label_sets, negatives=st.integers(1, 3), spare=st.integers(0, 12), seed=st.integers(0, 9)
)
def test_contrastive_batches(labels, negatives, spare, seed):
    size = negatives + 1 + spare
    plans = contrastive_batches(labels, size, negatives, np.random.default_rng(seed))
    again = contrastive_batches(labels, size, negatives, np.random.default_rng(seed))
    assert plans == again
    # Every video comes once, so that an epoch is the same work as without distillation.
    assert sorted(video for plan in plans for video in plan.videos) == list(range(len(labels)))
    positives = size // (negatives + 1)
    for plan in plans:
        assert len(plan.videos) <= size
        assert len(plan.anchors) <= positives
        assert len(set(plan.anchors)) == len(plan.anchors) == len(plan.negatives)
        for anchor, partners in zip(plan.anchors, plan.negatives, strict=True):
            video = plan.videos[anchor]
            assert video not in partners
            if len(labels) > 1:
                assert len(partners) == negatives
            if has_contrast(labels):
                assert all(labels[partner] != labels[video] for partner in partners)
    for plan in plans[:-1]:
        assert len(plan.videos) == size
        assert len(plan.anchors) == positives


def test_half_of_a_batch_are_positives_in_the_paper():
    labels = [frozenset({number % 5}) for number in range(64)]
    plans = contrastive_batches(labels, 16, 1, np.random.default_rng(0))
    assert [(len(plan.videos), len(plan.anchors)) for plan in plans] == [(16, 8)] * 4


def test_a_lone_video_has_no_negative():
    (plan,) = contrastive_batches([frozenset({1})], 4, 1, np.random.default_rng(0))
    assert plan.negatives == ((),)


@given(lengths=st.lists(st.integers(1, 30), max_size=9), longest=st.none() | st.integers(1, 20))
def test_cuts_stay_inside(lengths, longest):
    starts = list(crop_starts(lengths, longest, np.random.default_rng(0)))
    for start, length in zip(starts, lengths, strict=True):
        spare = 0 if longest is None else max(0, length - longest)
        assert 0 <= start <= spare
