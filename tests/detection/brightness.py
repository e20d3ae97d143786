"""A stub encoder that sees how bright and how colourful a snippet is, and videos to go with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vidkd.networks import FilterHeader, build_temporal_filter, save_temporal_filter
from vidkd.recipe import FilterSettings, FrameSettings, ModelCard, SnippetSettings, WeightsSource
from vidkd.video import VideoWriter

CLASSES = ("dark", "red", "bright")
SHA256 = "ab" * 32


class BrightnessEncoder:
    """Logits say which of three grounds is seen; features are the means of the channels."""

    device = torch.device("cpu")
    precision = "float32"
    replaces: tuple[str, ...] = ()
    batch_size = 8

    def __init__(self, classes: tuple[str, ...] | None = CLASSES, width: int = 3) -> None:
        self.classes = classes
        self.weights_sha256 = SHA256
        self.card = ModelCard(
            name="brightness",
            network="i3d",
            modality="rgb",
            description="means of the channels",
            feature_dim=width,
            in_channels=3,
            frames=FrameSettings(short_side=32),
            crop=32,
            weights=(WeightsSource(kind="url", layout="vidkd"),),
            licence="none",
            source="none",
        )
        self.shapes: list[tuple[int, ...]] = []

    def features(self, x: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(x.shape))
        return x.mean(dim=(2, 3, 4))

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        red, green, _ = self.features(x).unbind(1)
        return 4 * torch.stack([-red - green, red - green, red + green], dim=1)


GROUNDS = {"dark": (12, 12, 12), "red": (235, 15, 15), "bright": (240, 240, 240)}


def write_video(
    path: Path, parts: list[tuple[str, float]], rate: float = 25, size: tuple[int, int] = (64, 48)
) -> Path:
    """Write a video of plain grounds, each for some seconds."""
    with VideoWriter(path, *size, rate) as writer:
        for name, seconds in parts:
            image = np.broadcast_to(np.array(GROUNDS[name], np.uint8), (size[1], size[0], 3))
            for _ in range(round(seconds * rate)):
                writer.write(np.ascontiguousarray(image))
    return path


def write_student(path: Path, **changes: object) -> Path:
    """Write a random student on the features of the stub."""
    header = FilterHeader(
        filter=FilterSettings(channels=8, layers=2),
        in_features=3,
        classes=("sit", "stand"),
        modality="rgb",
        encoder="brightness",
        encoder_sha256=SHA256,
        frames=FrameSettings(short_side=48),
        snippet=SnippetSettings(length=16, stride=8),
        crop=40,
    ).model_copy(update=changes)
    torch.manual_seed(0)
    module = build_temporal_filter(header.filter, header.in_features, len(header.classes))
    save_temporal_filter(path, module, header)
    return path
