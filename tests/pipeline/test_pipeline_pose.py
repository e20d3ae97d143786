"""The pose branch of recipes: its stages, and what makes them stale."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from in_process import InThisProcess

from vidkd.cache import CacheFile
from vidkd.errors import VidkdError
from vidkd.pipeline.benchmark import Benchmark
from vidkd.pipeline.data import Execution, feature_stages, render_stage
from vidkd.pipeline.layout import Layout
from vidkd.pipeline.split import Split
from vidkd.pipeline.stages import Outcome, Stage
from vidkd.recipe import Pipeline

RECIPE = {
    "name": "tiny",
    "description": "Rendered on the spot.",
    "synth": {"videos": 4, "seconds": 4, "width": 64, "height": 64, "frame_rate": 10},
    "frames": {"short_side": 64},
    "snippet": {"stride": 8},
    "pose": {"backend": "files"},
    "encoders": {"rgb": {"name": "i3d-rgb-kinetics400", "crop": 64}, "pose": {"name": "small"}},
    "pose_encoder": {
        "network": {"channels": [8, 8, 16], "blocks": [1, 1, 1]},
        "epochs": 1,
        "snippets_per_epoch": 32,
    },
    "teachers": ["pose"],
}


def stages(folder: Path, **changes: object) -> list[Stage]:
    """The stages up to the features."""
    split = Split(Pipeline.model_validate({**RECIPE, **changes}), Layout(folder))
    how = Execution(device="cpu", cluster=InThisProcess())
    made = (stage for item in ("rgb", "pose") for stage in feature_stages(split, item, how))
    return [render_stage(split, how), *made]


def test_stages_come_in_order_and_only_those_that_see_a_change_are_stale(tmp_path: Path) -> None:
    before = {stage.name: stage.settings for stage in stages(tmp_path)}
    assert list(before) == ["render", "features-rgb", "pose", "encoder-pose", "features-pose"]
    network = {**RECIPE["pose_encoder"], "epochs": 2}  # type: ignore[dict-item]
    after = {stage.name: stage.settings for stage in stages(tmp_path, pose_encoder=network)}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"encoder-pose", "features-pose"}


@pytest.mark.slow
def test_from_rendered_videos_to_features(tmp_path: Path) -> None:
    for stage in stages(tmp_path):
        if stage.name == "features-rgb":
            continue  # needs the weights of I3D
        stage.action()
        assert all(path.exists() for path in stage.outputs), stage.name
    found = sorted((tmp_path / "cache" / "features" / "small").glob("*.h5"))
    assert len(found) == 4
    with CacheFile(found[0]) as file:
        assert file.data.shape[1] == 32
        assert np.isfinite(file.rows()).all()


@pytest.mark.slow
def test_a_benchmark_makes_features_again_when_what_they_were_made_of_has_changed(
    tmp_path: Path,
) -> None:
    stages(tmp_path)[0].action()

    def plan(output: Path, cache: Path | None = None, **changes: object) -> Benchmark:
        data = {
            "synth": None,
            "data": {
                "videos": tmp_path / "data" / "videos",
                "annotations": tmp_path / "data" / "annotations.json",
            },
            "pose": {"backend": "files", "poses": tmp_path / "data" / "poses"},
        }
        recipe = Pipeline.model_validate({**RECIPE, **data, **changes})
        return Benchmark.of(
            recipe, output, cache=cache, device="cpu", numbers=[5], cluster=InThisProcess()
        )

    def make(item: Benchmark) -> None:
        item._make(item.features["pose", ""], Outcome())

    def state(item: Benchmark) -> str:
        return item.features["pose", ""].state().reason

    def encoder() -> str:
        result = json.loads((tmp_path / "out" / "models" / "small" / "result.json").read_text())
        return str(result["weights_sha256"])

    first = plan(tmp_path / "out")
    assert "4 of 4 videos have none" in state(first)
    make(first)
    assert state(first) == ""
    trained = encoder()
    make(first)
    assert encoder() == trained

    # Other settings of the encoder: it is trained again, and the poses are left alone.
    other = plan(tmp_path / "out", pose_encoder={**RECIPE["pose_encoder"], "seed": 1})  # type: ignore[dict-item]
    assert "other labels or settings of the encoder" in state(other)
    poses = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/cache/pose").glob("*.h5")}
    make(other)
    assert state(other) == ""
    assert encoder() != trained
    assert {path: path.stat().st_mtime_ns for path in poses} == poses

    # Other labels under the same name.
    path = tmp_path / "data" / "annotations.json"
    path.write_text(path.read_text() + "\n")
    again = plan(tmp_path / "out", pose_encoder={**RECIPE["pose_encoder"], "seed": 1})  # type: ignore[dict-item]
    assert "other labels or settings of the encoder" in state(again)
    make(again)
    assert state(again) == ""

    # Other poses.
    looser = {"backend": "files", "poses": tmp_path / "data/poses", "tracks": {"max_gap": 0.2}}
    assert "other poses and labels" in state(plan(tmp_path / "out", pose=looser))

    # Features that others share are not replaced: an encoder of other labels is refused.
    shared = plan(tmp_path / "elsewhere", cache=tmp_path / "out" / "cache")
    assert "other labels or settings of the encoder" in state(shared)
    with pytest.raises(VidkdError, match="videos failed"):
        make(shared)
    assert state(again) == ""
