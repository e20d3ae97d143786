"""An encoder of another library through every command from its weights to a detection."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import in_process
import numpy as np
import pytest
import torch
from pytorchvideo.models.hub import x3d_xs

from vidkd.cache import CacheFile
from vidkd.video import VideoWriter, read_frames


@pytest.mark.slow
def test_x3d_from_its_weights_to_a_detection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDKD_MODELS", str(tmp_path / "models"))
    torch.manual_seed(0)
    network = x3d_xs(pretrained=False).eval()
    torch.save({"model_state": network.state_dict()}, tmp_path / "X3D_XS.pyth")
    videos, database = tmp_path / "videos", {}
    videos.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    for number, subset in enumerate(("training", "validation")):
        # A still video: whatever frames a clip takes, it is the same picture.
        picture = np.kron(noise + np.uint8(50 * number), np.ones((32, 32, 1), np.uint8))
        with VideoWriter(videos / f"{subset}.mp4", 256, 192, Fraction(30)) as writer:
            for _ in range(60):
                writer.write(picture)
        segment = {"segment": [0.0, 1.0], "label": "first"}
        database[subset] = {"subset": subset, "duration": 2.0, "annotations": [segment]}
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({"database": database}))
    cache, run, found = tmp_path / "cache", tmp_path / "run", tmp_path / "found.json"
    training = ("--annotations", labels, "--epochs", 1, "--channels", 8, "--batch-size", 1)
    for command in (
        ("models", "fetch", "x3d_xs", "--from", tmp_path / "X3D_XS.pyth"),
        ("extract-features", videos, "--cache", cache, "--modality", "rgb", "--encoder", "x3d_xs"),
        ("train-baseline", "--cache", cache, *training, "--output", run),
        ("detect", videos / "validation.mp4", "--model", run, "--output", found),
    ):
        result = in_process.vidkd(*command)
        assert result.returncode == 0, result.stderr
    assert "validation" in json.loads(found.read_text())["results"]

    with CacheFile(cache / "features" / "x3d_xs" / "training.h5") as file:
        rows, times = file.rows().astype(np.float32), file.pts
    # Two seconds at 30 frames/s are covered without a gap, whatever the clip's length.
    assert (times[0, 0], times[-1, 1]) == pytest.approx((0.0, 2.0), abs=1e-6)
    np.testing.assert_allclose(times[1:, 0], times[:-1, 1], atol=1e-6)
    frame = next(iter(read_frames(videos / "training.mp4", short_side=182))).image
    top, left = (frame.shape[0] - 182) // 2, (frame.shape[1] - 182) // 2
    crop = torch.from_numpy(frame[top : top + 182, left : left + 182].copy()).float()
    clip = ((crop / 255 - 0.45) / 0.225).permute(2, 0, 1)[None, :, None].repeat(1, 1, 4, 1, 1)
    head = network.blocks[-1]
    taken: list[torch.Tensor] = []
    head.proj.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    with torch.no_grad():
        network(clip)
    expected = taken[0].flatten(1, -2).mean(1)[0]
    assert rows.shape[1:] == expected.shape == (2048,)
    for row in rows:
        np.testing.assert_allclose(row, expected, rtol=2e-2, atol=2e-2 * float(expected.std()))
