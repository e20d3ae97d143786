"""``vidkd train-encoder`` and the use of its result, as a user calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from in_process import vidkd

from vidkd.cache import CacheFile
from vidkd.networks import save_weights
from vidkd.networks.i3d import I3D
from vidkd.networks.weights import state_sha256
from vidkd.video import VideoWriter


@pytest.mark.slow
def test_from_videos_to_features_of_the_trained_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, models = tmp_path / "videos", tmp_path / "models"
    monkeypatch.setenv("VIDKD_MODELS", str(models))
    videos.mkdir()
    texture = np.random.default_rng(0).integers(0, 255, (40, 160, 3), dtype=np.uint8)
    database = {}
    for name, subset in (("a", "training"), ("b", "validation")):
        with VideoWriter(videos / f"{name}.mp4", 48, 40, Fraction(25)) as writer:
            for number in range(48):
                writer.write(np.ascontiguousarray(texture[:, number : number + 48]))
        action = {"label": "walk", "segment": [0.0, 1.0]}
        database[name] = {"subset": subset, "duration": 1.92, "annotations": [action]}
    annotations = tmp_path / "annotations.json"
    annotations.write_text(json.dumps({"classes": ["walk"], "database": database}))
    network = I3D(3, 5)
    state = {k: v for k, v in network.state_dict().items() if not k.endswith("batches_tracked")}
    start = "i3d-rgb-kinetics400"
    header = {"network": "i3d", "card": start, "weights_sha256": state_sha256(state)}
    save_weights(models / f"{start}.safetensors", state, header)

    run = tmp_path / "my-rgb"
    command = ("train-encoder", "--modality", "rgb", "--annotations", annotations, "--output", run)
    small = ("--short-side", 40, "--crop", 32, "--device", "cpu", "--workers", 1, "--epochs", 1)
    size = ("--batch-size", 4, "--snippets-per-epoch", 4, "--freeze-until", "Mixed_5b")
    wrong = vidkd(*command, *small)
    assert wrong.returncode == 2
    assert "rgb needs --videos" in wrong.stderr
    process = [sys.executable, "-m", "vidkd", *command, *small, *size, "--videos", videos, "--json"]
    done = subprocess.run(list(map(str, process)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["encoder"], result["training_videos"]) == ("my-rgb", 1)

    cache = tmp_path / "cache"
    extract = ("extract-features", videos / "b.mp4", "--cache", cache, "--modality", "rgb")
    frames = ("--short-side", 40, "--crop", 32, "--device", "cpu", "--encoder", run)
    features = vidkd(*extract, *frames)
    assert features.returncode == 0, features.stderr
    with CacheFile(cache / "features" / "my-rgb" / "b.h5") as file:
        assert file.data.shape == (3, 1024)
        assert file.provenance.encoder == "my-rgb"
        assert file.provenance.weights_sha256 == result["weights_sha256"]
