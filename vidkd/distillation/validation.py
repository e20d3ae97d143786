"""Frame mAP on the validation subset after every epoch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from vidkd.annotations import Annotations, Segment
from vidkd.detection.segments import clear_candidates
from vidkd.detection.student import run_student
from vidkd.distillation.batches import padded
from vidkd.distillation.data import VideoFeatures
from vidkd.distillation.losses import classification_loss
from vidkd.distillation.storage import RowStorage, batches_ahead, readers_for
from vidkd.evaluation import DenseScores, Detection
from vidkd.evaluation.calibration import Affine, fit_classes
from vidkd.evaluation.events import ClassEvents
from vidkd.evaluation.frames import FrameComparison, frame_grid
from vidkd.evaluation.predictions import Candidates
from vidkd.evaluation.result import mean_over_classes
from vidkd.evaluation.thresholds import LEAST, best_threshold, best_thresholds
from vidkd.networks import TemporalFilter
from vidkd.networks.segment_head import Proposals
from vidkd.workers import prefetched

_BATCH = 16
_PRIOR_EVENTS = 10
_TIOU = 0.5


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
        features: RowStorage,
        annotations: Annotations,
        device: torch.device,
    ) -> None:
        self._sequences = sequences
        self._features = features
        # Videos that were left out for want of features would count as missed.
        pts = {item.id: item.pts for item in sequences}
        videos = {name: video for name, video in annotations.videos.items() if name in pts}
        truth = replace(annotations, videos=videos)
        rows = {name: (np.zeros((len(times), 0)), times) for name, times in pts.items()}
        grid = frame_grid(truth, DenseScores(truth.classes, rows), None)
        self._classes, self._comparison = truth.classes, FrameComparison(truth, grid, pts)
        self._targets = np.concatenate([_targets(item).numpy() for item in sequences])
        self._device = device
        # Videos of similar length share a batch, so that little is computed on padding.
        order = sorted(range(len(sequences)), key=lambda number: len(sequences[number]))
        self._batches = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
        self._readers = readers_for([features])
        longest = len(sequences[order[-1]])
        self._ahead = batches_ahead(4 * _BATCH * longest * features.width)

    @torch.no_grad()
    def __call__(self, model: TemporalFilter) -> Validation:
        """Score the validation videos.

        Args:
            model: in evaluation mode.
        """
        scores: dict[str, np.ndarray] = {}
        segments: dict[str, Proposals] = {}
        losses, snippets = 0.0, 0
        made = prefetched(self._assemble, self._batches, self._readers, self._ahead)
        with contextlib.closing(made):
            for numbers, (inputs, mask, targets) in zip(self._batches, made, strict=True):
                rows = inputs.to(self._device, non_blocking=True).float()
                found = run_student(model, rows, mask.to(self._device))
                for number, output, wanted in zip(numbers, found, targets, strict=True):
                    video, logits = self._sequences[number], torch.from_numpy(output.logits)
                    count = len(video)
                    whole = torch.ones(1, count, dtype=torch.bool)
                    loss = classification_loss(logits[None], wanted[None, :count].float(), whole)
                    losses += float(loss) * count
                    snippets += count
                    scores[video.id] = logits.sigmoid().numpy()
                    if output.proposals is not None:
                        segments[video.id] = output.proposals
        per_class = self._comparison.aps(
            scores, self._classes, self._classes, threads=torch.get_num_threads()
        )
        frame_map = mean_over_classes(per_class, present_only=True)
        assert isinstance(frame_map, float)  # not by tIoU
        return Validation(
            frame_map,
            losses / snippets,
            np.concatenate([scores[item.id] for item in self._sequences]),
            self._targets,
            {item.id: (segments[item.id], item.events) for item in self._sequences}
            if segments
            else {},
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
        segments: by video, what the segment head proposes and the events, (M, 3) class, start and
            end, both in snippets; empty without a head.
    """

    frame_map: float
    loss: float
    probabilities: np.ndarray
    targets: np.ndarray
    segments: Mapping[str, tuple[Proposals, np.ndarray]] = field(default_factory=dict)

    def thresholds(self) -> list[float]:
        """Return the probability of each class at which F1 is greatest on these snippets."""
        return best_thresholds(self.probabilities, self.targets)

    def segment_thresholds(self) -> list[float] | None:
        """Return the score of each class at which F1 of its segments is greatest at a tIoU of 0.5.

        It is drawn towards the one that is best for all classes together, in logits, as if that
        rested on ten events: the best threshold of a few events fits those few. None without a
        segment head.
        """
        outcomes = self._segment_outcomes()
        if outcomes is None:
            return None
        scores, hits = (np.concatenate(part) for part in zip(*outcomes, strict=True))
        common = best_threshold(scores, hits)
        found = []
        for scores, hits in outcomes:
            own, events = best_threshold(scores, hits), int(hits.sum())
            odds = (events * _log_odds(own) + _PRIOR_EVENTS * _log_odds(common)) / (
                events + _PRIOR_EVENTS
            )
            found.append(1 / (1 + math.exp(-odds)))
        return found

    def calibration(self, *, per_class: bool) -> list[Affine]:
        """Return scale and bias of each class that make probabilities of these scores."""
        return fit_classes(list(self.probabilities.T), list(self.targets.T), per_class=per_class)

    def segment_calibration(self, *, per_class: bool) -> list[Affine] | None:
        """Return the same for scores of segments, right at a tIoU of 0.5; None without a head."""
        outcomes = self._segment_outcomes()
        if outcomes is None:
            return None
        # Missed events have no score.
        found = [(scores[scores > 0], hits[scores > 0]) for scores, hits in outcomes]
        scores, hits = zip(*found, strict=True)
        return fit_classes(scores, hits, per_class=per_class)

    def _segment_outcomes(self) -> list[tuple[np.ndarray, np.ndarray]] | None:
        """Return by class what `_outcomes` says; None without a segment head."""
        if not self.segments:
            return None
        names = [str(k) for k in range(self.targets.shape[1])]
        found: dict[str, list[Detection]] = {}
        truth: dict[str, list[Segment]] = {}
        for video, (inside, events) in self.segments.items():
            parts = Candidates(inside.label, inside.score, inside.start, inside.end)
            found[video] = clear_candidates(parts, names, threshold=LEAST)
            truth[video] = [Segment(float(a), float(b), str(int(k))) for k, a, b in events]
        return [_outcomes(truth, found, name) for name in names]


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _outcomes(
    truth: Mapping[str, list[Segment]], found: Mapping[str, list[Detection]], name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return score and hit of every detection of a class, and a hit without score per miss."""
    own = {video: [item for item in items if item.label == name] for video, items in found.items()}
    wanted = {
        video: [item for item in items if item.label == name] for video, items in truth.items()
    }
    events = ClassEvents(wanted, own)
    scores = -np.sort([-item.score for items in own.values() for item in items])
    hits = events.greedy(_TIOU)
    missed = events.positives - int(hits.sum())
    return (
        np.concatenate([scores, np.zeros(missed)]),
        np.concatenate([hits, np.ones(missed, dtype=bool)]),
    )


def _targets(video: VideoFeatures) -> Tensor:
    if video.targets is None:
        raise ValueError(f"video {video.id} has no labels to validate on")
    return video.targets
