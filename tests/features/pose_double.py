"""A pose detector for tests, which sees one person where the picture is white, and an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vidkd.finetuning.poses import pose_card
from vidkd.finetuning.snippets import LabelledData
from vidkd.finetuning.training import save_encoder
from vidkd.networks.agcn import TwoStreamAGCN, initialise
from vidkd.pose.detector import PersonPose
from vidkd.recipe import FrameSettings, SnippetSettings
from vidkd.recipe.jobs import PoseEncoderJob

SNIPPET = SnippetSettings(length=16, stride=8)


class WhiteDetector:
    """Finds the middle of what is bright; every joint is there, and 3D says how large."""

    name = "white"
    weights_sha256 = "ab" * 32
    least_score = 0.0

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[PersonPose]]:
        return [self._people(image.astype(int)) for image in images]

    def _people(self, image: np.ndarray) -> list[PersonPose]:
        white = image.min(axis=2) > 160
        if not white.any():
            return []
        rows, columns = np.nonzero(white)
        box = np.array([columns.min(), rows.min(), columns.max(), rows.max()], float)
        joints = np.tile([columns.mean(), rows.mean()], (13, 1))
        person = PersonPose(box, joints, np.full((13, 3), white.mean()), np.full(13, 0.8), 0.9)
        return [person] if person.score >= self.least_score else []


class OtherDetector(WhiteDetector):
    """The same with other weights."""

    weights_sha256 = "cd" * 32


def load(name: str, device: str) -> WhiteDetector:
    """Stand in for ``vidkd.pose.detector.load_pose_detector``."""
    return {"white": WhiteDetector, "other": OtherDetector}[name]()


def encoder(folder: Path, seed: int = 0) -> Path:
    """Write an untrained encoder as a run folder has it."""
    job = PoseEncoderJob.model_validate(
        {
            "annotations": folder / "none.json",
            "cache": folder / "cache",
            "output": folder / "small-agcn",
            "network": {"channels": (8, 8, 16), "blocks": (1, 1, 1)},
            "snippet": SNIPPET,
        }
    )
    network = TwoStreamAGCN(job.network, 2)
    initialise(network, torch.Generator().manual_seed(seed))
    data = LabelledData(("a", "b"), [], [], FrameSettings(short_side=48), {}, {})
    card = pose_card(job, data, network.feature_dim)
    save_encoder(job.output / "encoder.safetensors", network, card, data.classes, {})
    return job.output
