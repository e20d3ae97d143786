"""An encoder of one convolution in a file of its own, and students of its features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidkd.networks import FilterHeader, build_temporal_filter, save_temporal_filter
from vidkd.networks.encoders import EncoderFamily, EncoderNetwork, fill
from vidkd.networks.weights import state_sha256
from vidkd.networks.zoo import save_encoder
from vidkd.recipe import FilterSettings, FrameSettings, ModelCard, SnippetSettings

WIDTH, CLASSES, CROP = 6, ("sit", "stand", "walk"), 40
SNIPPET = SnippetSettings(length=4, stride=3, step=2, window=5)


class TinyNetwork(EncoderNetwork):
    classifier = None
    width = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(3, WIDTH, (2, 8, 8), (1, 8, 8))

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return torch.relu(self.convolution(x)).mean(dim=(2, 3, 4)), None


class TinyFamily(EncoderFamily):
    def build(
        self, card: ModelCard, state: Mapping[str, Tensor], path: str | Path
    ) -> EncoderNetwork:
        return fill(TinyNetwork(), card, state, path)


def write_encoder(folder: Path) -> str:
    """Write the encoder ``tiny`` beside the students of a folder; return its hash."""
    torch.manual_seed(0)
    state = TinyNetwork().state_dict()
    card = ModelCard(
        name="tiny",
        network="tiny",
        modality="rgb",
        description="one convolution",
        feature_dim=WIDTH,
        in_channels=3,
        frames=FrameSettings(short_side=48),
        snippet=SNIPPET,
        crop=CROP,
        lengths=(4, 4),
        crops=(CROP, CROP),
        channel_order="bgr",
        mean=(0.4, 0.5, 0.6),
        deviation=(0.2, 0.25, 0.3),
        weights=(),
        licence="none",
        source="none",
    )
    save_encoder(
        folder / "tiny" / "encoder.safetensors", state, card, folder / "tiny" / "card.yaml"
    )
    return state_sha256(state)


def write_student(
    folder: Path, sha256: str, kind: str = "local-attention", levels: int = 3, **changes: Any
) -> Path:
    """Write a random student whose scores are neither all low nor all high."""
    header = FilterHeader(
        filter=FilterSettings(kind=kind, channels=8, layers=2, levels=levels),
        in_features=WIDTH,
        classes=CLASSES,
        modality="rgb",
        encoder="tiny",
        encoder_sha256=sha256,
        frames=FrameSettings(short_side=48),
        snippet=SNIPPET,
        crop=CROP,
    ).model_copy(update=changes)
    torch.manual_seed(len(kind) + levels)
    module = build_temporal_filter(header.filter, WIDTH, len(header.classes))
    with torch.no_grad():
        module.input_deviation.fill_(0.1)
        module.classifier.weight.mul_(4)
        if module.head is not None:
            module.head.what.output.weight.mul_(8)
            module.head.what.output.bias.zero_()
            module.head.where.output.weight.mul_(4)
    # Encoders lie beside the folders of runs.
    path = folder / "runs" / f"{kind}-{levels}-{len(changes)}.safetensors"
    save_temporal_filter(path, module, header)
    return path
