"""Poses to the features of a pose teacher, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vidkd.cache import CacheFile
from vidkd.recipe import SynthSettings
from vidkd.synth import render_dataset


def vidkd(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vidkd", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def good(*arguments: object) -> str:
    done = vidkd(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_from_rendered_poses_to_a_pose_teacher(tmp_path: Path) -> None:
    settings = SynthSettings(videos=4, seconds=6, width=64, height=64, frame_rate=10)
    truth = render_dataset(tmp_path / "data", settings)
    videos, cache = tmp_path / "data" / "videos", tmp_path / "cache"
    good("extract-pose", videos, "--cache", cache, "--backend", "files", "--workers", 1,
         "--poses", tmp_path / "data" / "poses", "--short-side", 64)  # fmt: skip
    run = tmp_path / "runs" / "agcn"
    trained = json.loads(
        good(
            "train-encoder",
            "--modality",
            "pose",
            "--cache",
            cache,
            "--annotations",
            truth,
            "--output",
            run,
            "--epochs",
            1,
            "--snippets-per-epoch",
            32,
            "--channels",
            "8,8,16",
            "--blocks",
            "1,1,1",
            "--device",
            "cpu",
            "--json",
        )
    )
    assert trained["encoder"] == "agcn"
    rows = json.loads(
        good(
            "extract-features",
            videos,
            "--cache",
            cache,
            "--modality",
            "pose",
            "--encoder",
            run,
            "--stride",
            8,
            "--device",
            "cpu",
            "--json",
        )
    )
    assert [row["state"] for row in rows] == ["done"] * 4
    path = cache / "features" / "agcn" / "synth_0000.h5"
    with CacheFile(path) as file:
        assert file.data.shape == (7, 32)
        assert file.provenance.weights_sha256 == trained["weights_sha256"]
        assert np.isfinite(file.rows()).all()
    teacher = ("train-teacher", "--modality", "pose", "--cache", cache, "--annotations", truth,
               "--epochs", 1, "--channels", 8, "--device", "cpu")  # fmt: skip
    good(*teacher, "--output", tmp_path / "teacher")
    header = (tmp_path / "teacher" / "recipe.yaml").read_text()
    assert "modality: pose" in header


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--videos", "x", "--freeze-until", "Mixed_4f"], "--freeze-until, --videos"),
        (["--blocks", "4,3"], "network.blocks"),
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
    done = vidkd("extract-features", tmp_path, "--cache", tmp_path, "--modality", "pose")
    assert done.returncode == 2
    assert "train one with `vidkd train-encoder --modality pose`" in done.stderr
