"""RGB that waits for the test amid every video, and an encoder that says who loads it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from vidkd.recipe import ModelCard, WeightsSource
from vidkd.streams.base import VideoJob
from vidkd.streams.rgb import Rgb

CARD = ModelCard(
    name="mean",
    network="i3d",
    modality="rgb",
    description="the mean of each channel",
    feature_dim=3,
    in_channels=3,
    weights=(WeightsSource(kind="url", layout="vidkd"),),
    licence="none",
    source="none",
)


class WaitingRGB(Rgb):
    """Says who makes batches (``KEY.PID.begun``), and waits after the first for the file ``go``."""

    def batches(self, job: VideoJob, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        folder = job.video.path.parent
        for number, batch in enumerate(super().batches(job, size)):
            yield batch
            if number == 0:
                (folder / f"{job.video.key}.{os.getpid()}.begun").touch()
                while not (folder / "go").exists():
                    job.report(0)
                    time.sleep(0.05)


class Mean:
    """Features are the mean of each channel: (B, 3, T, S, S) to (B, 3)."""

    card, weights_sha256 = CARD, "00" * 32
    device, precision = torch.device("cpu"), "float32"

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).mean(2)


class Load:
    """Loads the encoder, and leaves ``PID.loaded`` in a folder, with one line for each time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str, device: str) -> Mean:
        with (self.folder / f"{os.getpid()}.loaded").open("a") as file:
            file.write("loaded\n")
        return Mean()
