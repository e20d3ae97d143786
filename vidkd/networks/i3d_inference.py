"""Inception-I3D for inference: the numbers of :class:`vidkd.networks.i3d.I3D`, computed faster.

Batch normalisation is folded into the convolutions and activations keep their channels
innermost.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vidkd.networks.i3d import (
    END_POINTS,
    I3D,
    POOLS,
    Inception,
    Size3,
    Unit,
    max_pool_same,
    pad_same,
    pooled_features,
    pooled_windows,
)


def folded(unit: Unit) -> tuple[Tensor, Tensor]:
    """Return the kernel and bias of the one convolution that equals a unit before its ReLU."""
    norm = unit.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    weight = unit.conv.weight.double() * scale.reshape(-1, 1, 1, 1, 1)
    bias = norm.bias.double() - norm.running_mean.double() * scale
    return weight.float().detach(), bias.float().detach()


class FoldedUnit(nn.Module):
    """Convolution with bias and ReLU."""

    weight: Tensor
    bias: Tensor

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        weight, bias = folded(unit)
        self.kernel: Size3 = unit.kernel
        self.stride: Size3 = unit.stride
        self.register_buffer("weight", weight.to(memory_format=torch.channels_last_3d))
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to (B, C', ceil(T / stride), ...)."""
        x = pad_same(x, self.kernel, self.stride)
        return functional.relu_(functional.conv3d(x, self.weight, self.bias, self.stride))


class FoldedInception(nn.Module):
    """Four parallel branches whose outputs are joined along the channels."""

    def __init__(self, inception: Inception) -> None:
        super().__init__()
        self.b0 = FoldedUnit(inception.b0)
        self.b1a = FoldedUnit(inception.b1a)
        self.b1b = FoldedUnit(inception.b1b)
        self.b2a = FoldedUnit(inception.b2a)
        self.b2b = FoldedUnit(inception.b2b)
        self.b3b = FoldedUnit(inception.b3b)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to (B, b0 + b1b + b2b + b3b, T, H, W)."""
        pooled = max_pool_same(x, (3, 3, 3), (1, 1, 1))
        branches = self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)
        return torch.cat(branches, dim=1)


class InferenceI3D(nn.Module):
    """The inference form of a trained :class:`I3D`; it shares no memory with it."""

    def __init__(self, network: I3D) -> None:
        super().__init__()
        self.in_channels = network.in_channels
        self.layers = nn.ModuleDict(
            {
                name: FoldedUnit(layer) if isinstance(layer, Unit) else FoldedInception(layer)
                for name, layer in network.layers.items()
                if isinstance(layer, Unit | Inception)
            }
        )
        self.classifier = nn.Linear(network.classifier.in_features, network.classifier.out_features)
        self.classifier.load_state_dict(network.classifier.state_dict())
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, T, S, S) in [-1, 1] to features (B, 1024) and logits (B, classes)."""
        x = x.contiguous(memory_format=torch.channels_last_3d)
        for name in END_POINTS:
            x = max_pool_same(x, *POOLS[name]) if name in POOLS else self.layers[name](x)
        return pooled_features(x), self.classifier(pooled_windows(x))
