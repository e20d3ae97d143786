"""Exports are read back and compared with what was exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidkd.annotations import Annotations, Segment, VideoAnnotation, load_annotations
from vidkd.errors import AnnotationError, UsageError
from vidkd.evaluation import DenseScores, Detection, evaluate, read_detections
from vidkd.evaluation.exports import (
    export_activitynet,
    export_charades,
    export_pku_mmd,
    export_thumos14,
)

RANDOM = np.random.default_rng(5)


def charades(videos: int = 4) -> tuple[Annotations, DenseScores]:
    classes = tuple(f"c{number:03d}" for number in range(157))
    truth, scores = {}, {}
    for number in range(videos):
        name = f"V{number}"
        segments = tuple(
            Segment(float(start), float(start) + 4, classes[label])
            for start, label in zip(RANDOM.uniform(0, 20, 5), RANDOM.integers(0, 3, 5), strict=True)
        )
        truth[name] = VideoAnnotation(name, "testing", 30.0, None, segments)
        start = np.arange(40) * 0.75
        rows = RANDOM.random((40, 157)).astype(np.float32)
        scores[name] = (rows, np.stack([start, start + 0.75], 1))
    # The columns of predictions are in any order.
    order = tuple(reversed(classes))
    return Annotations(classes, truth), DenseScores(order, scores)


def test_charades_evaluates_the_same_when_read_back(tmp_path: Path) -> None:
    truth, scores = charades()
    path = tmp_path / "submission.txt"
    assert export_charades(path, scores, truth) == 4
    lines = [line.split() for line in path.read_text().splitlines()]
    assert [len(line) for line in lines] == [159] * 100
    assert [line[:2] for line in lines[:25]] == [["V0", str(number)] for number in range(1, 26)]
    back = {}
    for name, video in truth.videos.items():
        rows = np.array([line[2:] for line in lines if line[0] == name], dtype=np.float64)
        moments = np.arange(25) / 25 * (video.duration or 0)
        back[name] = (rows, np.stack([moments, moments], 1))
    again = evaluate(DenseScores(truth.classes, back), truth, "charades-25").to_json()
    assert again["map"] == pytest.approx(evaluate(scores, truth, "charades-25").to_json()["map"])


def test_charades_needs_all_classes_videos_and_durations(tmp_path: Path) -> None:
    truth, scores = charades(2)
    few = DenseScores(("c000",), {})
    with pytest.raises(AnnotationError, match="lack 156 of 157 classes, such as 'c001'"):
        export_charades(tmp_path / "s.txt", few, truth)
    with pytest.raises(AnnotationError, match="no scores of video 'V0'"):
        export_charades(tmp_path / "s.txt", DenseScores(scores.classes, {}), truth)
    endless = Annotations(truth.classes, {"V0": VideoAnnotation("V0")})
    with pytest.raises(AnnotationError, match="'V0' has no duration"):
        export_charades(tmp_path / "s.txt", scores, endless)
    assert not (tmp_path / "s.txt").exists()


DETECTIONS = {
    "0002-L": [Detection("51", 0.25, 1.0, 3.5), Detection("1", 0.75, 0.1, 0.9)],
    "0003-R": [],
}


def test_pku_mmd_reads_back_as_annotations(tmp_path: Path) -> None:
    assert export_pku_mmd(tmp_path / "out", {**DETECTIONS, "0004-M": []}) == 3
    text = (tmp_path / "out/0002-L.txt").read_text()
    assert text == "1,3.000,27.000,0.75\n51,30.000,105.000,0.25\n"
    back = load_annotations(tmp_path / "out", "pku-mmd")
    assert back.videos["0002-L"].segments == (Segment(0.1, 0.9, "1"), Segment(1.0, 3.5, "51"))
    assert [name for name, video in back.videos.items() if not video.segments] == [
        "0003-R",
        "0004-M",
    ]
    with pytest.raises(UsageError, match="not an empty folder"):
        export_pku_mmd(tmp_path / "out", DETECTIONS)
    assert export_pku_mmd(tmp_path / "out", DETECTIONS, overwrite=True) == 2


def test_thumos14_rows(tmp_path: Path) -> None:
    path = tmp_path / "thumos.txt"
    found = {
        "video_test_0000004": [
            Detection("Diving", 0.5, 1.25, 2.0),
            Detection("VolleyballSpiking", 0.9, 0.0, 1.0),
        ]
    }
    assert export_thumos14(path, found) == 2
    rows = [line.split() for line in path.read_text().splitlines()]
    assert rows == [
        ["video_test_0000004", "0.000", "1.000", "97", "0.9"],
        ["video_test_0000004", "1.250", "2.000", "26", "0.5"],
    ]


def test_activitynet_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert export_activitynet(path, DETECTIONS) == 2
    ranked = {video: sorted(items, key=lambda i: -i.score) for video, items in DETECTIONS.items()}
    assert read_detections(path) == ranked
    assert '"used": true' in path.read_text()


def test_labels_and_names_that_a_format_cannot_hold(tmp_path: Path) -> None:
    other = {"v": [Detection("run", 0.5, 0.0, 1.0)]}
    with pytest.raises(AnnotationError, match=r"'run', which is no class of PKU-MMD"):
        export_pku_mmd(tmp_path / "out", other)
    with pytest.raises(AnnotationError, match=r"'run', which is no class of THUMOS14"):
        export_thumos14(tmp_path / "out.txt", other)
    with pytest.raises(AnnotationError, match="has spaces"):
        export_thumos14(tmp_path / "out.txt", {"a b": []})
    with pytest.raises(AnnotationError, match="would share its file"):
        export_pku_mmd(tmp_path / "out", {"a/v": [], "b/v": []})
    assert list(tmp_path.iterdir()) == []
