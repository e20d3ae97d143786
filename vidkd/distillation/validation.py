"""Frame mAP on the validation subset after every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
    def __call__(self, model: TemporalFilter) -> tuple[float, float]:
        """Return the frame mAP over the classes present, and the mean cross-entropy.

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
        return found, losses / snippets


def _targets(video: VideoFeatures) -> Tensor:
    if video.targets is None:
        raise ValueError(f"video {video.id} has no labels to validate on")
    return video.targets
