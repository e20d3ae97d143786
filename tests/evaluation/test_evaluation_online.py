"""Calibrated AP and the delay of detection: closed forms, and a second implementation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidkd.annotations import Annotations, Segment, VideoAnnotation
from vidkd.errors import UsageError
from vidkd.evaluation import DenseScores, evaluate, frame_ap
from vidkd.evaluation.online import calibrated_ap, detection_delays


def annotate(events: dict[str, list[tuple[float, float]]], duration: float = 100.0) -> Annotations:
    return Annotations(
        ("a",),
        {
            name: VideoAnnotation(
                name,
                "testing",
                duration=duration,
                segments=tuple(Segment(start, end, "a") for start, end in items),
            )
            for name, items in events.items()
        },
    )


def dense(videos: dict[str, np.ndarray], step: float = 1.0, length: float = 2.0) -> DenseScores:
    found = {}
    for name, column in videos.items():
        starts = np.arange(len(column)) * step
        found[name] = (column[:, None], np.stack([starts, starts + length], axis=1))
    return DenseScores(("a",), found)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30).filter(
        lambda rows: any(label for _, label in rows)
    )
)
def test_calibrated_ap_is_that_of_the_paper(rows: list[tuple[int, bool]]) -> None:
    scores, labels = (np.array(part) for part in zip(*rows, strict=True))
    positives = int(labels.sum())
    ratio = (len(labels) - positives) / positives
    total, true, false = 0.0, 0, 0
    for place in sorted(range(len(rows)), key=lambda n: (-scores[n], n)):
        true, false = true + bool(labels[place]), false + (not labels[place])
        if labels[place]:
            total += ratio * true / (ratio * true + false) if ratio else 1.0
    assert calibrated_ap(scores.astype(float), labels) == pytest.approx(total / positives)


def test_calibrated_ap_does_not_depend_on_how_frequent_a_class_is() -> None:
    draw = np.random.default_rng(0)
    noise = draw.random(40_000)
    for share in (0.02, 0.5, 0.9):
        labels = draw.random(40_000) < share
        assert calibrated_ap(noise, labels) == pytest.approx(0.5, abs=0.03)
        assert frame_ap(noise, labels) == pytest.approx(share, abs=0.03)
    labels = np.arange(1000) % 10 == 0
    scores = labels + draw.normal(size=1000)
    repeated = np.concatenate([scores, *[scores[~labels]] * 4])
    more = np.concatenate([labels, np.zeros(4 * 900, dtype=bool)])
    assert calibrated_ap(repeated, more) == pytest.approx(calibrated_ap(scores, labels), abs=0.01)


def test_delay_of_a_score_that_rises() -> None:
    # The midpoint of row n is n + 1, its end n + 2; the score rises by 0.1 a row from row 10 on.
    column = np.clip((np.arange(50) - 9) / 10, 0, 1)
    truth = annotate({"v": [(10.5, 30.0), (47.0, 49.5), (70.0, 80.0)]})
    found = detection_delays(truth, dense({"v": column}), {"a": 0.5})["a"]
    # Row 14 is the first to reach 0.5, at second 16; the second event is seen by row 46 at once.
    assert found.delays.tolist() == [5.5, 1.0, math.inf]
    assert found.to_json()["never_found"] == pytest.approx(1 / 3)
    assert found.to_json()["median_seconds"] == 5.5
    # Nothing fires away from an event: the one run of rows that reach the threshold touches some.
    assert found.false_alarms == 0
    alone = detection_delays(annotate({"v": [(70, 80)]}), dense({"v": column}), {"a": 0.5})["a"]
    assert alone.false_alarms == 1
    assert math.isnan(alone.to_json()["median_seconds"])
    assert alone.to_json()["false_alarms_per_hour"] == pytest.approx(3600 / 51)
    early = detection_delays(truth, dense({"v": np.ones(50)}), {"a": 0.5})["a"]
    assert early.delays.tolist() == [1.5, 1.0, math.inf]


def slow_delays(
    truth: Annotations, scores: DenseScores, rate: float
) -> tuple[list[float | None], int]:
    """Row by row: the delay of each event, None where it is never found, and the false alarms."""
    rows = []
    for name, video in truth.videos.items():
        for (score,), (start, end) in zip(*scores.videos[name], strict=True):
            middle = (start + end) / 2
            over = [n for n, s in enumerate(video.segments) if s.start <= middle <= s.end]
            rows.append((name, float(score), end, over))
    negatives = [score for _, score, _, over in rows if not over]
    allowed = [
        threshold
        for threshold in {score for _, score, _, _ in rows}
        if sum(score >= threshold for score in negatives) <= rate * len(negatives)
    ]
    threshold = min(allowed, default=math.inf)
    delays: list[float | None] = []
    alarms = 0
    for name, video in truth.videos.items():
        own = [row for row in rows if row[0] == name]
        for number, event in enumerate(video.segments):
            ends = [row[2] for row in own if number in row[3] and row[1] >= threshold]
            delays.append(min(ends) - event.start if ends else None)
        run: list[bool] = []
        for _, score, _, over in [*own, ("", -math.inf, 0, [])]:
            if score >= threshold:
                run.append(bool(over))
            elif run:
                alarms += not any(run)
                run = []
    return delays, alarms


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000))
def test_delays_are_those_found_row_by_row(seed: int) -> None:
    draw = np.random.default_rng(seed)
    events = {
        name: [(float(a), float(a + draw.integers(1, 9))) for a in draw.integers(0, 40, 2)]
        for name in "vw"
    }
    scores = dense({name: draw.integers(0, 30, 45) / 30 for name in events})
    truth = annotate(events)
    delays, alarms = slow_delays(truth, scores, 0.05)
    found = detection_delays(truth, scores)
    assert [None if math.isinf(d) else d for d in found["a"].delays] == pytest.approx(delays)
    assert found["a"].false_alarms == found[""].false_alarms == alarms


def test_missing_videos_and_the_rate_of_frames() -> None:
    truth = annotate({"v": [(10, 20)], "w": [(10, 20)]})
    scores = dense({"v": np.linspace(0, 1, 50)})
    result = evaluate(scores, truth, "oad", thresholds={"a": 0.2})
    table = result.to_json()["delays"]["own_thresholds"]
    assert table["per_class"]["a"] == table["all"] | {"threshold": 0.2}
    assert table["all"]["events"] == 2
    assert table["all"]["never_found"] == 0.5
    assert result.missing == ("w",)
    assert evaluate(scores, truth, "frame").delays == {}
    with pytest.raises(UsageError, match="rows of the predictions"):
        evaluate(scores, truth, "oad", frame_rate=25.0)
