"""Poses to the features of a pose teacher, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from in_process import vidkd

from vidkd.cache import CacheFile
from vidkd.features.poses import pose_task
from vidkd.recipe import FrameSettings, PoseSettings, SynthSettings
from vidkd.synth import render_dataset
from vidkd.video import find_videos


@pytest.mark.slow
def test_from_rendered_poses_to_the_features_of_a_trained_encoder(tmp_path: Path) -> None:
    settings = SynthSettings(videos=3, seconds=4, width=64, height=64, frame_rate=10)
    truth = render_dataset(tmp_path / "data", settings)
    videos, cache = tmp_path / "data" / "videos", tmp_path / "cache"
    # What `vidkd extract-pose --backend files` does, without starting a process.
    task = pose_task(
        cache,
        FrameSettings(short_side=64),
        PoseSettings(backend="files", min_score=0),
        poses=tmp_path / "data" / "poses",
    )
    for video in find_videos([videos]):
        task(video, lambda amount: None, 1)
    run = tmp_path / "runs" / "agcn"
    command = [
        *("train-encoder", "--modality", "pose", "--cache", cache, "--annotations", truth),
        *("--output", run, "--epochs", 1, "--snippets-per-epoch", 32, "--device", "cpu"),
        *("--channels", "8,8,16", "--blocks", "1,1,1", "--json"),
    ]
    process = [sys.executable, "-m", "vidkd", *map(str, command)]
    done = subprocess.run(process, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    trained = json.loads(done.stdout)
    assert trained["encoder"] == "agcn"
    done = vidkd(
        *("extract-features", videos, "--cache", cache, "--modality", "pose"),
        *("--encoder", run, "--stride", 8, "--device", "cpu", "--json"),
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["state"] for row in rows] == ["done"] * 3
    path = cache / "features" / "agcn" / "synth_0000.h5"
    with CacheFile(path) as file:
        assert file.data.shape == (4, 32)
        assert file.provenance.weights_sha256 == trained["weights_sha256"]
        assert np.isfinite(file.rows()).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--videos", "x", "--freeze-until", "Mixed_4f"], "pose has no --videos, --freeze-until"),
        (["--blocks", "4,3"], "--blocks has too few values"),
        ([], "vidkd extract-pose"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    truth = tmp_path / "truth.json"
    video = {"subset": "training", "duration": 1, "annotations": []}
    truth.write_text(json.dumps({"database": {"a": video, "b": {**video, "subset": "validation"}}}))
    done = vidkd("train-encoder", "--modality", "pose", "--annotations", truth, "--cache",
                 tmp_path, "--output", tmp_path / "run", *arguments)  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "encoder.safetensors").exists()


def test_features_need_an_encoder_of_poses(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    done = vidkd("extract-features", tmp_path, "--cache", tmp_path, "--modality", "pose")
    assert done.returncode == 2
    assert "train one with `vidkd train-encoder --modality pose`" in done.stderr
