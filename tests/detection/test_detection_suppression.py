"""Hard and soft NMS, against the procedure written out one pair of segments at a time."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidkd.detection.segments import scores_to_segments
from vidkd.detection.suppression import suppressed
from vidkd.recipe import SegmentSettings


def tiou(a, b):
    low, high = max(a[0], b[0]), min(a[1], b[1])
    return max(0.0, high - low) / (max(a[1], b[1]) - min(a[0], b[0])) if high > low else 0.0


def plain(segments, chosen):
    """Bodla et al. 2017, figure 2, on intervals: take the best, let the others pay, repeat."""
    left = [list(item) for item in segments]
    done = []
    while left:
        best = max(left, key=lambda item: item[2])
        left.remove(best)
        done.append(tuple(best))
        survivors = []
        for item in left:
            overlap = tiou(item, best)
            if chosen.nms == "gaussian":
                item[2] *= math.exp(-(overlap**2) / chosen.nms_sigma)
            elif overlap > chosen.nms_tiou:
                if chosen.nms == "hard":
                    continue
                item[2] *= 1 - overlap
            survivors.append(item)
        left = survivors
    return done


def run(segments, chosen):
    start, end, rank = (np.array(column) for column in zip(*segments, strict=True))
    return [(a, b, score) for score, _, a, b in suppressed(start, end, rank, 3, chosen)]


SEGMENTS = st.lists(
    st.tuples(st.floats(0, 50), st.floats(0.1, 30), st.floats(1e-3, 1)), min_size=1, max_size=25
).map(lambda items: [(a, a + length, score) for a, length, score in items])


@settings(max_examples=150, deadline=None)
@given(
    SEGMENTS,
    st.sampled_from(["hard", "linear", "gaussian"]),
    st.sampled_from([0.2, 0.5, 1.0]),
    st.sampled_from([0.1, 0.5, 2.0]),
)
def test_scores_are_those_of_the_plain_procedure(segments, kind, limit, sigma):
    chosen = SegmentSettings(nms=kind, nms_tiou=limit, nms_sigma=sigma)
    found, expected = run(segments, chosen), plain(segments, chosen)
    # Where scores tie, the order is free; the multiset of what comes out may then differ too.
    scores = [item[2] for item in expected]
    if len({round(score, 9) for score in scores}) == len(scores):
        np.testing.assert_allclose(np.array(found), np.array(expected), rtol=1e-9)
    ranks = [item[2] for item in found]
    assert ranks == sorted(ranks, reverse=True)


@pytest.mark.parametrize("kind", ["linear", "gaussian"])
def test_soft_forms_keep_every_segment_and_leave_disjoint_ones_alone(kind):
    chosen = SegmentSettings(nms=kind, nms_tiou=0.4, nms_sigma=0.5)
    assert run([(0, 10, 0.9), (20, 30, 0.8), (50, 60, 0.7)], chosen) == [
        (0, 10, 0.9),
        (20, 30, 0.8),
        (50, 60, 0.7),
    ]
    overlapping = run([(0, 10, 0.9), (0, 8, 0.8), (5, 15, 0.7)], chosen)
    assert len(overlapping) == 3
    assert overlapping[0] == (0, 10, 0.9)


def test_the_two_soft_forms_by_hand():
    segments = [(0.0, 10.0, 0.9), (0.0, 8.0, 0.8), (5.0, 15.0, 0.7)]
    linear = run(segments, SegmentSettings(nms="linear", nms_tiou=0.4))
    # tIoU with the best: 0.8 and 1/3, of which only the first is above 0.4.
    assert [round(item[2], 9) for item in linear] == [0.9, 0.7, 0.16]
    gaussian = run(segments, SegmentSettings(nms="gaussian", nms_sigma=0.5))
    second = 0.7 * math.exp(-((1 / 3) ** 2) / 0.5)
    third = 0.8 * math.exp(-(0.8**2) / 0.5) * math.exp(-((3 / 15) ** 2) / 0.5)
    np.testing.assert_allclose([item[2] for item in gaussian], [0.9, second, third])


def test_a_video_is_ranked_after_suppression():
    rng = np.random.default_rng(0)
    scores = rng.random((60, 2))
    pts = np.stack([np.arange(60.0), np.arange(60.0) + 1], axis=1)
    hard = scores_to_segments(scores, pts, ("a", "b"), SegmentSettings())
    for kind in ("linear", "gaussian"):
        chosen = SegmentSettings(nms=kind, maximum_per_video=10**6)
        soft = scores_to_segments(scores, pts, ("a", "b"), chosen)
        assert len(soft) > len(hard)
        assert [d.score for d in soft] == sorted((d.score for d in soft), reverse=True)
        few = chosen.model_copy(update={"maximum_per_video": 9})
        assert scores_to_segments(scores, pts, ("a", "b"), few) == soft[:9]
