"""A tiny encoder for tests: picklable by name, quick, and with features that can be checked."""

from __future__ import annotations

import torch

from vidkd.recipe import ModelCard, WeightsSource


def card(name: str = "tiny-rgb", modality: str = "rgb", in_channels: int = 3) -> ModelCard:
    return ModelCard(
        name=name,
        network="i3d",
        modality=modality,
        description="mean and extremes of each channel",
        feature_dim=3 * in_channels,
        in_channels=in_channels,
        weights=(WeightsSource(kind="url", layout="vidkd"),),
        licence="none",
        source="none",
    )


class TinyEncoder:
    """Features are mean, minimum and maximum of each channel: (B, C, T, S, S) to (B, 3 C)."""

    device = torch.device("cpu")
    precision = "float32"

    def __init__(self, model_card: ModelCard, weights_sha256: str = "00" * 32) -> None:
        self.card = model_card
        self.weights_sha256 = weights_sha256

    def features(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dtype == torch.float32
        assert x.shape[1] == self.card.in_channels
        flat = x.flatten(2)
        return torch.cat([flat.mean(2), flat.amin(2), flat.amax(2)], dim=1)


RGB = card()
FLOW = card("tiny-flow", "flow", 2)


def load(name: str, device: str) -> TinyEncoder:
    """Stand in for ``vidkd.networks.load_encoder``."""
    return TinyEncoder({"tiny-rgb": RGB, "tiny-flow": FLOW}[name])
