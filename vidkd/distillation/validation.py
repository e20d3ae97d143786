"""Frame mAP on the validation subset after every epoch."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vidkd.annotations import Annotations
from vidkd.distillation.data import Features, VideoFeatures
from vidkd.distillation.frame_map import FrameMap
from vidkd.distillation.losses import classification_loss
from vidkd.distillation.storage import batches_ahead, readers_for
from vidkd.distillation.teachers import padded
from vidkd.networks import TemporalFilter
from vidkd.workers import prefetched

_BATCH = 16
_FEW = 10
_LEAST = 0.02


class Validator:
    """Scores a filter on the validation videos.

    Args:
        sequences: the validation videos.
        features: their features.
        annotations: the ground truth of these videos.
        device: where the filter is.
    """

    def __init__(
        self,
        sequences: Sequence[VideoFeatures],
        features: Features,
        annotations: Annotations,
        device: torch.device,
    ) -> None:
        self._sequences = sequences
        self._features = features
        # Videos that were left out for want of features would count as missed.
        pts = {item.id: item.pts for item in sequences}
        videos = {name: video for name, video in annotations.videos.items() if name in pts}
        self._frame_map = FrameMap(replace(annotations, videos=videos), pts)
        self._targets = np.concatenate([_targets(item).numpy() for item in sequences])
        self._device = device
        # Videos of similar length share a batch, so that little is computed on padding.
        order = sorted(range(len(sequences)), key=lambda number: len(sequences[number]))
        self._batches = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
        self._readers = readers_for([features.storage])
        longest = len(sequences[order[-1]])
        self._ahead = batches_ahead(4 * _BATCH * longest * features.storage.width)

    @torch.no_grad()
    def __call__(self, model: TemporalFilter) -> Validation:
        """Score the validation videos.

        Args:
            model: in evaluation mode.
        """
        scores: dict[str, np.ndarray] = {}
        losses, snippets = 0.0, 0
        made = prefetched(self._assemble, self._batches, self._readers, self._ahead)
        with contextlib.closing(made):
            for numbers, (inputs, mask, targets) in zip(self._batches, made, strict=True):
                rows = inputs.to(self._device, non_blocking=True).float()
                logits = model(rows, mask.to(self._device)).logits.cpu()
                count = int(mask.sum())
                losses += float(classification_loss(logits, targets.float(), mask)) * count
                snippets += count
                probabilities = logits.sigmoid().numpy()
                for row, number in enumerate(numbers):
                    video = self._sequences[number]
                    scores[video.id] = probabilities[row, : len(video)]
        return Validation(
            self._frame_map(scores),
            losses / snippets,
            np.concatenate([scores[item.id] for item in self._sequences]),
            self._targets,
        )

    def _assemble(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return inputs (B, T, D), mask (B, T) and targets (B, T, K) of some videos."""
        rows = [self._features.read(number) for number in numbers]
        steps = max(len(item) for item in rows)
        lengths = torch.tensor([len(item) for item in rows])
        mask = torch.arange(steps) < lengths[:, None]
        targets = padded([_targets(self._sequences[number]) for number in numbers], steps)
        return padded(rows, steps, pinned=self._device.type == "cuda"), mask, targets


@dataclass(frozen=True)
class Validation:
    """What one validation found.

    Attributes:
        frame_map: over the classes present, in [0, 1]; NaN when there is none.
        loss: mean cross-entropy.
        probabilities: (N, K) of all snippets.
        targets: (N, K) bool.
    """

    frame_map: float
    loss: float
    probabilities: np.ndarray
    targets: np.ndarray

    def thresholds(self) -> list[float]:
        """Return the probability of each class at which F1 is greatest on these snippets.

        A class with few positive snippets takes the threshold that is best for all classes
        together, since its own would fit those few.
        """
        common = _best_threshold(self.probabilities.ravel(), self.targets.ravel())
        return [
            _best_threshold(self.probabilities[:, k], self.targets[:, k])
            if self.targets[:, k].sum() >= _FEW
            else common
            for k in range(self.targets.shape[1])
        ]


def _best_threshold(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the threshold of the greatest F1, halfway to the next lower score."""
    if not targets.any():
        return 0.5
    # F1 only rises where a positive is added: the scores of the positives are the places to cut,
    # each with all that have the same score. Few are positive, and plain sorting of the others is
    # far quicker than ranking everything.
    wanted = np.sort(probabilities[targets])
    others = np.sort(probabilities[~targets])
    cuts = np.unique(wanted)
    hits = len(wanted) - np.searchsorted(wanted, cuts)
    taken = hits + len(others) - np.searchsorted(others, cuts)
    f1 = 2 * hits / (taken + len(wanted))
    # The highest of equally good cuts.
    best = len(cuts) - 1 - int(np.argmax(f1[::-1]))
    score = cuts[best]
    below = [cuts[best - 1]] if best else []
    place = np.searchsorted(others, score)
    below += [others[place - 1]] if place else []
    lower = max(map(float, below), default=0.0)
    return float(np.clip((float(score) + lower) / 2, _LEAST, 1 - _LEAST))


def _targets(video: VideoFeatures) -> Tensor:
    if video.targets is None:
        raise ValueError(f"video {video.id} has no labels to validate on")
    return video.targets
