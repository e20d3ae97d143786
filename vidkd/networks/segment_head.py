"""The segment head: a pyramid over time that says at every place what is done, from when to when.

Anchor-free detection as in Zhang, Wu and Li, "ActionFormer: Localizing Moments of Actions with
Transformers", ECCV 2022: from level to level time is halved, and each place of a level gives the
scores of all classes and the distances to the start and the end of the action around it. Time is
counted in snippets here: snippet t owns the cell [t, t + 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

# Share of places that hold an action before anything is learnt (Lin et al. 2017, "Focal Loss for
# Dense Object Detection", section 4.1).
_PRIOR = 0.01
# Raw proposals below this score are nothing.
_LEAST = 1e-3


class Level(NamedTuple):
    """What the head says at one level of the pyramid, whose places are ``stride`` snippets apart.

    Place i lies at ``(i + 1/2) * stride`` snippets.
    """

    logits: Tensor
    """(B, K, P)."""
    distances: Tensor
    """(B, 2, P): to start and end, at least 0, in units of the stride."""
    mask: Tensor
    """(B, P) bool: places with a valid snippet."""
    stride: int


@dataclass(frozen=True)
class Proposals:
    """Segments of one video, before any suppression.

    Attributes:
        label: (N,) number of the class.
        score: (N,) in (0, 1).
        start: (N,) in snippets.
        end: (N,) in snippets, after the start.
    """

    label: np.ndarray
    score: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def dense(self, snippets: int, classes: int) -> np.ndarray:
        """Return (T, K) float32: the best score of what lies over the middle of each snippet."""
        painted = np.zeros((classes, snippets), dtype=np.float32)
        first = np.clip(np.ceil(self.start - 0.5), 0, snippets).astype(np.int64)
        last = np.clip(np.ceil(self.end - 0.5), 0, snippets).astype(np.int64)
        # The best comes last and stays.
        for n in np.argsort(self.score, kind="stable"):
            painted[self.label[n], first[n] : last[n]] = self.score[n]
        return painted.T


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of (B, C, T)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to (B, C, T)."""
        normed: Tensor = self.norm(x.transpose(1, 2))
        return normed.transpose(1, 2)


class _Tower(nn.Module):
    """Two convolutions of kernel 3 with normalisation and ReLU, then one to the outputs."""

    def __init__(self, channels: int, outputs: int, bias: float) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(nn.Conv1d(channels, channels, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(ChannelNorm(channels) for _ in range(2))
        self.output = nn.Conv1d(channels, outputs, 3, padding=1)
        self.output.bias = nn.Parameter(torch.full((outputs,), bias))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map x (B, C, P) with mask (B, 1, P) to (B, outputs, P)."""
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            x = torch.relu(norm(layer(x))).masked_fill(~mask, 0.0)
        found: Tensor = self.output(x)
        return found


class SegmentHead(nn.Module):
    """The pyramid and its two towers, which all levels share.

    Args:
        channels: C of the feature map.
        classes: K.
        levels: of the pyramid, one or more.
        dropout: probability.
    """

    def __init__(self, channels: int, classes: int, levels: int, dropout: float) -> None:
        super().__init__()
        self.halve = nn.ModuleList(
            nn.Conv1d(channels, channels, 3, stride=2, padding=1) for _ in range(levels - 1)
        )
        self.mix = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(channels, channels, 3, padding=1),
                nn.ReLU(),
                nn.Conv1d(channels, channels, 1),
                nn.Dropout(dropout),
            )
            for _ in range(levels - 1)
        )
        self.norms = nn.ModuleList(ChannelNorm(channels) for _ in range(levels))
        self.what = _Tower(channels, classes, -math.log((1 - _PRIOR) / _PRIOR))
        self.where = _Tower(channels, 2, 1.0)
        self.scale = nn.Parameter(torch.ones(levels))

    def forward(self, features: Tensor, mask: Tensor) -> list[Level]:
        """Look for segments.

        Args:
            features: (B, T, C) feature map.
            mask: (B, T) bool, True at valid snippets, which come first.
        """
        valid = mask.bool().unsqueeze(1)
        x = features.transpose(1, 2).masked_fill(~valid, 0.0)
        found = []
        for number, norm in enumerate(self.norms):
            if number:
                odd = (0, valid.shape[-1] % 2)
                valid = nn.functional.pad(valid, odd).unflatten(-1, (-1, 2)).any(-1)
                x = self.halve[number - 1](x).masked_fill(~valid, 0.0)
                x = (x + self.mix[number - 1](x)).masked_fill(~valid, 0.0)
            normed = norm(x).masked_fill(~valid, 0.0)
            distances = nn.functional.softplus(self.where(normed, valid) * self.scale[number])
            found.append(Level(self.what(normed, valid), distances, valid[:, 0], 2**number))
        return found


def proposals(levels: list[Level], row: int, snippets: int) -> Proposals:
    """Return all that the head found in one row of a batch, within its ``snippets``."""
    label, score, start, end = [], [], [], []
    for level in levels:
        scores = (level.logits[row].float().sigmoid() * level.mask[row]).cpu().numpy()
        distances = level.distances[row].float().cpu().numpy() * level.stride
        classes, places = np.nonzero(scores > _LEAST)
        middle = (places + 0.5) * level.stride
        label.append(classes)
        score.append(scores[classes, places])
        start.append(np.clip(middle - distances[0, places], 0, snippets))
        end.append(np.clip(middle + distances[1, places], 0, snippets))
    parts = [np.concatenate(part) for part in (label, score, start, end)]
    keep = parts[3] > parts[2]
    return Proposals(*(part[keep] for part in parts))
