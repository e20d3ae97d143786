"""Frame mAP on the validation subset after every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vidkd.annotations import Annotations
from vidkd.distillation.data import Features, VideoFeatures
from vidkd.distillation.losses import classification_loss
from vidkd.distillation.teachers import padded
from vidkd.evaluation import DenseScores, evaluate
from vidkd.networks import TemporalFilter

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
        names = {item.id for item in sequences}
        videos = {name: video for name, video in annotations.videos.items() if name in names}
        self._annotations = replace(annotations, videos=videos)
        self._device = device
        # Videos of similar length share a batch, so that little is computed on padding.
        self._order = sorted(range(len(sequences)), key=lambda number: len(sequences[number]))

    @torch.no_grad()
    def __call__(self, model: TemporalFilter) -> Validation:
        """Score the validation videos.

        Args:
            model: in evaluation mode.
        """
        videos: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        losses, snippets = 0.0, 0
        for start in range(0, len(self._order), _BATCH):
            numbers = self._order[start : start + _BATCH]
            chosen = [self._sequences[number] for number in numbers]
            rows = [self._features[number] for number in numbers]
            steps = max(len(item) for item in rows)
            lengths = torch.tensor([len(item) for item in rows])
            mask = torch.arange(steps) < lengths[:, None]
            inputs = padded(rows, steps).to(self._device)
            logits = model(inputs, mask.to(self._device)).logits.cpu()
            count = int(lengths.sum())
            loss = classification_loss(logits, padded([_targets(v) for v in chosen], steps), mask)
            losses += float(loss) * count
            snippets += count
            probabilities = logits.sigmoid().numpy()
            for row, video in enumerate(chosen):
                videos[video.id] = (probabilities[row, : len(video)], video.pts)
        scores = DenseScores(self._annotations.classes, videos)
        found = evaluate(scores, self._annotations, "frame").map
        if isinstance(found, dict):
            raise TypeError("a frame protocol gives one number")
        probabilities = np.concatenate([videos[item.id][0] for item in self._sequences])
        targets = np.concatenate([_targets(item).numpy() > 0.5 for item in self._sequences])
        return Validation(found, losses / snippets, probabilities, targets)


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
    order = np.argsort(-probabilities, kind="stable")
    scores = probabilities[order].astype(np.float64)
    hits = np.cumsum(targets[order])
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + targets.sum())
    # Equal scores cannot be separated: only the last of a tie is a place to cut.
    f1[:-1][scores[:-1] == scores[1:]] = 0
    best = int(np.argmax(f1))
    lower = scores[best + 1] if best + 1 < len(scores) else 0.0
    return float(np.clip((scores[best] + lower) / 2, _LEAST, 1 - _LEAST))


def _targets(video: VideoFeatures) -> Tensor:
    if video.targets is None:
        raise ValueError(f"video {video.id} has no labels to validate on")
    return video.targets
