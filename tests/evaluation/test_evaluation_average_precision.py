"""AP and matching against slow programs that follow the definitions word by word."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidkd.annotations import Segment
from vidkd.evaluation import Detection, frame_ap
from vidkd.evaluation.average_precision import interpolated, non_interpolated, pku_mmd
from vidkd.evaluation.events import ClassEvents, temporal_iou

events = st.lists(
    st.tuples(st.sampled_from("uvw"), st.integers(0, 20), st.integers(0, 8)), max_size=8
)
proposals = st.lists(
    st.tuples(st.sampled_from("uvw"), st.integers(0, 20), st.integers(0, 8), st.integers(0, 6)),
    max_size=14,
)
thresholds = st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0])


def overlap(a: tuple[float, float], b: tuple[float, float]) -> float:
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - shared
    return shared / union if union > 0 else 0.0


def build(truth: list, found: list, ambiguous: list = ()) -> tuple[ClassEvents, list, list]:  # type: ignore[assignment]
    """Return the class under test, and plain sorted lists (video, start, end)."""
    gt = sorted((v, float(s), float(s + d)) for v, s, d in truth)
    ranked = sorted((-score, v, float(s), float(s + d)) for v, s, d, score in found)
    by_video: dict[str, list[Segment]] = {}
    for v, s, e in gt:
        by_video.setdefault(v, []).insert(0, Segment(s, e, "a"))
    detections: dict[str, list[Detection]] = {}
    for negative, v, s, e in ranked:
        detections.setdefault(v, []).insert(0, Detection("a", -negative, s, e))
    doubt: dict[str, list[Segment]] = {}
    for v, s, d in ambiguous:
        doubt.setdefault(v, []).append(Segment(s, s + d, "Ambiguous"))
    return ClassEvents(by_video, detections, doubt), gt, [item[1:] for item in ranked]


def envelope_area(hits: list[bool], positives: int) -> float:
    """Area under the best precision at each recall or higher, recall by recall."""
    points = [
        (sum(hits[: n + 1]) / positives, sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))
    ]
    area = 0.0
    for k in range(1, positives + 1):
        reached = [precision for recall, precision in points if recall >= k / positives - 1e-12]
        area += max(reached, default=0.0) / positives
    return area


def slow_greedy(gt: list, ranked: list, tiou: float, strict: bool) -> list[bool]:
    taken: set[int] = set()
    hits = []
    for video, start, end in ranked:
        options = []
        for number, (other, s, e) in enumerate(gt):
            if other == video and number not in taken:
                value = overlap((start, end), (s, e))
                if value > tiou or (value == tiou and not strict):
                    options.append((-value, number))
        hits.append(bool(options))
        if options:
            taken.add(min(options)[1])
    return hits


def slow_by_event(gt: list, ranked: list, tiou: float) -> list[bool]:
    hits = [False] * len(ranked)
    for video, start, end in gt:
        options = [
            (-overlap((s, e), (start, end)), rank)
            for rank, (other, s, e) in enumerate(ranked)
            if other == video and not hits[rank]
        ]
        if options and -min(options)[0] > tiou:
            hits[min(options)[1]] = True
    return hits


def slow_pku(gt: list, ranked: list, tiou: float) -> float:
    """Take proposals away from the worst on, as the data set's script does."""
    if not ranked:
        return 0.0
    partner = []
    for video, start, end in ranked:
        best, match = tiou, -1
        for number, (other, s, e) in enumerate(gt):
            value = overlap((start, end), (s, e)) if other == video else 0.0
            if value >= best:
                best, match = value, number
        partner.append(match)
    left = list(partner)
    area, recall = 0.0, len({p for p in left if p >= 0}) / len(gt)
    precision = len({p for p in left if p >= 0}) / len(left)
    while left:
        gone = left.pop()
        if gone < 0:
            continue
        found = len({p for p in left if p >= 0})
        precision = max(precision, found / len(left) if left else 0.0)
        area += precision * (recall - found / len(gt))
        recall = found / len(gt)
    return area


@settings(deadline=None)
@given(truth=events.filter(len), found=proposals, tiou=thresholds, strict=st.booleans())
def test_greedy_matching_and_both_aps(truth: list, found: list, tiou: float, strict: bool) -> None:
    under_test, gt, ranked = build(truth, found)
    hits = under_test.greedy(tiou, strict=strict)
    expected = slow_greedy(gt, ranked, tiou, strict)
    assert hits.tolist() == expected
    assert interpolated(hits, len(gt)) == pytest.approx(envelope_area(expected, len(gt)), abs=1e-12)
    plain = sum(sum(expected[: n + 1]) / (n + 1) for n in range(len(ranked)) if expected[n])
    assert non_interpolated(hits, len(gt)) == pytest.approx(plain / len(gt), abs=1e-12)
    assert non_interpolated(hits, len(gt)) <= interpolated(hits, len(gt)) + 1e-12


@settings(deadline=None)
@given(truth=events.filter(len), found=proposals, tiou=thresholds)
def test_matching_by_event(truth: list, found: list, tiou: float) -> None:
    under_test, gt, ranked = build(truth, found)
    assert under_test.by_event(tiou).tolist() == slow_by_event(gt, ranked, tiou)


@settings(deadline=None)
@given(truth=events.filter(len), found=proposals, tiou=thresholds)
def test_pku_mmd_against_its_procedure(truth: list, found: list, tiou: float) -> None:
    under_test, gt, ranked = build(truth, found)
    ap = pku_mmd(under_test.partners(tiou), under_test.positives)
    assert ap == pytest.approx(slow_pku(gt, ranked, tiou), abs=1e-12)
    first = [
        match >= 0 and match not in under_test.partners(tiou)[:rank]
        for rank, match in enumerate(under_test.partners(tiou))
    ]
    assert ap <= envelope_area(first, len(gt)) + 1e-12


@settings(deadline=None)
@given(truth=events, found=proposals, doubt=events)
def test_detections_that_touch_ambiguous_segments(truth: list, found: list, doubt: list) -> None:
    under_test, _, ranked = build(truth, found, doubt)
    expected = [
        any(v == video and overlap((start, end), (s, s + d)) > 0 for v, s, d in doubt)
        for video, start, end in ranked
    ]
    assert under_test.excused().tolist() == expected


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40))
def test_frame_ap_by_counting(frames: list[tuple[int, bool]]) -> None:
    scores = np.array([-np.inf if score == 0 else score / 3 for score, _ in frames])
    labels = np.array([label for _, label in frames])
    total = 0.0
    for i in np.flatnonzero(labels):
        ahead = [
            j
            for j in range(len(frames))
            if scores[j] > scores[i] or (scores[j] == scores[i] and j <= i)
        ]
        total += sum(labels[j] for j in ahead) / len(ahead)
    if labels.any():
        assert frame_ap(scores, labels) == pytest.approx(total / labels.sum(), abs=1e-12)
        assert frame_ap(labels.astype(float), labels) == 1.0
    else:
        assert np.isnan(frame_ap(scores, labels))


def test_worked_example() -> None:
    # Ranking: hit, miss, hit; three positives. Precision 1, 1/2, 2/3.
    hits = np.array([True, False, True])
    assert non_interpolated(hits, 3) == pytest.approx((1 + 2 / 3) / 3)
    assert interpolated(hits, 3) == pytest.approx((1 + 2 / 3) / 3)
    late = np.array([False, True, True])
    assert non_interpolated(late, 2) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert interpolated(late, 2) == pytest.approx(2 / 3)
    # The script of PKU-MMD: what is left above the second hit has precision 1/2, above the
    # first 0, but the full list's 2/3 is higher than both.
    assert pku_mmd(np.array([-1, 0, 1]), 2) == pytest.approx(2 / 3)
    # A miss at the end hides the precision of 2/3; VOC would find it.
    assert pku_mmd(np.array([-1, 0, 1, -1]), 2) == pytest.approx(1 / 2)


def test_tiou_of_instants_is_zero() -> None:
    instants = np.array([[1.0, 1.0]])
    assert temporal_iou(instants, instants).tolist() == [[0.0]]


def test_no_detections_and_no_events() -> None:
    nothing = ClassEvents({}, {})
    assert np.isnan(interpolated(nothing.greedy(0.5), nothing.positives))
    assert np.isnan(pku_mmd(nothing.partners(0.5), nothing.positives))
    unseen = ClassEvents({"v": [Segment(0, 1, "a")]}, {})
    assert interpolated(unseen.greedy(0.5), unseen.positives) == 0.0
    assert pku_mmd(unseen.partners(0.5), unseen.positives) == 0.0
    assert unseen.by_event(0.5).tolist() == []
