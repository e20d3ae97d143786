"""An encoder that a recipe makes itself never sees the test videos of the split it serves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vidkd.errors import VidkdError
from vidkd.pipeline import data
from vidkd.pipeline.benchmark import Benchmark
from vidkd.pipeline.data import Execution, feature_stages
from vidkd.pipeline.layout import Layout
from vidkd.pipeline.split import Split
from vidkd.recipe import Pipeline
from vidkd.recipe.jobs import PoseEncoderJob

VIDEOS = tuple(f"v{number}" for number in range(6))
SUBSETS = ("training", "training", "validation", "validation", "testing", "testing")


def annotate(path: Path, order: tuple[str, ...]) -> Path:
    segment = {"label": "wave", "segment": [0, 2]}
    database = {
        name: {"subset": subset, "duration": 4, "annotations": [segment]}
        for name, subset in zip(order, SUBSETS, strict=True)
    }
    path.write_text(json.dumps({"classes": ["wave"], "database": database}))
    return path


def evaluated(split: Split) -> set[str]:
    return set(split.annotations.subset("testing").videos)


@pytest.fixture
def benchmark(tmp_path: Path) -> Callable[..., Benchmark]:
    """A benchmark whose second split trains on what the first tests on."""
    (tmp_path / "videos").mkdir()
    for name in VIDEOS:
        (tmp_path / "videos" / f"{name}.mp4").write_bytes(b"")
    subject = annotate(tmp_path / "subject.json", VIDEOS)
    view = annotate(tmp_path / "view.json", VIDEOS[::-1])

    def make(**fields: Any) -> Benchmark:
        values = {
            "name": "two splits",
            "description": "",
            "data": {"videos": tmp_path / "videos", "annotations": subject},
            "encoders": {"rgb": {"name": "i3d-rgb-kinetics400"}, "pose": {"name": "small"}},
            "teachers": ["pose"],
            "benchmark": {
                "tables": [1, 3],
                "splits": [{"name": "Cross View", "annotations": view}],
            },
            **fields,
        }
        return Benchmark.of(Pipeline.model_validate(values), tmp_path / "out", device="cpu")

    return make


def test_every_split_has_its_own_encoder_of_poses(benchmark: Callable[..., Benchmark]) -> None:
    plan = benchmark()
    features = plan.features
    assert features["rgb", "Cross View"] is features["rgb", ""]
    assert features["pose", ""].encoder == "small"
    assert features["pose", "Cross View"].encoder == "small-cross-view"
    assert set(features["pose", "Cross View"].videos) == set(VIDEOS)
    # Everything of a row is of the row's own split, its teachers included.
    stages = plan.stages(missing=plan.all_features())
    for ending, encoder in (("", "small"), ("-cross-view", "small-cross-view")):
        own = [stage for stage in stages if ("cross-view-" in stage.name) == bool(ending)]
        needs = {name for stage in own for name in stage.after if name.startswith("features-")}
        assert needs == {"features-rgb", f"features-pose{ending}"}
        teachers = [t["encoder"] for stage in own for t in stage.settings.get("teachers", ())]
        assert teachers
        assert set(teachers) == {encoder}
    assert plan.planned()["features"].keys() == {"rgb", "pose", "pose for Cross View"}


def test_an_encoder_of_poses_is_trained_on_its_own_split(
    benchmark: Callable[..., Benchmark], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[PoseEncoderJob] = []
    encoders: list[str] = []
    monkeypatch.setattr("vidkd.finetuning.train_encoder", jobs.append)
    monkeypatch.setattr(
        data, "feature_task", lambda cache, settings, **_: encoders.append(settings.encoder)
    )
    monkeypatch.setattr(data, "run_jobs", lambda *_, **__: [])
    plan = benchmark()
    for split in plan.splits.values():
        data.train_pose_encoder(split, Execution(device="cpu"))
        data.extract_features(split, "pose", Execution(device="cpu"))
    assert [job.card_name for job in jobs] == ["small", "small-cross-view"]
    assert encoders == [str(job.output) for job in jobs]
    for job, split in zip(jobs, plan.splits.values(), strict=True):
        assert job.annotations == split.path
        seen = (job.subsets.training, job.subsets.validation)
        known = {name for subset in seen for name in split.annotations.subset(subset).videos}
        assert not known & evaluated(split)
    # What one encoder has learnt from is what the other is tested on.
    first, second = plan.splits.values()
    assert evaluated(second) <= set(first.annotations.subset("training").videos)


def test_a_quantised_encoder_is_calibrated_on_its_own_split(
    benchmark: Callable[..., Benchmark], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[str]] = {}

    def quantise(name: str, videos: list[Any], output: Path, *, called: str, **_: Any) -> None:
        assert output.stem == called
        seen[called] = {Path(video.key).stem for video in videos}

    monkeypatch.setattr("vidkd.features.calibration.quantise_encoder", quantise)
    monkeypatch.setattr("vidkd.networks.ensure_weights", lambda name: None)
    encoders = {
        "rgb": {"name": "i3d-rgb-kinetics400", "precision": "int8"},
        "pose": {"name": "small"},
    }
    plan = benchmark(encoders=encoders)
    for name, split in plan.splits.items():
        data.quantise(split, "rgb", Execution(device="cpu"))
        found = seen[plan.features["rgb", name].encoder]
        assert found == set(split.annotations.subset("training").videos)
        assert not found & evaluated(split)
    assert list(seen) == ["i3d-rgb-kinetics400-int8", "i3d-rgb-kinetics400-int8-cross-view"]


@pytest.fixture
def cameras(tmp_path: Path) -> Callable[..., Split]:
    """A recipe whose people were filmed by a camera of the same name each."""
    for person in ("P01", "P02", "P03"):
        (tmp_path / "videos" / person).mkdir(parents=True)
        (tmp_path / "videos" / person / "cam1.mp4").write_bytes(b"")
    (tmp_path / "videos" / "P03" / "cam2.mp4").write_bytes(b"")

    def make(**subsets: str) -> Split:
        segment = {"label": "wave", "segment": [0, 2]}
        database = {
            name.replace("_", "/"): {"subset": subset, "duration": 4, "annotations": [segment]}
            for name, subset in subsets.items()
        }
        path = tmp_path / "labels.json"
        path.write_text(json.dumps({"classes": ["wave"], "database": database}))
        values = {
            "name": "cameras",
            "description": "",
            "data": {"videos": tmp_path / "videos", "annotations": path},
            "encoders": {
                "rgb": {"name": "i3d-rgb-kinetics400", "precision": "int8"},
                "flow": {"name": "i3d-flow-inflated"},
            },
        }
        return Split(Pipeline.model_validate(values), Layout(tmp_path / "out"))

    return make


def test_videos_of_one_name_in_several_folders_are_not_mixed_up(
    cameras: Callable[..., Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    split = cameras(P01_cam1="training", P02_cam1="testing", cam2="validation")
    assert [video.key for video in split.videos] == ["P01/cam1", "P02/cam1", "P03/cam2"]
    assert [video.key for video in split.training_videos()] == ["P01/cam1"]
    assert [video.key for video in split.videos_of("testing")] == ["P02/cam1"]
    assert split.video("cam2").key == "P03/cam2"
    seen: list[str] = []
    monkeypatch.setattr("vidkd.networks.ensure_weights", lambda name: None)
    monkeypatch.setattr(
        "vidkd.features.calibration.quantise_encoder",
        lambda name, videos, output, **_: seen.extend(video.key for video in videos),
    )
    data.quantise(split, "rgb", Execution(device="cpu"))
    assert seen == ["P01/cam1"]


@pytest.mark.parametrize(
    ("subsets", "words"),
    [
        ({"cam1": "training"}, "'cam1': P01/cam1, P02/cam1, P03/cam1; name the videos"),
        ({"P04_cam1": "training"}, "has no video for P04/cam1"),
        ({"cam2": "training", "P03_cam2": "testing"}, "P03/cam2 twice, as 'cam2' and 'P03/cam2'"),
    ],
)
def test_videos_that_are_ambiguous_missing_or_named_twice_are_refused(
    cameras: Callable[..., Split], subsets: dict[str, str], words: str
) -> None:
    others = {"P01_cam1": "training", "P02_cam1": "testing", "P03_cam1": "validation"}
    with pytest.raises(VidkdError, match=words):
        _ = cameras(**others, **subsets).videos


def test_annotations_that_change_under_their_name_make_every_stage_stale(
    benchmark: Callable[..., Benchmark], tmp_path: Path
) -> None:
    def settings() -> dict[str, Any]:
        plan = Benchmark.of_models(benchmark().recipe, tmp_path / "run")
        stages = plan.stages(plan.all_features())
        for item in plan.all_features():
            stages += feature_stages(item.split, item.modality, Execution())
        return {stage.name: stage.settings for stage in stages}

    before = settings()
    assert settings() == before
    path = tmp_path / "subject.json"
    path.write_text(path.read_text().replace("[0, 2]", "[0, 3]", 1))
    after = settings()
    assert after.keys() == before.keys()
    assert not [name for name in before if before[name] == after[name]]
