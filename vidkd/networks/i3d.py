"""Inception-I3D (Carreira and Zisserman 2017), in the form it is trained in.

Inception-v1 inflated to three dimensions, with TensorFlow's "SAME" padding and batch
normalisation with epsilon 1e-3. :mod:`vidkd.networks.i3d_inference` computes the same numbers
faster for inference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from vidkd.networks.encoders import EncoderNetwork

BATCH_NORM_EPSILON = 1e-3
FEATURE_DIM = 1024

Size3 = tuple[int, int, int]

CONVOLUTIONS: dict[str, tuple[int, int, int, int]] = {
    # end point: input channels (0: those of the video), output channels, kernel, stride
    "Conv3d_1a_7x7": (0, 64, 7, 2),
    "Conv3d_2b_1x1": (64, 64, 1, 1),
    "Conv3d_2c_3x3": (64, 192, 3, 1),
}
POOLS: dict[str, tuple[Size3, Size3]] = {
    "MaxPool3d_2a_3x3": ((1, 3, 3), (1, 2, 2)),
    "MaxPool3d_3a_3x3": ((1, 3, 3), (1, 2, 2)),
    "MaxPool3d_4a_3x3": ((3, 3, 3), (2, 2, 2)),
    "MaxPool3d_5a_2x2": ((2, 2, 2), (2, 2, 2)),
}
INCEPTIONS: dict[str, tuple[int, int, int, int, int, int, int]] = {
    # end point: input channels, then the outputs of branches 0, 1a, 1b, 2a, 2b and 3b
    "Mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "Mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "Mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "Mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "Mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "Mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "Mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "Mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "Mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}
END_POINTS: tuple[str, ...] = (
    "Conv3d_1a_7x7",
    "MaxPool3d_2a_3x3",
    "Conv3d_2b_1x1",
    "Conv3d_2c_3x3",
    "MaxPool3d_3a_3x3",
    "Mixed_3b",
    "Mixed_3c",
    "MaxPool3d_4a_3x3",
    "Mixed_4b",
    "Mixed_4c",
    "Mixed_4d",
    "Mixed_4e",
    "Mixed_4f",
    "MaxPool3d_5a_2x2",
    "Mixed_5b",
    "Mixed_5c",
)
LAST = END_POINTS[-1:]
"""Of which features are taken, unless a card says otherwise."""


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's "SAME" padding before and after one dimension.

    The output has ``ceil(size / stride)`` entries; an odd total puts the extra one after, which
    is why strided layers are padded asymmetrically at even sizes.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: Size3, stride: Size3) -> Tensor:
    """Pad (B, C, T, H, W) with zeros as :func:`same_padding` says."""
    padding: list[int] = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        padding.extend(same_padding(size, k, s))
    return functional.pad(x, padding) if any(padding) else x


def max_pool_same(x: Tensor, kernel: Size3, stride: Size3) -> Tensor:
    """Max-pool (B, C, T, H, W) with "SAME" padding, of which no value ever wins.

    PyTorch pads symmetrically; the extra entry after the end that "SAME" asks for is what
    ``ceil_mode`` adds, so that nothing needs to be copied into a padded tensor. This holds for
    the pools of this network, not for an even kernel at stride 1.
    """
    before = [
        same_padding(size, k, s)[0] for size, k, s in zip(x.shape[2:], kernel, stride, strict=True)
    ]
    return functional.max_pool3d(x, kernel, stride, before, ceil_mode=True)


def pooled_features(mixed: Tensor) -> Tensor:
    """Mean of an end point (B, D, t, h, w) over time and space: features (B, D)."""
    return mixed.mean(dim=(2, 3, 4))


def feature_width(end_points: Sequence[str]) -> int:
    """Return D of the features of some Mixed end points, side by side."""
    channels = (INCEPTIONS[name] for name in end_points)
    return sum(b0 + b1 + b2 + b3 for _, b0, _, b1, _, b2, b3 in channels)


def through(layers: nn.ModuleDict, x: Tensor, end_points: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Send clips through the network.

    Args:
        layers: the end points that compute something.
        x: (B, C, T, S, S) in [-1, 1].
        end_points: of which features are taken.

    Returns:
        features (B, D), in the order of the network, and Mixed_5c: (B, 1024, ceil(T / 8),
        ceil(S / 32), ceil(S / 32)).
    """
    features = []
    for name in END_POINTS:
        x = max_pool_same(x, *POOLS[name]) if name in POOLS else layers[name](x)
        if name in end_points:
            features.append(pooled_features(x))
    return features[0] if len(features) == 1 else torch.cat(features, dim=1), x


def pooled_windows(mixed_5c: Tensor) -> Tensor:
    """What the classifier sees, averaged over time: (B, 1024, t, h, w) to (B, 1024).

    The original averages windows of 2 x 7 x 7 at stride 1, classifies each and averages the
    logits over time. At crop 224 a window spans the whole picture; at other crops the whole
    picture is averaged here, since 7 x 7 windows would not fit or would leave a map of logits.
    The classifier is linear, so that averaging before it gives the same logits.
    """
    rows = mixed_5c.mean(dim=(3, 4))
    return functional.avg_pool1d(rows, min(2, rows.shape[2]), 1).mean(dim=2)


class Unit(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.kernel: Size3 = (kernel, kernel, kernel)
        self.stride: Size3 = (stride, stride, stride)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, bias=False)
        self.norm = nn.BatchNorm3d(out_channels, eps=BATCH_NORM_EPSILON, momentum=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to (B, C', ceil(T / stride), ...)."""
        return functional.relu(self.norm(self.conv(pad_same(x, self.kernel, self.stride))))


class Inception(nn.Module):
    """Four parallel branches whose outputs are joined along the channels."""

    unit: ClassVar[Callable[..., nn.Module]] = Unit

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        inputs, b0, b1a, b1b, b2a, b2b, b3b = channels
        self.b0 = self.unit(inputs, b0, 1)
        self.b1a = self.unit(inputs, b1a, 1)
        self.b1b = self.unit(b1a, b1b, 3)
        self.b2a = self.unit(inputs, b2a, 1)
        self.b2b = self.unit(b2a, b2b, 3)
        self.b3b = self.unit(inputs, b3b, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T, H, W), or pictures without T, to b0 + b1b + b2b + b3b channels."""
        pooled = self.pooled(x)
        branches = self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)
        return torch.cat(branches, dim=1)

    def pooled(self, x: Tensor) -> Tensor:
        """Return the largest of the neighbours of every place."""
        return max_pool_same(x, (3, 3, 3), (1, 1, 1))


class I3D(EncoderNetwork):
    """Inception-I3D with its classifier.

    Args:
        in_channels: 3 for RGB, 2 for optical flow.
        classes: number of logits.
        dropout: probability before the classifier, in training only.
        feature_layers: Mixed end points whose means are the features; the classifier sees
            Mixed_5c.
    """

    classifier: nn.Linear

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 400,
        dropout: float = 0.5,
        feature_layers: Sequence[str] = LAST,
    ) -> None:
        super().__init__()
        self.feature_layers = tuple(feature_layers)
        self.width = feature_width(feature_layers)
        self.in_channels = in_channels
        layers: dict[str, nn.Module] = {}
        for name in END_POINTS:
            if name in CONVOLUTIONS:
                inputs, outputs, kernel, stride = CONVOLUTIONS[name]
                layers[name] = Unit(inputs or in_channels, outputs, kernel, stride)
            elif name in INCEPTIONS:
                layers[name] = Inception(INCEPTIONS[name])
        self.layers = nn.ModuleDict(layers)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(FEATURE_DIM, classes)

    def features(self, x: Tensor) -> Tensor:
        """Map snippets (B, C, T, S, S) in [-1, 1] to features (B, D)."""
        return through(self.layers, x, self.feature_layers)[0]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map clips (B, C, T, S, S) in [-1, 1] to features (B, D) and logits (B, classes)."""
        features, mixed = through(self.layers, x, self.feature_layers)
        return features, self.classifier(self.dropout(pooled_windows(mixed)))

    def inference(self) -> nn.Module:
        """Return a copy that computes the same faster, without gradients."""
        from vidkd.networks.i3d_inference import InferenceI3D

        return InferenceI3D(self)

    def stages(self) -> dict[str, nn.Module]:
        """Return the end points, first to last; those that pool have nothing to freeze."""
        layers = self.layers
        return {name: layers[name] if name in layers else nn.Identity() for name in END_POINTS}

    def replace_classifier(self, classifier: nn.Linear, dropout: float) -> None:
        """Put another classifier in place, behind dropout of that probability in training."""
        self.classifier, self.dropout = classifier, nn.Dropout(dropout)
