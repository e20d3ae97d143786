"""The pose branch of recipes: its stages, and what makes them stale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidkd.cache import CacheFile
from vidkd.pipeline.division import Division
from vidkd.pipeline.experiment import Experiment
from vidkd.pipeline.layout import Layout
from vidkd.pipeline.workplace import Workplace
from vidkd.recipe import Pipeline

RECIPE = {
    "name": "tiny",
    "description": "Rendered on the spot.",
    "synth": {"videos": 4, "seconds": 4, "width": 64, "height": 64, "frame_rate": 10},
    "frames": {"short_side": 64},
    "snippet": {"stride": 8},
    "pose": {"backend": "files"},
    "encoders": {"rgb": {"name": "i3d-rgb-kinetics400"}, "pose": {"name": "small"}},
    "pose_encoder": {
        "network": {"channels": [8, 8, 16], "blocks": [1, 1, 1]},
        "epochs": 1,
        "snippets_per_epoch": 32,
    },
    "teachers": ["pose"],
}


def experiment(folder: Path, **changes: object) -> Experiment:
    recipe = Pipeline.model_validate({**RECIPE, **changes})
    return Experiment(Workplace(Division(recipe, Layout(folder)), 1, "cpu", overwrite=False))


def settings(folder: Path, **changes: object) -> dict[str, object]:
    return {item.name: item.settings for item in experiment(folder, **changes).stages()}


def test_stages_come_in_order_and_only_those_that_see_a_change_are_stale(tmp_path: Path) -> None:
    before = settings(tmp_path)
    names = list(before)
    order = ["render", "pose", "encoder-pose", "features-pose", "teacher-pose-seed0"]
    places = [names.index(name) for name in order]
    assert places == sorted(places)
    network = {**RECIPE["pose_encoder"], "epochs": 2}  # type: ignore[dict-item]
    after = settings(tmp_path, pose_encoder=network)
    changed = {name for name in names if before[name] != after[name]}
    assert "encoder-pose" in changed
    assert "features-pose" in changed
    assert "teacher-pose-seed0" in changed
    assert not changed & {"render", "pose", "features-rgb"}


@pytest.mark.slow
def test_from_rendered_videos_to_features(tmp_path: Path) -> None:
    chosen = experiment(tmp_path)
    for stage in chosen.stages():
        if stage.name == "features-rgb":
            continue  # needs the weights of I3D
        if stage.name.startswith("teacher"):
            break
        stage.action()
        assert all(path.exists() for path in stage.outputs), stage.name
    found = sorted((tmp_path / "cache" / "features" / "small").glob("*.h5"))
    assert len(found) == 4
    with CacheFile(found[0]) as file:
        assert file.data.shape[1] == 32
        assert np.isfinite(file.rows()).all()
