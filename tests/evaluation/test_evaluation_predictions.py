"""Prediction files: what is written is read, and what is broken is named."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from vidkd.errors import AnnotationError
from vidkd.evaluation import (
    DenseScores,
    Detection,
    read_dense_scores,
    read_detections,
    write_dense_scores,
    write_detections,
)


def example() -> DenseScores:
    pts = np.array([[0.0, 0.5], [0.5, 1.0], [1.0, 1.2]])
    rows = np.random.default_rng(0).random((3, 2)).astype(np.float32)
    empty = (np.zeros((0, 2), dtype=np.float32), np.zeros((0, 2)))
    return DenseScores(("läuft", "b"), {"v 1": (rows, pts), "sub/v2": (rows, pts), "e": empty})


def test_dense_scores_survive(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.h5"
    write_dense_scores(path, example())
    found = read_dense_scores(path)
    assert found.classes == ("läuft", "b")
    assert set(found.videos) == {"v 1", "sub/v2", "e"}
    for name, (rows, pts) in example().videos.items():
        assert np.array_equal(found.videos[name][0], rows)
        assert np.array_equal(found.videos[name][1], pts)
    assert [item.name for item in path.parent.iterdir()] == ["scores.h5"]


@pytest.mark.parametrize("kind", ["bytes", "fixed", "text"])
def test_class_names_of_other_writers(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "scores.h5"
    with h5py.File(path, "w") as file:
        names = {
            "bytes": np.array([b"a", b"b"]),
            "fixed": np.array([b"a", b"b"], dtype="S8"),
            "text": ["a", "b"],
        }
        file.attrs["classes"] = names[kind]
        file["v/scores"] = np.array([[0, 1]])
        file["v/pts"] = np.array([[0, 1]])
    found = read_dense_scores(path)
    assert found.classes == ("a", "b")
    assert found.videos["v"][0].tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize(
    ("scores", "pts", "message"),
    [
        ([[0.0, np.nan]], [[0, 1]], "scores are not all finite"),
        ([[0.0, np.inf]], [[0, 1]], "scores are not all finite"),
        ([[0.0]], [[0, 1]], r"shape \(1, 1\), but there are 2 classes"),
        ([[0.0, 1.0]], [[0, 1], [1, 2]], r"pts have the shape \(2, 2\), but there are 1 rows"),
        ([[0.0, 1.0]], [[2, 1]], "pts are not start and end seconds"),
        ([[0.0, 1.0], [0.0, 1.0]], [[2, 3], [1, 2]], "not in temporal order"),
        ([[0.0, 1.0]], None, "there are scores but no pts"),
    ],
)
def test_broken_dense_scores(tmp_path: Path, scores: list, pts: list | None, message: str) -> None:
    path = tmp_path / "scores.h5"
    with h5py.File(path, "w") as file:
        file.attrs["classes"] = ["a", "b"]
        file["v/scores"] = np.array(scores)
        if pts is not None:
            file["v/pts"] = np.array(pts, dtype=float)
    with pytest.raises(AnnotationError, match=message) as caught:
        read_dense_scores(path)
    assert "video 'v'" in str(caught.value)
    assert caught.value.remedy


def test_files_that_are_something_else(tmp_path: Path) -> None:
    path = tmp_path / "scores.h5"
    with pytest.raises(AnnotationError, match="no such file"):
        read_dense_scores(path)
    path.write_text("{}")
    with pytest.raises(AnnotationError, match="is not an HDF5 file"):
        read_dense_scores(path)
    with h5py.File(path, "w"):
        pass
    with pytest.raises(AnnotationError, match="attribute `classes` is missing"):
        read_dense_scores(path)
    with pytest.raises(AnnotationError, match="holds dense scores"):
        read_detections(path)
    with h5py.File(path, "w") as file:
        file.attrs["classes"] = ["a"]
        file.create_dataset("v/scores", shape=(1 << 40, 1), dtype="f4", chunks=(1024, 1))
        file.create_dataset("v/pts", shape=(1 << 40, 2), dtype="f8", chunks=(1024, 2))
    with pytest.raises(AnnotationError, match="claims to have"):
        read_dense_scores(path)


def test_every_cut_of_a_dense_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "scores.h5"
    write_dense_scores(path, example())
    content = path.read_bytes()
    for length in range(0, len(content) - 1, 97):
        path.write_bytes(content[:length])
        with pytest.raises(AnnotationError) as caught:
            read_dense_scores(path)
        assert "\n" not in str(caught.value)


def test_detections_survive(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    found = {"v": [Detection("a", 0.25, 1.0, 2.5)], "nothing": []}
    write_detections(path, found, {"run": "x"})
    assert read_detections(path) == found
    content = json.loads(path.read_text())
    assert content["external_data"] == {"run": "x"}
    assert content["results"]["v"] == [{"label": "a", "score": 0.25, "segment": [1.0, 2.5]}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, 'there are no "results"'),
        ([], "the whole file is not an object"),
        ({"results": {"v": {}}}, "'v': its result is not a list"),
        ({"results": {"v": [{"label": "a", "segment": [0, 1]}]}}, "'v': a score is not a finite"),
        ({"results": {"v": [{"score": 1, "segment": [0, 1]}]}}, "'v': a label is not a name"),
        (
            {"results": {"v": [{"label": "a", "score": 1, "segment": [2, 1]}]}},
            "ends at 1, before its start at 2",
        ),
        ({"results": {"v": [{"label": "a", "score": 1, "segment": [2]}]}}, r"not \[start, end\]"),
    ],
)
def test_broken_detections(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=message) as caught:
        read_detections(path)
    assert str(path) in str(caught.value)
