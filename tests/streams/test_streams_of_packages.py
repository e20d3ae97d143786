"""Streams that a package adds: one class each, from video to a trained teacher."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidkd.cache import CacheFile
from vidkd.detection.detector import Detector
from vidkd.detection.predict import predict_runs
from vidkd.distillation import train
from vidkd.errors import VideoError
from vidkd.features import FeatureSettings, feature_task
from vidkd.files import sha256
from vidkd.recipe import FrameSettings, ModelCard, SnippetSettings
from vidkd.recipe.jobs import TrainingJob
from vidkd.streams import STREAMS, DirectStream, Stream, VideoJob, decode
from vidkd.video import Frame, VideoFile, VideoWriter

FRAMES = FrameSettings(short_side=32)
CARD = ModelCard(
    name="means", network="i3d", modality="rgb", description="", feature_dim=3, in_channels=3,
    weights=(), licence="", source="",
)  # fmt: skip


class Infrared(Stream):
    """A second video beside the first, through the encoders of RGB."""

    name = "infrared"
    label = "IR"

    def beside(self, job: VideoJob) -> Path:
        path = job.video.path
        return path.with_name(f"{path.stem}.infrared{path.suffix}")

    def provenance(self, job: VideoJob, source: Any) -> dict[str, Any]:
        return {"inputs": {"infrared_sha256": sha256(self.beside(job))}}

    def frames(self, job: VideoJob) -> Iterator[Frame]:
        return decode(self.beside(job), job.settings.frames, job.report)


class Brightness(DirectStream):
    """Mean and deviation of the brightness of a snippet; no network."""

    name = "brightness"
    label = "Light"

    def frames(self, job: VideoJob) -> Iterator[Frame]:
        for frame in job.decoded():
            yield Frame(frame.image.mean(keepdims=True)[0, 0], frame.start, frame.end, frame.index)

    def features(self, snippets: torch.Tensor) -> torch.Tensor:
        return torch.cat([snippets.mean(1), snippets.std(1)], dim=1)


class Means:
    """Means of the channels."""

    card, device, precision, weights_sha256 = CARD, torch.device("cpu"), "float32", "00" * 32

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3, 4))


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    added = {stream.name: stream for stream in (Infrared(), Brightness())}
    monkeypatch.setattr(STREAMS, "_own", {**STREAMS._own, **added})


def write(path: Path, levels: list[int]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with VideoWriter(path, 64, 48, Fraction(25)) as writer:
        for level in levels:
            writer.write(np.full((48, 64, 3), level, np.uint8))
    return path


def extract(video: VideoFile, cache: Path, modality: str, load: Any = None) -> Path:
    settings = FeatureSettings(
        STREAMS[modality], "means", FRAMES, SnippetSettings(), 32, dtype="float32"
    )
    return feature_task(cache, settings, load=load)(video).path


def test_a_second_video_goes_through_the_encoders_of_rgb(tmp_path: Path) -> None:
    video = VideoFile(write(tmp_path / "videos" / "a.mp4", [20] * 40), "a")
    beside = write(tmp_path / "videos" / "a.infrared.mp4", [200] * 40)
    path = extract(video, tmp_path / "cache", "infrared", lambda name, device: Means())
    assert path == tmp_path / "cache" / "features" / "means.infrared" / "a.h5"
    with CacheFile(path) as file:
        np.testing.assert_allclose(file.rows(), 200 / 127.5 - 1, atol=0.02)
        assert file.provenance.settings["inputs"] == {"infrared_sha256": sha256(beside)}
        assert file.provenance.source.frame_count == 40
    beside.unlink()
    with pytest.raises((VideoError, OSError)):
        extract(video, tmp_path / "cache", "infrared", lambda name, device: Means())


def test_features_without_a_network_train_a_teacher(tmp_path: Path) -> None:
    database = {}
    for number in range(4):
        level = 220 if number % 2 else 40
        video = VideoFile(write(tmp_path / "videos" / f"v{number}.mp4", [level] * 64), f"v{number}")
        path = extract(video, tmp_path / "cache", "brightness")
        database[f"v{number}"] = {
            "subset": "training" if number < 2 else "validation",
            "duration": 2.56,
            "annotations": [{"segment": [0, 2.56], "label": "light" if number % 2 else "dark"}],
        }
    with CacheFile(path) as file:
        np.testing.assert_allclose(file.rows(), [[220, 0]] * 4, atol=2)
    annotations = tmp_path / "labels.json"
    annotations.write_text(json.dumps({"database": database}))
    job = TrainingJob.model_validate(
        {
            "output": tmp_path / "teacher",
            "cache": tmp_path / "cache",
            "annotations": annotations,
            "modality": "brightness",
            "filter": {"channels": 8, "layers": 2},
            "optimiser": {"epochs": 1},
            "device": "cpu",
        }
    )
    assert train(job).training_videos == 2
    result = Detector(tmp_path / "teacher", "cpu")(video.path)
    scores = predict_runs([tmp_path / "teacher"], tmp_path / "cache", ["v3"], device="cpu")
    np.testing.assert_array_equal(result.pts, scores.videos["v3"][1])
