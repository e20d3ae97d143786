"""The modules that are exported compute what the student and detection do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from exported_students import CLASSES, WIDTH, write_student
from hypothesis import given, settings
from hypothesis import strategies as st

from vidkd.deployment.graphs import SequenceGraph, _painted
from vidkd.detection.scorers import StudentScorer
from vidkd.detection.segments import clear_segments
from vidkd.networks.segment_head import Proposals
from vidkd.recipe import SegmentSettings

AFFINE = ((0.5, 0.1), (2.0, -0.3), (1.0, 0.0))
CHANGES = {
    "plain": {},
    "thresholds": {"thresholds": (0.3, 0.5, 0.7), "segment_thresholds": (0.2, 0.6, 0.5)},
    "calibrated": {"calibration": AFFINE, "segment_calibration": AFFINE[::-1]},
    "shortest": {"segments": SegmentSettings(minimum_seconds=0.7, release=0.8)},
}


@pytest.mark.parametrize("count", [1, 2, 101])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "kinds", [("local-attention", 3), ("causal-ss-tcn", 0), ("local-attention", 3, "ss-tcn", 2)]
)
def test_sequences_give_scores_and_segments_of_the_student(
    tmp_path: Path, kinds: tuple[str | int, ...], change: str, count: int
) -> None:
    paths = []
    for place in range(0, len(kinds), 2):
        # The second student of a fusion knows one class less, in another order.
        own = {"classes": CLASSES[1::-1]} if place else {}
        changes = {
            k: v[: 3 - len(own)] if isinstance(v, tuple) else v for k, v in CHANGES[change].items()
        }
        paths.append(
            write_student(
                tmp_path, "0" * 64, str(kinds[place]), int(kinds[place + 1]), **own, **changes
            )
        )
    scorer = StudentScorer(paths, torch.device("cpu"))
    generator = np.random.default_rng(count)
    rows = generator.standard_normal((count, WIDTH), np.float32) * 0.1
    pts = np.cumsum(generator.uniform(0.1, 0.5, (count, 1)), axis=0) + np.array([0.0, 0.6])
    expected, _, candidates = scorer.scores([rows], [pts])
    limit = float(np.median(expected))
    module = SequenceGraph(scorer.fusion).eval()
    given = (torch.from_numpy(rows), torch.from_numpy(pts), torch.tensor(limit).double())
    scores, *found = (item.numpy() for item in module(*given))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    if candidates is None:
        rules = scorer.settings
        shown = clear_segments(
            expected,
            pts,
            scorer.classes,
            threshold=limit,
            release=rules.release * limit,
            minimum_seconds=rules.minimum_seconds,
        )
        right = [(scorer.classes.index(s.label), s.score, s.start, s.end) for s in shown]
    else:
        keep = candidates.score >= limit
        columns = (candidates.label, candidates.score, candidates.start, candidates.end)
        right = list(zip(*(column[keep] for column in columns), strict=True))
    np.testing.assert_allclose(
        np.array(sorted(zip(*found, strict=True))).reshape(-1, 4),
        np.array(sorted(right)).reshape(-1, 4),
        atol=1e-4,
    )


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_best_proposal_over_a_snippet_is_painted(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 40))
    edge = st.floats(0, count, allow_nan=False)
    ends = data.draw(st.lists(st.tuples(edge, edge).map(sorted), min_size=1, max_size=12))
    score = data.draw(
        st.lists(st.integers(1, 99).map(lambda n: n / 100), min_size=len(ends), max_size=len(ends))
    )
    start, end = np.array(ends).T
    label = np.arange(len(ends)) % 2
    right = Proposals(label, np.array(score, np.float32), start, end).dense(count, 2)
    scores = torch.zeros(2, len(ends))
    scores[label, np.arange(len(ends))] = torch.tensor(score)
    found = _painted(scores, torch.from_numpy(np.stack([start, end])), count)
    np.testing.assert_array_equal(found.numpy(), right)
