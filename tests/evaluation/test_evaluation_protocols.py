"""The protocols: against the official programs' values, and by their properties."""

import json
import math
import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidkd.annotations import Annotations, Segment, VideoAnnotation, load_annotations
from vidkd.errors import AnnotationError, UsageError
from vidkd.evaluation import (
    PROTOCOLS,
    DenseScores,
    Detection,
    evaluate,
    read_detections,
    upsample_scores,
)

DATA = os.environ.get("VIDKD_TEST_DATA")
real = pytest.mark.skipif(not DATA, reason="VIDKD_TEST_DATA is not set")
EVENT = [name for name, protocol in PROTOCOLS.items() if protocol.kind == "event"]
FRAME = [name for name, protocol in PROTOCOLS.items() if protocol.kind == "frame"]


def annotate(videos: dict[str, list[tuple[float, float, str]]], **facts: object) -> Annotations:
    return Annotations(
        ("a", "b", "c"),
        {
            name: VideoAnnotation(
                name, "testing", segments=tuple(Segment(*item) for item in items), **facts
            )
            for name, items in videos.items()
        },
    )


def dense(video: VideoAnnotation, step: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    count = int((video.duration or 10) / step)
    starts = np.arange(count) * step
    scores = np.random.default_rng(seed).random((count, 3))
    return scores, np.stack([starts, starts + step], axis=1)


@real
def test_official_values(tmp_path: Path) -> None:
    content = json.loads((Path(DATA or "") / "reference/evaluation.json").read_text())
    for key in ("ground_truth", "predictions"):
        (tmp_path / f"{key}.json").write_text(json.dumps(content[key]))
    truth = load_annotations(tmp_path / "ground_truth.json")
    detections = read_detections(tmp_path / "predictions.json")
    expected = content["expected"]
    for protocol, name in (("anet", "anet"), ("pku-mmd", "pku")):
        tiou = [float(value) for value in expected[f"{name}_map"]]
        result = evaluate(detections, truth, protocol, tiou, subset="testing").to_json()
        assert result["map"] == pytest.approx(expected[f"{name}_map"], abs=1e-9)
        for label, values in expected[name].items():
            assert result["per_class"][label] == pytest.approx(values, abs=1e-9)
    rate = content["frames"]["rate_hz"]
    videos = {}
    for name, entry in content["frames"]["videos"].items():
        starts = np.arange(len(entry["scores"])) / rate
        pts = np.stack([starts, starts + 1 / rate], axis=1)
        videos[name] = (np.array(entry["scores"]), pts)
    scores = DenseScores(tuple(content["frames"]["classes"]), videos)
    result = evaluate(scores, truth, "frame", subset="testing").to_json()
    assert result["per_class"] == pytest.approx(expected["frame_ap"], abs=1e-9)
    assert result["map"] == pytest.approx(expected["frame_map_present"], abs=1e-9)
    assert result["map_all_classes"] == pytest.approx(expected["frame_map_all"], abs=1e-9)
    # The same numbers on the explicit frame grid, which is that of the rows here.
    again = evaluate(scores, truth, "frame", subset="testing", frame_rate=rate)
    assert again.map == pytest.approx(expected["frame_map_present"], abs=1e-9)


TRUTH = annotate(
    {"v1": [(0, 4, "a"), (3, 9, "b")], "v2": [(1, 2, "a"), (5, 7.5, "a")], "v3": []}, duration=10.0
)


def perfect(truth: Annotations) -> dict[str, list[Detection]]:
    return {
        name: [Detection(s.label, 0.5, s.start, s.end) for s in video.segments]
        for name, video in truth.videos.items()
    }


@pytest.mark.parametrize("protocol", EVENT)
def test_perfect_detections(protocol: str) -> None:
    result = evaluate(perfect(TRUTH), TRUTH, protocol, [0.3, 0.9])
    assert result.map == {"0.3": 1.0, "0.9": 1.0}
    assert result.map_all_classes == pytest.approx({"0.3": 2 / 3, "0.9": 2 / 3})
    assert math.isnan(result.to_json()["per_class"]["c"]["0.3"])
    assert result.missing == ()


@pytest.mark.parametrize("protocol", FRAME)
def test_perfect_scores(protocol: str) -> None:
    videos = {}
    for name, video in TRUTH.videos.items():
        starts = np.arange(0, 10, 0.1)
        rows = np.zeros((100, 3))
        for s in video.segments:
            rows[(starts >= s.start - 1e-9) & (starts < s.end - 1e-9), "abc".index(s.label)] = 1
        videos[name] = (rows, np.stack([starts, starts + 0.1], axis=1))
    result = evaluate(DenseScores(("a", "b", "c"), videos), TRUTH, protocol)
    assert result.map == pytest.approx(1.0, abs=0.02 if protocol == "charades-25" else 1e-12)
    assert result.map_all_classes == pytest.approx(2 / 3 * result.map)
    assert "157" in " ".join(result.notes) or not protocol.startswith("charades")


detections = st.lists(
    st.tuples(
        st.sampled_from(["v1", "v2", "v3"]),
        st.sampled_from("abc"),
        st.integers(0, 4),
        st.integers(0, 12),
        st.integers(0, 6),
    ),
    max_size=20,
)


def collect(items: list) -> dict[str, list[Detection]]:
    found: dict[str, list[Detection]] = {}
    for video, label, score, start, length in items:
        found.setdefault(video, []).append(Detection(label, score / 4, start, start + length))
    return found


@settings(deadline=None, max_examples=40)
@given(items=detections, seed=st.integers(0, 9), protocol=st.sampled_from(EVENT))
def test_order_in_files_changes_nothing(items: list, seed: int, protocol: str) -> None:
    shuffled, names = list(items), list(TRUTH.videos)
    random.Random(seed).shuffle(shuffled)
    random.Random(seed).shuffle(names)
    videos = {}
    for name in names:
        segments = list(TRUTH.videos[name].segments)
        random.Random(seed).shuffle(segments)
        videos[name] = replace(TRUTH.videos[name], segments=tuple(segments))
    one = evaluate(collect(items), TRUTH, protocol).to_json()
    two = evaluate(collect(shuffled), replace(TRUTH, videos=videos), protocol).to_json()
    one.pop("missing"), two.pop("missing")
    # Through JSON, since a class without ground truth is NaN, which does not equal itself.
    assert json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)


@settings(deadline=None, max_examples=40)
@given(items=detections, protocol=st.sampled_from(["anet", "thumos14"]))
def test_a_perfect_detection_on_top_never_hurts_and_a_false_one_never_helps(
    items: list, protocol: str
) -> None:
    found = collect([item for item in items if item[0] != "v3"])
    base = evaluate(found, TRUTH, protocol, [0.5]).to_json()["per_class"]["b"]["0.5"]
    better = {**found, "v1": [*found.get("v1", []), Detection("b", 2.0, 3, 9)]}
    assert evaluate(better, TRUTH, protocol, [0.5]).to_json()["per_class"]["b"]["0.5"] >= base
    worse = {**found, "v3": [Detection("b", 2.0, 3, 9)]}
    assert evaluate(worse, TRUTH, protocol, [0.5]).to_json()["per_class"]["b"]["0.5"] <= base


@settings(deadline=None, max_examples=40)
@given(items=detections)
def test_the_pku_script_is_at_or_below_voc_and_stricter_tiou_below_both(items: list) -> None:
    result = evaluate(collect(items), TRUTH, "pku-mmd", [0.1, 0.5]).to_json()
    for tiou in ("0.1", "0.5"):
        assert result["map"][tiou] <= result["map_voc"][tiou] + 1e-12
    assert result["map_voc"]["0.5"] <= result["map_voc"]["0.1"] + 1e-12


def test_thumos14_rules() -> None:
    classes = ("Ambiguous", "CliffDiving", "Diving")
    segments = (
        Segment(0, 10, "CliffDiving"),
        Segment(20, 30, "CliffDiving"),
        Segment(20, 30, "Diving"),
        Segment(50, 60, "Ambiguous"),
    )
    truth = Annotations(classes, {"v": VideoAnnotation("v", "testing", segments=segments)})
    found = {
        "v": [
            Detection("Diving", 0.9, 59, 70),  # touches the ambiguous segment: not false
            Detection("Diving", 0.8, 0, 10),
            Detection("Diving", 0.7, 20, 30),
            Detection("CliffDiving", 0.6, 0, 5),  # tIoU exactly 0.5: not enough
        ]
    }
    result = evaluate(found, truth, "thumos14", [0.5]).to_json()
    assert result["per_class"] == {"CliffDiving": {"0.5": 0.0}, "Diving": {"0.5": 1.0}}
    assert result["classes"] == 2
    assert "1 CliffDiving segments also count as Diving" in result["notes"]
    assert "1 ambiguous segments are ignored" in result["notes"]
    # The hash is that of the same file under any protocol.
    assert result["ground_truth_sha256"] == evaluate(found, truth, "anet").ground_truth_sha256


def test_thumos14_matching_by_score_or_by_event() -> None:
    truth = annotate({"v1": [(0, 10, "a")]})
    found = {"v1": [Detection("a", 0.9, 0, 6), Detection("a", 0.5, 0, 9)]}
    result = evaluate(found, truth, "thumos14", [0.5]).to_json()
    assert result["map"]["0.5"] == 1.0
    assert result["map_toolkit_matching"]["0.5"] == 0.5


def test_charades_25_moments() -> None:
    truth = annotate({"v1": [(0, 0.4, "a"), (9.6, 30, "b")], "v2": []}, duration=10.0)
    times = np.arange(25) / 25 * 10
    rows = np.zeros((25, 3))
    rows[:2, 0] = 1  # j = 0 and 1: the end at 0.4 s is inclusive
    rows[24, 1] = 1
    pts = np.stack([times, times], axis=1)
    scores = DenseScores(("a", "b", "c"), {"v1": (rows, pts), "v2": (rows * 0, pts)})
    assert evaluate(scores, truth, "charades-25").map == 1.0
    no_length = annotate({"v1": [(0, 1, "a")]})
    with pytest.raises(AnnotationError, match="'v1' has no duration"):
        evaluate(scores, no_length, "charades-25")
    with pytest.raises(UsageError, match="own moments"):
        evaluate(scores, truth, "charades-25", frame_rate=5)


def test_missing_predictions_count_as_minus_infinity_and_are_named() -> None:
    truth = annotate({"v1": [(0, 1, "a")], "v2": [(0, 1, "a")]}, duration=4.0)
    pts = np.array([[0.0, 1], [1, 2], [2, 3], [3, 4]])
    rows = np.zeros((4, 3)) - 50
    rows[0, 0] = 50
    result = evaluate(DenseScores(("a", "b", "c"), {"v1": (rows, pts)}), truth, "frame")
    assert result.missing == ("v2",)
    # One of two positives at the top; the other is the fifth: first of the missing video.
    assert result.map == pytest.approx((1 + 2 / 5) / 2)
    empty = evaluate(DenseScores(("a",), {"v1": (rows[:0, :1], pts[:0])}), truth, "frame")
    assert empty.missing == ("v1", "v2")
    assert "the predictions have no scores of b, c" in empty.notes
    events = evaluate({"v1": [Detection("a", 1, 0, 1)], "v2": []}, truth, "anet", [0.5])
    assert events.missing == ()
    assert events.map == {"0.5": 0.5}


def test_videos_that_are_not_evaluated_are_named_and_ignored() -> None:
    found = {**perfect(TRUTH), "other": [Detection("a", 1.0, 0, 9)]}
    result = evaluate(found, TRUTH, "anet")
    assert result.map == evaluate(perfect(TRUTH), TRUTH, "anet").map
    assert "ignored the predictions for 1 video not evaluated: other" in result.notes


def test_misuse() -> None:
    scores = DenseScores(("a", "x"), {"v1": (np.zeros((1, 2)), np.array([[0.0, 1]]))})
    with pytest.raises(AnnotationError, match="unknown class x; name the classes as"):
        evaluate(scores, TRUTH, "frame")
    with pytest.raises(AnnotationError, match="unknown class x"):
        evaluate({"v1": [Detection("x", 1, 0, 1)]}, TRUTH, "anet")
    with pytest.raises(UsageError, match="no protocol 'coco'; give one of"):
        evaluate(scores, TRUTH, "coco")
    with pytest.raises(UsageError, match="needs detections"):
        evaluate(scores, TRUTH, "anet")
    with pytest.raises(UsageError, match="needs dense scores"):
        evaluate({}, TRUTH, "frame")
    with pytest.raises(UsageError, match="leave out the tIoU"):
        evaluate(scores, TRUTH, "frame", [0.5])
    with pytest.raises(UsageError, match="lies in"):
        evaluate({}, TRUTH, "anet", [0.0])
    with pytest.raises(AnnotationError, match="no video"):
        evaluate({}, Annotations(("a",), {}), "anet")


def test_upsampling_is_linear_between_midpoints_and_constant_outside() -> None:
    scores = np.array([[0.0, 1.0], [2.0, 5.0]], dtype=np.float32)
    pts = np.array([[0.0, 2.0], [2.0, 4.0]])  # midpoints 1 and 3
    found = upsample_scores(scores, pts, np.array([0.0, 1.0, 1.5, 3.0, 9.0]))
    assert found[:, 0].tolist() == [0.0, 0.0, 0.5, 2.0, 2.0]
    assert found[:, 1].tolist() == [1.0, 1.0, 2.0, 5.0, 5.0]
    assert found.dtype == np.float64


def test_scores_are_compared_on_the_frames_of_the_ground_truth() -> None:
    video = TRUTH.videos["v1"]
    scores = DenseScores(("a", "b", "c"), {"v1": dense(video, 1.6)})
    rated = Annotations(TRUTH.classes, {"v1": replace(video, frame_rate=10.0)})
    result = evaluate(scores, rated, "frame")
    assert "10 frames/s" in result.evaluated_on
    times = (np.arange(100) + 0.5) / 10
    rows = upsample_scores(*scores.videos["v1"], times)
    by_hand = DenseScores(
        scores.classes, {"v1": (rows, np.stack([times - 0.05, times + 0.05], axis=1))}
    )
    plain = Annotations(TRUTH.classes, {"v1": video})
    assert result.map == pytest.approx(evaluate(by_hand, plain, "frame").map, abs=1e-12)
    assert result.map == evaluate(scores, plain, "frame", frame_rate=10).map
    assert "rows of the prediction file" in evaluate(scores, plain, "frame").evaluated_on
    # The all-snippet variant of Charades compares on snippets, whatever the annotations know.
    assert "rows" in evaluate(scores, rated, "charades-all").evaluated_on
    half_known = replace(rated, videos={**rated.videos, "v2": TRUTH.videos["v2"]})
    assert "only some videos" in " ".join(evaluate(scores, half_known, "frame").notes)


def test_the_hash_is_of_the_content_and_not_of_its_order() -> None:
    result = evaluate(perfect(TRUTH), TRUTH, "anet")
    backwards = replace(TRUTH, videos=dict(reversed(TRUTH.videos.items())))
    assert evaluate({}, backwards, "anet").ground_truth_sha256 == result.ground_truth_sha256
    moved = annotate({"v1": [(0, 4.01, "a")]})
    assert evaluate({}, moved, "anet").ground_truth_sha256 != result.ground_truth_sha256


@pytest.mark.parametrize("protocol", ["anet", "pku-mmd", "thumos14"])
def test_table_has_one_cell_per_column(protocol: str) -> None:
    result = evaluate(perfect(TRUTH), TRUTH, protocol)
    columns = result.columns()
    assert all(len(row) == len(columns) for row in result.rows())
    assert result.rows()[0][:2] == ["a", "100.00"]
    assert result.rows()[2][1] == "-"
