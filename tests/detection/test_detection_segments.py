"""Scores to segments, against a plain second implementation of the papers' procedure."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidkd.detection.segments import (
    cell_borders,
    clear_candidates,
    clear_segments,
    scores_to_segments,
)
from vidkd.evaluation.predictions import Candidates
from vidkd.recipe import SegmentSettings

CLASSES = ("a", "b", "c")


def regular(count, length=1.0, stride=1.0):
    start = np.arange(count) * stride
    return np.stack([start, start + length], axis=1)


def grouped(active, borders, tolerance):
    """Temporal actionness grouping as Xiong et al. describe it, one basin after the other."""
    runs, position = [], 0
    while position < len(active):
        stop = position
        while stop < len(active) and active[stop]:
            stop += 1
        if stop > position:
            runs.append((position, stop))
        position = max(stop, position + 1)
    regions = set()
    for number, (first, last) in enumerate(runs):
        covered = borders[last] - borders[first]
        for next_first, next_last in runs[number + 1 :]:
            grown = covered + borders[next_last] - borders[next_first]
            if grown < (1 - tolerance) * (borders[next_last] - borders[first]) - 1e-9:
                break
            covered, last = grown, next_last
        regions.add((first, last))
    return regions


def rank(scores, borders, first, last):
    """The documented score, by sampling the step function of the scores finely."""
    start, end = borders[first], borders[last]
    duration = end - start
    times = np.linspace(borders[0], borders[-1], 200_001)
    values = scores[np.clip(np.searchsorted(borders, times, "right") - 1, 0, len(scores) - 1)]
    inside = values[(times >= start) & (times <= end)].mean()
    near = (times >= start - duration / 4) & (times <= end + duration / 4)
    beside = values[near & ((times < start) | (times > end))]
    outside = beside.mean() if len(beside) else 0.0
    return max(0.0, inside - outside) * np.sqrt(duration / (duration + 20))


def tiou(a, b):
    overlap = max(0.0, min(a.end, b.end) - max(a.start, b.start))
    return overlap / ((a.end - a.start) + (b.end - b.start) - overlap)


class TestBorders:
    def test_adjoining_snippets_meet_at_their_boundary_also_at_a_short_tail(self):
        pts = np.array([[0.0, 1.6], [1.6, 3.2], [3.2, 3.4]])
        np.testing.assert_allclose(cell_borders(pts), [0.0, 1.6, 3.2, 3.4])

    def test_overlapping_snippets_share_time_at_the_midpoint_of_their_centres(self):
        pts = regular(5, length=2.0, stride=0.5)
        centres = pts.mean(axis=1)
        expected = [0.0, *(centres[:-1] + centres[1:]) / 2, 4.0]
        np.testing.assert_allclose(cell_borders(pts), expected)

    def test_gaps_between_snippets_are_halved(self):
        np.testing.assert_allclose(cell_borders(regular(2, 1.0, 3.0)), [0.0, 2.0, 4.0])

    @pytest.mark.parametrize("pts", [np.zeros((2, 3)), np.array([[1.0, 2.0], [0.0, 1.0]])])
    def test_nonsense_is_refused(self, pts):
        with pytest.raises(ValueError, match="pts must"):
            cell_borders(pts)


class TestProposals:
    @settings(max_examples=60, deadline=None)
    @given(
        st.integers(0, 2**32 - 1),
        st.integers(1, 40),
        st.sampled_from([0.2, 0.5, 0.8]),
        st.sampled_from([0.0, 0.2, 0.4, 0.9]),
    )
    def test_regions_are_those_of_the_plain_procedure(self, seed, count, threshold, tolerance):
        rng = np.random.default_rng(seed)
        scores = rng.random((count, 3))
        lengths = rng.uniform(0.1, 2.0, count)
        ends = np.cumsum(lengths)
        pts = np.stack([ends - lengths, ends], axis=1)
        borders = cell_borders(pts)
        everything = SegmentSettings(
            thresholds=(threshold,), tolerances=(tolerance,), nms_tiou=1.0, maximum_per_video=10**6
        )
        found = scores_to_segments(scores, pts, CLASSES, everything)
        for column, label in enumerate(CLASSES):
            expected = {
                (round(borders[first], 6), round(borders[last], 6))
                for first, last in grouped(scores[:, column] >= threshold, borders, tolerance)
            }
            assert {
                (round(d.start, 6), round(d.end, 6)) for d in found if d.label == label
            } == expected

    def test_scores_are_contrast_and_length(self):
        rng = np.random.default_rng(3)
        scores, pts = rng.random((30, 1)), regular(30, 2.0, 0.8)
        borders = cell_borders(pts)
        found = scores_to_segments(scores, pts, ("a",), SegmentSettings())
        assert found
        for item in found:
            first, last = np.searchsorted(borders, [item.start - 1e-9, item.end - 1e-9])
            assert item.score == pytest.approx(rank(scores[:, 0], borders, first, last), abs=2e-3)

    def test_the_whole_of_a_peak_comes_before_its_tip(self):
        scores = np.full((40, 1), 0.02)
        scores[10:20] = 0.6
        scores[14:16] = 0.9
        best = scores_to_segments(scores, regular(40), ("a",), SegmentSettings())[0]
        assert (best.start, best.end) == (10.0, 20.0)

    @pytest.mark.parametrize("limit", [0.3, 0.7])
    def test_nms_keeps_a_maximal_set_without_overlaps(self, limit):
        rng = np.random.default_rng(0)
        scores, pts = rng.random((80, 3)), regular(80)
        chosen = SegmentSettings(nms_tiou=limit, maximum_per_video=10**6)
        kept = scores_to_segments(scores, pts, CLASSES, chosen)
        everything = scores_to_segments(
            scores, pts, CLASSES, chosen.model_copy(update={"nms_tiou": 1.0})
        )
        for number, item in enumerate(kept):
            rivals = [other for other in kept[:number] if other.label == item.label]
            assert all(tiou(item, other) <= limit + 1e-9 for other in rivals)
        for item in everything:
            better = [o for o in kept if o.label == item.label and o.score >= item.score]
            assert item in kept or any(tiou(item, other) > limit for other in better)

    def test_best_come_first_and_the_limit_cuts_the_worst(self):
        rng = np.random.default_rng(1)
        scores, pts = rng.random((60, 3)), regular(60)
        full = scores_to_segments(scores, pts, CLASSES, SegmentSettings())
        ranks = [item.score for item in full]
        assert ranks == sorted(ranks, reverse=True)
        few = scores_to_segments(scores, pts, CLASSES, SegmentSettings(maximum_per_video=7))
        assert few == full[:7]

    def test_short_segments_are_dropped(self):
        rng = np.random.default_rng(2)
        found = scores_to_segments(
            rng.random((50, 3)), regular(50), CLASSES, SegmentSettings(minimum_seconds=3.0)
        )
        assert found
        assert min(item.end - item.start for item in found) >= 3.0

    def test_classes_do_not_grow_into_each_other(self):
        scores = np.zeros((10, 2))
        scores[8:, 0] = scores[:2, 1] = 1.0
        found = scores_to_segments(scores, regular(10), ("a", "b"), SegmentSettings())
        assert {(d.label, d.start, d.end) for d in found} == {("a", 8, 10), ("b", 0, 2)}

    def test_nothing_gives_nothing(self):
        settings_ = SegmentSettings()
        assert scores_to_segments(np.zeros((0, 3)), np.zeros((0, 2)), CLASSES, settings_) == []
        assert scores_to_segments(np.zeros((9, 3)), regular(9), CLASSES, settings_) == []
        missing = np.full((9, 3), np.nan)
        assert scores_to_segments(missing, regular(9), CLASSES, settings_) == []

    def test_one_snippet_is_one_segment(self):
        (found,) = scores_to_segments(
            np.array([[0.95]]), np.array([[0.0, 0.64]]), ("a",), SegmentSettings()
        )
        assert (found.start, found.end) == (0.0, 0.64)

    def test_shapes_that_disagree_are_refused(self):
        with pytest.raises(ValueError, match=r"scores must have the shape \(T, K\) = \(4, 3\)"):
            scores_to_segments(np.zeros((5, 3)), regular(4), CLASSES, SegmentSettings())

    def test_hours_of_many_classes_take_seconds(self):
        rng = np.random.default_rng(0)
        noise = rng.standard_normal((10_000, 157))
        kernel = np.hanning(31) / np.linalg.norm(np.hanning(31))
        smooth = np.apply_along_axis(np.convolve, 0, noise, kernel, mode="same")
        scores = 1 / (1 + np.exp(3 - 2 * smooth))
        begin = time.process_time()
        found = scores_to_segments(
            scores, regular(10_000, 0.64, 0.64), [str(k) for k in range(157)], SegmentSettings()
        )
        assert time.process_time() - begin < 20
        assert len(found) == 500


class TestHysteresisProposals:
    @settings(max_examples=60, deadline=None)
    @given(
        st.integers(0, 2**32 - 1),
        st.integers(1, 40),
        st.sampled_from([0.3, 0.6, 0.9]),
        st.sampled_from([0.0, 0.5, 1.0]),
    )
    def test_a_proposal_is_a_run_at_the_release_that_reaches_the_threshold(
        self, seed, count, threshold, release
    ):
        scores = np.random.default_rng(seed).random((count, 1))
        chosen = SegmentSettings(
            method="hysteresis",
            thresholds=(threshold,),
            release=release,
            nms_tiou=1.0,
            maximum_per_video=10**6,
        )
        found = scores_to_segments(scores, regular(count), ("a",), chosen)
        runs = itertools.groupby(enumerate(scores[:, 0]), lambda x: x[1] >= release * threshold)
        members = [list(run) for active, run in runs if active]
        expected = {
            (run[0][0], run[-1][0] + 1) for run in members if max(x[1] for x in run) >= threshold
        }
        assert {(item.start, item.end) for item in found} == expected

    def test_a_release_of_one_is_the_watershed_without_tolerance(self):
        scores = np.random.default_rng(5).random((60, 3))
        watershed = SegmentSettings(tolerances=(0.0,))
        hysteresis = SegmentSettings(method="hysteresis", release=1.0)
        assert scores_to_segments(scores, regular(60), CLASSES, hysteresis) == scores_to_segments(
            scores, regular(60), CLASSES, watershed
        )


class TestClearSegments:
    def test_hysteresis_bridges_a_dip_and_ignores_what_never_reaches_the_threshold(self):
        column = [0.1, 0.4, 0.8, 0.4, 0.7, 0.2, 0.4, 0.4, 0.1]
        (found,) = clear_segments(
            np.array(column)[:, None], regular(9), ("a",), threshold=0.6, release=0.35
        )
        assert (found.start, found.end) == (1.0, 5.0)
        assert found.score == pytest.approx(np.mean(column[1:5]))

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 50), st.floats(0.05, 0.95))
    def test_never_overlap_within_a_class_and_reach_the_threshold(self, seed, count, threshold):
        scores = np.random.default_rng(seed).random((count, 3))
        found = clear_segments(scores, regular(count), CLASSES, threshold=threshold)
        assert [d.start for d in found] == sorted(d.start for d in found)
        for column, label in enumerate(CLASSES):
            mine = [d for d in found if d.label == label]
            assert all(a.end < b.start for a, b in itertools.pairwise(mine))
            inside = np.zeros(count, bool)
            for item in mine:
                rows = slice(round(item.start), round(item.end))
                assert scores[rows, column].max() >= threshold
                inside[rows] = True
            assert inside[scores[:, column] >= threshold].all()

    def test_minimum_and_threshold_of_zero(self):
        scores = np.array([[0.9], [0.0], [0.9], [0.9]])
        (found,) = clear_segments(scores, regular(4), ("a",), threshold=0.5, minimum_seconds=2.0)
        assert (found.start, found.end) == (2.0, 4.0)
        (whole,) = clear_segments(scores, regular(4), ("a",), threshold=0.0)
        assert (whole.start, whole.end) == (0.0, 4.0)

    def test_a_release_above_the_threshold_is_refused(self):
        with pytest.raises(ValueError, match="release"):
            clear_segments(np.zeros((1, 1)), regular(1), ("a",), threshold=0.5, release=0.6)


@given(st.integers(0, 10_000))
def test_clear_candidates_do_not_overlap_and_the_best_is_whole(seed):
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.uniform(0, 30, (25, 2)), axis=1)
    ends[:, 1] += 0.1
    given = Candidates(rng.integers(0, 2, 25), rng.random(25), ends[:, 0], ends[:, 1])
    found = clear_candidates(given, ("a", "b"), threshold=0.3)
    assert found == sorted(found, key=lambda item: item.start)
    for number, name in enumerate(("a", "b")):
        own = [item for item in found if item.label == name]
        assert all(item.score >= 0.3 for item in own)
        for one, other in itertools.pairwise(own):
            assert one.end <= other.start
        score = np.where(given.label == number, given.score, 0)
        if score.max() >= 0.3:
            n = int(score.argmax())
            best = max(own, key=lambda item: item.score)
            assert (best.start, best.end) == (given.start[n], given.end[n])


def test_ranked_candidates_are_suppressed_within_their_class():
    given = Candidates(
        np.array([1, 0, 0, 0]),
        np.array([0.5, 0.9, 0.8, 0.7]),
        np.array([0.0, 0.0, 0.5, 8.0]),
        np.array([4.0, 4.0, 4.5, 9.0]),
    )
    scores, pts = np.zeros((10, 2)), np.stack([np.arange(10.0), np.arange(10.0) + 1], 1)
    found = scores_to_segments(scores, pts, ("a", "b"), SegmentSettings(), given)
    assert [(item.label, item.start) for item in found] == [("a", 0.0), ("a", 8.0), ("b", 0.0)]
    found = scores_to_segments(
        scores, pts, ("a", "b"), SegmentSettings(minimum_seconds=2, maximum_per_video=1), given
    )
    assert [(item.label, item.end) for item in found] == [("a", 4.0)]


def test_shifted_scores_have_their_thresholds_at_one_half():
    given = Candidates(np.array([0, 1, 1]), np.array([0.2, 0.7, 0.9]), np.zeros(3), np.ones(3))
    found = given.shifted((0.2, 0.7))
    assert found.score[:2] == pytest.approx([0.5, 0.5])
    odds = 0.9 / 0.1 / (0.7 / 0.3)
    assert found.score[2] == pytest.approx(odds / (1 + odds))
