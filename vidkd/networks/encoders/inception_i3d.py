"""Inception-I3D in float32 and, quantised, in 8 bits. Its cards are those of ``models/``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vidkd.networks.converters import from_pytorch
from vidkd.networks.encoders import EncoderFamily, EncoderNetwork, fill
from vidkd.networks.i3d import I3D, LAST
from vidkd.networks.i3d_int8 import Int8I3D, check_tensors
from vidkd.recipe import ModelCard


class InceptionI3D(EncoderFamily):
    """See the module."""

    def build(
        self, card: ModelCard, state: Mapping[str, Tensor], path: str | Path
    ) -> EncoderNetwork:
        layers = (card.config or {}).get("feature_layers", LAST)
        if card.quantisation is not None:
            check_tensors(state, card.in_channels, path)
            return Int8I3D(state, layers)
        with torch.device("meta"):
            classes = len(state.get("classifier.bias", ()))
            network = I3D(card.in_channels, classes, feature_layers=layers)
        return fill(network, card, state, path)

    def convert(
        self, card: ModelCard, tensors: Mapping[str, Tensor], path: str | Path
    ) -> dict[str, Tensor]:
        """Convert ``rgb_imagenet.pt`` or ``flow_imagenet.pt`` of the PyTorch port."""
        return from_pytorch(tensors, path, card.in_channels)


FAMILY = InceptionI3D()
