"""Segments that are found as scores come, against those found in all scores at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vidkd.detection.segments import clear_segments
from vidkd.live.grouping import Grouping
from vidkd.recipe import SegmentSettings

SCORES = st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.3, 0.5, 1.0, np.nan]))


@settings(max_examples=150, deadline=None)
@given(
    scores=arrays(np.float32, st.tuples(st.integers(1, 30), st.integers(1, 4)), elements=SCORES),
    stride=st.floats(0.1, 2),
    length=st.floats(0.1, 3),
    threshold=st.sampled_from([0.0, 0.4, 0.5, 0.9]),
    minimum=st.sampled_from([0.0, 0.7, 3.0]),
)
def test_ended_segments_are_those_of_all_scores_at_once(
    scores: np.ndarray, stride: float, length: float, threshold: float, minimum: float
) -> None:
    first = np.arange(len(scores)) * stride
    pts = np.stack([first, first + length], axis=1)
    chosen = SegmentSettings(minimum_seconds=minimum)
    grouping = Grouping(scores.shape[1], threshold, chosen)
    changes = [
        change
        for row, times in zip(scores, pts, strict=True)
        for change in grouping.add(row, *times)
    ]
    changes += grouping.finish()
    names = [str(number) for number in range(scores.shape[1])]
    wanted = clear_segments(
        scores,
        pts,
        names,
        threshold=threshold,
        release=chosen.release * threshold,
        minimum_seconds=minimum,
    )
    sure = {change.number for change in changes if change.state == "certain"}
    ended = [c for c in changes if c.state == "end" and c.number in sure]
    found = sorted((c.start, c.end, names[c.label], c.score) for c in ended)
    assert [item[2] for item in found] == [item.label for item in wanted]
    for item, (start, end, _, score) in zip(wanted, found, strict=True):
        assert (start, end, score) == pytest.approx((item.start, item.end, item.score), abs=1e-9)
    # Each is told once in every state, in order, and all that begins ends.
    for number in {change.number for change in changes}:
        states = [change.state for change in changes if change.number == number]
        assert states in (["begin", "certain", "end"], ["begin", "end"])


def test_a_segment_is_told_at_the_snippet_that_decides() -> None:
    grouping = Grouping(1, 0.5, SegmentSettings(minimum_seconds=2.0))
    told = [
        [
            (change.state, change.start, change.end)
            for change in grouping.add(np.array([s]), t, t + 1)
        ]
        for t, s in enumerate([0.1, 0.4, 0.6, 0.4, 0.4, 0.1])
    ]
    assert told == [
        [],
        [],
        [("begin", 1.0, None)],
        [("certain", 1.0, None)],
        [],
        [("end", 1.0, 5.0)],
    ]
    assert grouping.finish() == []
