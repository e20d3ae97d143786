"""PKU-MMD and THUMOS14, whose annotations are folders of text files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidkd.annotations import AMBIGUOUS, Segment, load_annotations
from vidkd.errors import AnnotationError, UsageError
from vidkd.evaluation import DenseScores, Detection, evaluate
from vidkd.files import sha256


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


PKU = {
    "Label/0002-L.txt": "1,30,90,2\n51,120,165,1\n",
    "Label/0002-M.txt": "3 0 15 2\r\n",
    "Label/0003-R.txt": "",
    # Misspelt as in the files of the data set.
    "Split/cross-subject.txt": (
        "Training videos: \n0002-L, 0002-M, \n\nValidataion videos: \n0003-R, \n"
    ),
    "Split/cross-view.txt": "Training videos:\n0002-M, 0003-R\nValidation videos:\n0002-L",
}


def test_pku_mmd_counts_frames_from_label_1(tmp_path: Path) -> None:
    found = load_annotations(write(tmp_path, PKU) / "Label", "pku-mmd")
    assert len(found.classes) == 51
    assert (found.classes[0], found.classes[-1]) == ("1", "51")
    assert found.videos["0002-L"].segments == (Segment(1.0, 3.0, "1"), Segment(4.0, 5.5, "51"))
    assert found.videos["0002-M"].segments == (Segment(0.0, 0.5, "3"),)
    assert found.videos["0003-R"].segments == ()
    assert found.videos["0003-R"].frame_rate == 30
    assert [video.attributes["view"] for video in found.videos.values()] == ["L", "M", "R"]
    assert found.subsets == ("",)
    slow = load_annotations(tmp_path / "Label", "pku-mmd", frame_rate=15)
    assert slow.videos["0002-M"].segments == (Segment(0.0, 1.0, "3"),)


def test_pku_mmd_splits(tmp_path: Path) -> None:
    write(tmp_path, PKU)
    for found in (
        load_annotations(tmp_path / "Label", "pku-mmd-cross-subject"),
        load_annotations(tmp_path, "pku-mmd-cross-subject"),
        load_annotations(tmp_path / "Split/cross-subject.txt", "pku-mmd"),
    ):
        assert list(found.subset("training").videos) == ["0002-L", "0002-M"]
        assert list(found.subset("testing").videos) == ["0003-R"]
    view = load_annotations(tmp_path / "Label", "pku-mmd-cross-view")
    assert list(view.subset("testing").videos) == ["0002-L"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"Label/0002-L.txt": "52,1,2,1\n"},
            r"-L\.txt: line 1: the class '52' is not one of",
        ),
        ({"Label/0002-L.txt": "0,1,2,1\n"}, r"the class '0' is not one of 1 to 51"),
        ({"Label/0002-L.txt": "1,9,2,1\n"}, r"line 1: a segment of '1' ends"),
        ({"Label/0002-L.txt": "1,2\n"}, r"is not label,start_frame,end_frame,confidence"),
        ({"Label/0002-L.txt": "1,2,x,1\n"}, r"is not a finite number: 'x'"),
        ({"Label/more/0002-L.txt": "1,1,2,1\n"}, r"'0002-L' has two label files"),
        ({"Split/cross-subject.txt": "0002-L\n"}, r"stands before `Training videos:`"),
        ({"Split/cross-subject.txt": "Training videos:\n\n"}, r"lists no video"),
        (
            {"Split/cross-subject.txt": "Training videos:\n9999-L\nValidation videos:\n0002-L"},
            r"'9999-L' is listed but has no label file",
        ),
        (
            {"Split/cross-subject.txt": "Training videos:\n0002-L\nValidation videos:\n0002-L"},
            r"listed for training and for validation",
        ),
    ],
)
def test_pku_mmd_errors(tmp_path: Path, files: dict[str, str], message: str) -> None:
    write(tmp_path, {**PKU, **files})
    with pytest.raises(AnnotationError, match=message) as caught:
        load_annotations(tmp_path / "Label", "pku-mmd-cross-subject")
    assert caught.value.remedy


def test_folders_that_are_not_data_sets(tmp_path: Path) -> None:
    write(tmp_path, {"readme.txt": "hello"})
    with pytest.raises(AnnotationError, match="has no label files"):
        load_annotations(tmp_path, "pku-mmd")
    with pytest.raises(AnnotationError, match=r"no cross-view\.txt"):
        load_annotations(tmp_path, "pku-mmd-cross-view")
    with pytest.raises(AnnotationError, match=r"such as BaseballPitch_val\.txt"):
        load_annotations(tmp_path, "thumos14")
    with pytest.raises(AnnotationError, match=r"is a folder .*; name the format: one of .*pku-mmd"):
        load_annotations(tmp_path)
    with pytest.raises(UsageError, match="counts in seconds"):
        load_annotations(tmp_path, "thumos14", frame_rate=30)


THUMOS = {
    "val/CliffDiving_val.txt": "video_validation_0000001  3.5 5.0\n",
    "val/Ambiguous_val.txt": "video_validation_0000001  7.0 8.0\n",
    "test/Billiards_test.txt": "video_test_0000002 1.0 2.0\nvideo_test_0000002 0.0 0.5\n",
    "test/Ambiguous_test.txt": "video_test_0000002 4.0 6.0\n",
    "test/readme.txt": "This is no annotation.\n",
}


def test_thumos14(tmp_path: Path) -> None:
    found = load_annotations(write(tmp_path, THUMOS), "thumos14")
    assert load_annotations(tmp_path) == found
    assert len(found.classes) == 21
    assert found.subsets == ("testing", "validation")
    assert found.videos["video_test_0000002"].segments == (
        Segment(0.0, 0.5, "Billiards"),
        Segment(1.0, 2.0, "Billiards"),
        Segment(4.0, 6.0, AMBIGUOUS),
    )
    actions = found.actions()
    assert actions.classes == found.classes[:20]
    assert len(actions.videos["video_test_0000002"].segments) == 2
    assert actions.actions() is actions


def test_ambiguous_segments_count_in_no_protocol(tmp_path: Path) -> None:
    truth = load_annotations(write(tmp_path, THUMOS), "thumos14").subset("testing")
    detections = {
        "video_test_0000002": [
            Detection("Billiards", 0.9, 4.0, 6.0),
            Detection("Billiards", 0.8, 0.0, 0.5),
            Detection("Billiards", 0.7, 1.0, 2.0),
        ]
    }
    # The best detection is ambiguous: ignored by THUMOS14, false elsewhere.
    assert evaluate(detections, truth, "thumos14", [0.5]).to_json()["map"]["0.5"] == 1
    event = evaluate(detections, truth, "anet", [0.5]).to_json()
    assert event["map"]["0.5"] == pytest.approx(2 / 3)
    assert event["classes"] == 20
    pts = np.arange(8)[:, None] + np.array([0.0, 1.0])
    scores = np.ones((8, 1))
    dense = DenseScores(("Billiards",), {"video_test_0000002": (scores, pts)})
    assert evaluate(dense, truth, "frame").to_json()["classes"] == 20


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"x/Diving_val.txt": "video 1\n"}, r"Diving_val\.txt: line 1: is not VIDEO START END"),
        ({"x/Diving_val.txt": "v 1.0 nan\n"}, "is not a finite number"),
        ({"x/Diving_val.txt": "v 2.0 1.0\n"}, "before its start"),
        ({"x/Diving_val.txt": "video_test_0000002 1 2\n"}, "in the subsets testing and validation"),
    ],
)
def test_thumos14_errors(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        load_annotations(write(tmp_path, {**THUMOS, **files}), "thumos14")


def test_the_hash_of_a_folder_is_that_of_its_content(tmp_path: Path) -> None:
    first = sha256(write(tmp_path / "a", THUMOS))
    assert first == sha256(write(tmp_path / "b", THUMOS))
    assert first != sha256(write(tmp_path / "b", {"test/Billiards_test.txt": "v 1 2\n"}))
    assert first != sha256(write(tmp_path / "a", {"new.txt": ""}))
