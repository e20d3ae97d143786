"""Every mismatch that the check of a data set explains, each made on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidkd.cache import CacheWriter, Provenance, Source, cache_path
from vidkd.errors import UsageError
from vidkd.features.data_check import check_data
from vidkd.features.data_report import DataReport, similar
from vidkd.keys import KeyIndex

FRAMES, STEP = 40, 16


class DataSet:
    """A sound data set of rendered videos, with features of two encoders, to be spoilt."""

    def __init__(self, folder: Path, make_video: Callable[..., Any]) -> None:
        self.folder = folder
        self.videos = {n: make_video(n, FRAMES).path for n in ("v1", "v2", "v3")}
        self.database: dict[str, Any] = {
            name: {
                "subset": subset,
                "duration": FRAMES / 25,
                "annotations": [{"segment": [0.2, 1.0], "label": "walk"}],
            }
            for name, subset in (
                ("v1", "training"),
                ("v2", "testing"),
                ("v3", "validation"),
            )
        }
        self.classes = ["walk"]
        for name in self.videos:
            for encoder, modality in (("my-rgb", "rgb"), ("my-flow", "flow")):
                self.features(name, encoder, modality)

    def features(
        self,
        name: str,
        encoder: str = "my-rgb",
        modality: str = "rgb",
        rows: int | None = None,
        shift: float = 0.0,
        size: int | None = None,
        **settings: Any,
    ) -> Path:
        start = np.arange(0, FRAMES, STEP)[: rows or None]
        pts = np.stack([start, np.minimum(start + 16, FRAMES)], 1) / 25 + shift
        path = self.videos.get(name)
        count = size or (path.stat().st_size if path else 1)
        source = Source(f"{name}.mp4", count, "0" * 64, Fraction(25), FRAMES)
        declared = {"modality": modality, "snippet": {"length": 16, "stride": STEP}, **settings}
        target = cache_path(self.folder / "cache", "features", name, encoder)
        provenance = Provenance("features", source, declared, encoder, "1" * 64)
        with CacheWriter(target, provenance, (4,), "float32") as writer:
            writer.append(np.ones((len(pts), 4)), pts)
            writer.frame_count = FRAMES
        return target

    def segment(self, start: float, end: float, label: str = "walk", video: str = "v1") -> None:
        self.database[video]["annotations"].append({"segment": [start, end], "label": label})

    def check(self, *, cache: bool = True, videos: bool = True, **options: Any) -> DataReport:
        path = self.folder / "truth.json"
        path.write_text(json.dumps({"classes": self.classes, "database": self.database}))
        return check_data(
            path,
            videos=self.folder / "videos" if videos else None,
            cache=self.folder / "cache" if cache else None,
            **options,
        )


@pytest.fixture
def data(tmp_path: Path, make_video: Callable[..., Any]) -> DataSet:
    return DataSet(tmp_path, make_video)


def found(report: DataReport) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for item in report.findings:
        kinds.setdefault(f"{item.severity} {item.kind}", []).append(item.video)
    return kinds


def test_a_sound_data_set_has_no_finding(data: DataSet) -> None:
    report = data.check()
    assert report.findings == []
    assert report.counts == {
        "videos": 3,
        "segments": 3,
        "classes": 1,
        "subset testing": 1,
        "subset training": 1,
        "subset validation": 1,
        "video files": 3,
        "features my-flow": 3,
        "features my-rgb": 3,
    }
    assert report.to_json()["ok"] is True


def test_missing_and_unannotated_videos(data: DataSet) -> None:
    data.videos["v1"].rename(data.videos["v1"].with_name("V1.mp4"))
    # Its features are in the cache, so training goes on; without them it does not.
    report = data.check()
    assert found(report) == {"warning missing-video": ["v1"], "warning unannotated-video": ["V1"]}
    assert "there is 'V1': make the two names the same" in report.findings[0].detail
    assert found(data.check(cache=False))["error missing-video"] == ["v1"]


def test_one_name_for_several_videos(data: DataSet) -> None:
    for folder in ("a", "b"):
        path = data.folder / "videos" / folder / "v1.mp4"
        path.parent.mkdir()
        path.write_bytes(data.videos["v1"].read_bytes())
    data.videos["v1"].unlink()
    report = data.check(cache=False)
    assert found(report) == {"error ambiguous-video": ["v1"]}
    assert "a/v1, b/v1" in report.findings[0].detail
    (data.folder / "videos" / "v2.avi").write_bytes(b"x")
    assert "error duplicate-key" in found(data.check(cache=False))


def test_broken_video(data: DataSet) -> None:
    data.videos["v2"].write_bytes(b"not a video")
    assert found(data.check(cache=False)) == {"error broken-video": ["v2"]}


def test_odd_segments(data: DataSet) -> None:
    data.segment(0.2, 1.0)
    data.segment(1.2, 1.9)
    data.segment(50, 60)
    data.segment(0.5, 0.5)
    data.segment(-0.1, 0.5)
    assert found(data.check()) == {
        "warning duplicate-segment": ["v1"],
        "warning segment-past-end": ["v1"],
        "warning segment-outside": ["v1"],
        "warning empty-segment": ["v1"],
        "warning segment-before-start": ["v1"],
    }


def test_segments_past_the_end_of_the_file_alone(data: DataSet) -> None:
    data.database["v1"]["duration"] = 4.0
    data.segment(1.2, 3.0)
    data.segment(2.0, 3.0)
    report = data.check()
    assert found(report) == {
        "warning segment-past-end": ["v1"],
        "warning segment-outside": ["v1"],
        "warning duration": ["v1"],
    }
    assert "the end of the video, 1.6 s" in report.findings[0].detail


def test_classes(data: DataSet) -> None:
    data.classes = ["walk", "Walk ", "run"]
    data.segment(0, 1, "run", "v2")
    report = data.check()
    assert found(report) == {
        "warning class-spelling": [""],
        "warning unused-class": [""],
        "warning untrained-class": [""],
        "warning unmeasured-class": [""],
    }
    data.segment(0, 1, "fly")
    report = data.check()
    assert found(report) == {"error annotations": [""]}
    assert "'v1': the class 'fly' is unknown" in report.findings[0].detail


def test_a_video_given_twice(data: DataSet) -> None:
    path = data.folder / "twice.json"
    path.write_text('{"database": {"v1": {"annotations": []}, "v1": {"annotations": []}}}')
    report = check_data(path)
    assert "the key 'v1' is given twice" in report.findings[0].detail
    assert report.of("error")


def test_missing_and_ambiguous_features(data: DataSet) -> None:
    data.features("v1").unlink()
    data.features("other/v2")
    data.features("more/v2")
    cache_path(data.folder / "cache", "features", "v2", "my-rgb").unlink()
    assert found(data.check()) == {
        "error missing-features": ["v1"],
        "error ambiguous-features": ["v2"],
    }
    report = data.check(encoders=["absent"])
    assert found(report)["error missing-features"] == ["v1", "v2", "v3"]


def test_two_encoders_with_other_snippets(data: DataSet) -> None:
    data.features("v1", rows=2)
    data.features("v2", shift=0.2)
    report = data.check(videos=False)
    assert found(report) == {
        "error feature-count": ["v1"],
        "error snippet-count": ["v1"],
        "error snippet-times": ["v2"],
    }
    detail = next(item.detail for item in report.findings if item.kind == "feature-count")
    assert "2 rows, but 40 frames make 3 snippets of 16 frames every 16" in detail
    detail = next(item.detail for item in report.findings if item.kind == "snippet-count")
    assert "my-flow has 3 snippets, my-rgb 2" in detail


def test_features_that_end_elsewhere_than_the_video(data: DataSet) -> None:
    for entry in data.database.values():
        entry["duration"] = 16.0
    report = data.check(videos=False)
    assert set(found(report)) == {"warning feature-times"}
    assert "a factor of 0.1" in report.findings[0].detail


def test_stale_broken_and_mixed_caches(data: DataSet) -> None:
    data.features("v1", size=7)
    data.features("v2", crop=112)
    path = data.features("v2", "my-flow", "flow")
    path.write_bytes(path.read_bytes()[:-200])
    report = data.check()
    assert set(found(report)) >= {"error stale-cache", "error broken-cache", "error mixed-settings"}
    detail = next(item.detail for item in report.findings if item.kind == "mixed-settings")
    assert "crop" in detail


def test_deep_hashes_the_videos(data: DataSet) -> None:
    assert "error stale-cache" not in found(data.check())
    assert found(data.check(deep=True)) == {
        "error stale-cache": ["v1", "v1", "v2", "v2", "v3", "v3"]
    }


def test_flow_that_the_features_did_not_see(data: DataSet) -> None:
    path = cache_path(data.folder / "cache", "flow", "v1")
    source = Source("v1.mp4", 1, "0" * 64, Fraction(25), 39)
    with CacheWriter(path, Provenance("flow", source, {}), (2, 2, 2), "uint8") as writer:
        writer.append(np.zeros((39, 2, 2, 2)), np.zeros((39, 2)))
    report = data.check(encoders=["my-flow"])
    assert found(report) == {"error flow-count": ["v1"]}
    assert "39 rows of flow, but the features saw 40 frames" in report.findings[0].detail


def test_without_features_or_folder(data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    truth = tmp_path / "truth.json"
    data.check()
    assert found(check_data(truth, cache=tmp_path / "empty")) == {"error no-features": [""]}
    with pytest.raises(UsageError, match="is not a folder"):
        check_data(truth, videos=tmp_path / "none")


def test_names_are_found_as_training_finds_them() -> None:
    files = KeyIndex(dict.fromkeys(["a/x", "b/x", "b/y", "v_Run-1"]), Path("videos"))
    assert files.candidates("a/x") == ["a/x"]
    assert files.candidates("x") == ["a/x", "b/x"]
    assert files.candidates("y") == ["b/y"]
    assert files.candidates("run_1.mp4") == []
    assert "'v_Run-1'" in similar(files, "run_1.mp4")
    assert similar(files, "z") == ""


def test_what_a_recipe_would_refuse_of_the_subsets(data: DataSet) -> None:
    for name in ("v1", "v2", "v3"):
        data.database[name]["subset"] = ""
    report = data.check()
    assert found(report) == {"error missing-subset": [""]}
    assert "`vidkd init VIDEOS --labels FILE`" in report.findings[0].detail
    data.database["v1"]["subset"] = data.database["v2"]["subset"] = "training"
    assert found(data.check()) == {
        "error missing-subset": ["", ""],
        "warning no-subset": ["v3"],
    }
    data.database["v2"]["subset"], data.database["v3"]["subset"] = "val", "testing"
    data.database["v3"]["annotations"] = []
    kinds = found(data.check(subsets=("training", "val", "testing")))
    assert kinds == {"error empty-subset": [""], "warning no-segments": ["v3"]}


def test_one_video_under_two_names(data: DataSet) -> None:
    (data.folder / "videos" / "P1").mkdir()
    data.videos["v1"].rename(data.folder / "videos" / "P1" / "v1.mp4")
    data.database["P1/v1"] = data.database["v1"]
    assert found(data.check(cache=False)) == {"error video-twice": ["P1/v1"]}


def test_a_video_that_breaks_off_is_found_by_decoding_it(data: DataSet) -> None:
    whole = data.videos["v2"].read_bytes()
    data.videos["v2"].write_bytes(whole[: len(whole) * 2 // 3])
    assert "error broken-video" not in found(data.check(cache=False))
    assert found(data.check(cache=False, deep=True)) == {"error broken-video": ["v2"]}
