"""The diagnosis of errors, against cases made by hand and plain loops."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidkd.annotations import Annotations, Segment, VideoAnnotation
from vidkd.errors import UsageError
from vidkd.evaluation import DenseScores, Detection, evaluate
from vidkd.evaluation.confusion import confusion_of_sets
from vidkd.evaluation.detad import ERRORS, KINDS, TRUE_POSITIVE
from vidkd.evaluation.diagnosis import diagnose
from vidkd.evaluation.reliability import reliability


def annotations(videos: dict[str, list[tuple[str, float, float]]]) -> Annotations:
    return Annotations.of_labels(
        {
            name: VideoAnnotation(
                name,
                duration=100.0,
                frame_rate=1.0,
                segments=tuple(Segment(start, end, label) for label, start, end in items),
            )
            for name, items in videos.items()
        }
    )


TRUTH = annotations({"a": [("run", 0, 10), ("jump", 20, 30)], "b": [("run", 50, 60)]})


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        (("run", 0, 10), "double"),  # the better detection has this event
        (("run", 6, 12), "wrong border"),  # 4 of 12
        (("run", 0, 100), "wrong border"),  # exactly 0.1
        (("run", 20, 30), "wrong class"),
        (("run", 20, 40), "wrong class"),  # exactly 0.5
        (("run", 27, 35), "both"),  # 3 of 15
        (("run", 29, 40), "background"),  # 1 of 20
        (("run", 70, 80), "background"),
    ],
)
def test_each_kind_of_error_by_hand(place: tuple[str, float, float], kind: str) -> None:
    label, start, end = place
    items = [Detection("run", 0.9, 0, 10), Detection(label, 0.5, start, end)]
    found = diagnose({"a": items}, TRUTH)
    assert [item.kind for item in found.detections] == [TRUE_POSITIVE, kind]
    assert (found.detections[1].event is None) == (kind == "background")


def test_an_action_of_its_own_class_explains_an_error_before_another_one() -> None:
    truth = annotations({"a": [("cough", 10, 14), ("walk", 8, 22)]})
    found = diagnose({"a": [Detection("cough", 0.9, 10, 22)]}, truth)
    assert found.detections[0].kind == "wrong border"
    assert found.detections[0].event == ("cough", 10, 14)


def loops(
    detections: dict[str, list[Detection]], truth: Annotations, tiou: float
) -> dict[tuple[str, Detection], str]:
    """Say what each of the 10 G best detections is, one after the other."""

    def overlap(one: Detection, event: Segment) -> float:
        shared = max(0.0, min(one.end, event.end) - max(one.start, event.start))
        union = (one.end - one.start) + (event.end - event.start) - shared
        return shared / union if union > 0 else 0.0

    kinds = {}
    for label in truth.classes:
        total = sum(i.label == label for v in truth.videos.values() for i in v.segments)
        ranked = sorted(
            ((name, i) for name, items in detections.items() for i in items if i.label == label),
            key=lambda pair: (-pair[1].score, pair[0], pair[1].start, pair[1].end),
        )[: 10 * total]
        gone: set[tuple[str, Segment]] = set()
        for name, item in ranked:
            events = sorted(truth.videos[name].segments, key=lambda i: (i.start, i.end))
            own = [i for i in events if i.label == label]
            free = [i for i in own if (name, i) not in gone and overlap(item, i) >= tiou]
            reach = max((overlap(item, i) for i in own), default=0)
            other = max((overlap(item, i) for i in events if i.label != label), default=0)
            if free:
                gone.add((name, max(free, key=lambda i: overlap(item, i))))
                kind = TRUE_POSITIVE
            elif reach >= tiou:
                kind = "double"
            elif reach >= 0.1:
                kind = "wrong border"
            elif other >= tiou:
                kind = "wrong class"
            elif other >= 0.1:
                kind = "both"
            else:
                kind = "background"
            kinds[name, item] = kind
    return kinds


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.2, 0.5, 0.75]))
def test_against_loops_and_sums(seed: int, tiou: float) -> None:
    rng = random.Random(seed)
    labels = ["run", "jump", "sit"]

    def place() -> tuple[float, float]:
        start = rng.randrange(0, 60)
        return float(start), float(start + rng.randrange(1, 20))

    truth = annotations(
        {
            v: sorted({(rng.choice(labels), *place()) for _ in range(rng.randrange(1, 6))})
            for v in "abc"
        }
    )
    detections = {
        video: list(
            {
                Detection(rng.choice(truth.classes), rng.randrange(1, 100) / 100, *place())
                for _ in range(rng.randrange(0, 40))
            }
        )
        for video in "abc"
    }
    found = diagnose(detections, truth, tiou=tiou, threshold=0.4)
    wanted = loops(detections, truth, tiou)
    made = {
        (i.video, Detection(i.label, i.score, i.start, i.end)): i.kind for i in found.detections
    }
    assert made == wanted
    assert sum(found.counts().values()) == len(found.detections)
    for bins in found.characteristics.values():
        assert sum(item.events for item in bins) == len(found.events)
        assert sum(item.missed_at_threshold for item in bins) == len(found.missed())
    hits = found.counts()[TRUE_POSITIVE]
    assert sum(item.score is not None for item in found.events) == hits
    assert all(found.impact[kind] >= -1e-12 for kind in ERRORS)
    shares = found.profile[~np.isnan(found.profile).any(axis=1)]
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    # Every event is in its row, every detection that is seen in its column.
    seen = [item for item in found.detections if item.score >= 0.4]
    for k, label in enumerate(found.classes):
        assert found.segment_confusion[k].sum() == sum(i.label == label for i in found.events)
        assert found.segment_confusion[:, k].sum() == sum(i.label == label for i in seen)
    np.testing.assert_allclose(found.frame_confusion.sum(), found.frame_confusion.sum().round())
    if all(len(items) < 40 for items in detections.values()) and len(found.detections) == sum(
        map(len, detections.values())
    ):
        official = evaluate(detections, truth, "anet", [tiou]).to_json()["map"]
        assert found.map == pytest.approx(next(iter(official.values())))


def test_taking_errors_away_gains_what_the_ranking_says() -> None:
    items = [
        Detection("run", 0.9, 70, 80),  # background
        Detection("run", 0.8, 0, 10),
        Detection("run", 0.7, 50, 58),  # of the other video: background, too
    ]
    truth = annotations({"a": [("run", 0, 10)]})
    found = diagnose({"a": items}, truth)
    assert found.map == 0.5
    assert found.impact["background"] == 0.5
    assert found.impact["double"] == 0
    assert found.threshold == 0.8  # F1 2/3; at 0.9 it is 0


def test_the_normalised_map_of_a_bin_leaves_out_the_other_events() -> None:
    truth = annotations({"a": [("run", 0, 5), ("run", 10, 50), ("run", 60, 65), ("jump", 80, 90)]})
    items = [
        Detection("run", 0.9, 10, 50),
        Detection("run", 0.8, 70, 75),
        Detection("run", 0.7, 0, 5),
    ]
    found = diagnose({"a": items}, truth, lengths=[20])
    short, long = found.characteristics["length"]
    assert (short.events, short.missed, long.events, long.missed) == (3, 2, 1, 0)
    # run: one of two short events after one false positive, N = 4 events / 2 classes; jump: none.
    recall = 1 / 2
    assert short.normalised_map == pytest.approx((recall * (recall * 2) / (recall * 2 + 1)) / 2)
    assert long.normalised_map == 1


def test_frames_and_scores_of_dense_results() -> None:
    rows = np.zeros((100, 2), dtype=np.float32)
    rows[:10, 0] = 0.8  # jump is seen while someone runs
    rows[20:30, 1] = 0.4  # run, too weak to be seen
    pts = np.stack([np.arange(100.0), np.arange(1.0, 101.0)], axis=1)
    truth = annotations({"a": [("run", 0, 9.9), ("jump", 60.1, 69.9)]})
    dense = DenseScores(("jump", "run"), {"a": (rows, pts)})
    found = diagnose({"a": []}, truth, scores=dense)
    assert found.classes == ("jump", "run")
    assert found.frame_confusion.tolist() == [[0, 0, 10], [10, 0, 0], [0, 0, 80]]
    # 10 wrong at 0.8, 10 wrong at 0.4, 20 right at 0, of 200.
    assert found.frame_reliability is not None
    assert found.frame_reliability.error == pytest.approx((10 * 0.8 + 10 * 0.4 + 20) / 200)
    assert found.class_reliability["jump"] == pytest.approx((10 * 0.8 + 10) / 100)
    assert found.impact == dict.fromkeys(ERRORS, 0)


def test_confusion_of_moments_with_several_classes() -> None:
    truth = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]], dtype=bool)
    seen = np.array([[1, 0, 1], [0, 1, 1], [0, 1, 0], [0, 0, 0], [0, 0, 0]], dtype=bool)
    assert confusion_of_sets(truth, seen).tolist() == [
        [1, 0.5, 0.5, 1],
        [0, 0, 1, 0],
        [0, 0, 0, 0],
        [0, 1, 0, 1],
    ]


def test_calibrated_scores_have_no_error_and_constant_ones_their_own() -> None:
    scores = np.repeat([0.1, 0.5, 0.9], 10)
    correct = np.concatenate([np.arange(10) < count for count in (1, 5, 9)])
    assert reliability(scores, correct).error == pytest.approx(0)
    assert reliability(scores, np.ones(30, dtype=bool)).error == pytest.approx(0.5)
    assert reliability(np.ones(4), np.ones(4, dtype=bool)).count[-1] == 4


def test_an_ambiguous_moment_is_no_error_and_alpha_has_bounds() -> None:
    truth = annotations({"a": [("run", 0, 10), ("Ambiguous", 20, 30)]})
    items = [Detection("run", 0.9, 0, 10), Detection("run", 0.8, 25, 35)]
    found = diagnose({"a": items}, truth)
    assert [item.kind for item in found.detections] == [KINDS[0]]
    assert "ambiguous" in found.notes[0]
    with pytest.raises(UsageError, match="above 0"):
        diagnose({}, truth, tiou=0.1)
