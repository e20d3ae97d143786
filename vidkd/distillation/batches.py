"""From a plan of videos to the tensors of one training step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidkd.distillation.data import Features, VideoFeatures
from vidkd.distillation.sampling import (
    BatchPlan,
    contrastive_batches,
    crop_starts,
    has_contrast,
    plain_batches,
)
from vidkd.distillation.teachers import TeacherMaps, padded
from vidkd.networks import TemporalOutput
from vidkd.recipe import DistillationSettings, OptimiserSettings


@dataclass(frozen=True)
class TeacherBatch:
    """One teacher's part of a batch; see ``terms.Comparison``."""

    output: TemporalOutput
    negatives: Tensor
    negative_mask: Tensor
    phi: float


@dataclass(frozen=True)
class Batch:
    """The tensors of one training step.

    Attributes:
        inputs: (B, T, D) float32.
        mask: (B, T) bool.
        targets: (B, T, K), zero where nothing is known.
        labelled: (B, T) bool: the mask, without the videos that have no labels.
        anchors: (P,) rows that are positives of the atomic loss.
        teachers: one entry per teacher.
    """

    inputs: Tensor
    mask: Tensor
    targets: Tensor
    labelled: Tensor
    anchors: Tensor
    teachers: tuple[TeacherBatch, ...]


class TrainingSet:
    """The training videos, cut into batches anew in every epoch.

    Args:
        sequences: the videos.
        features: the student's features of them.
        teachers: the teachers' maps of them; empty for training without distillation.
        classes: K.
        optimiser: batch size, longest sequence and seed.
        distillation: number of negatives.
        device: where the batches are put.
    """

    def __init__(
        self,
        sequences: Sequence[VideoFeatures],
        features: Features,
        teachers: Sequence[TeacherMaps],
        classes: int,
        optimiser: OptimiserSettings,
        distillation: DistillationSettings,
        device: torch.device,
    ) -> None:
        self._sequences = sequences
        self._features = features
        self._teachers = teachers
        self._classes = classes
        self._optimiser = optimiser
        self._settings = distillation
        self._device = device
        # A video without labels is taken to differ from every other one.
        self._labels = [
            ("unlabelled", item.id) if item.labels is None else item.labels for item in sequences
        ]
        self.contrast = has_contrast(self._labels)
        self._snippets = sum(len(item) for item in sequences)

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield the batches of one epoch; ``rng`` alone decides what they are."""
        size = self._optimiser.batch_size
        if self._teachers and self._settings.atomic > 0:
            plans = contrastive_batches(self._labels, size, self._settings.negatives, rng)
        else:
            plans = plain_batches(len(self._sequences), size, rng)
        for plan in plans:
            yield self._assemble(plan, rng)

    def _assemble(self, plan: BatchPlan, rng: np.random.Generator) -> Batch:
        chosen = [self._sequences[video] for video in plan.videos]
        longest = self._optimiser.max_snippets
        starts = list(crop_starts([len(item) for item in chosen], longest, rng))
        cuts = [
            slice(start, len(item) if longest is None else min(len(item), start + longest))
            for start, item in zip(starts, chosen, strict=True)
        ]
        inputs = [self._features[video][cut] for video, cut in zip(plan.videos, cuts, strict=True)]
        steps = max(len(rows) for rows in inputs)
        lengths = torch.tensor([len(rows) for rows in inputs])
        mask = torch.arange(steps) < lengths[:, None]
        unknown = [item.targets is None for item in chosen]
        targets = [
            torch.zeros(len(rows), self._classes) if item.targets is None else item.targets[cut]
            for item, cut, rows in zip(chosen, cuts, inputs, strict=True)
        ]
        teachers = tuple(
            self._teacher_batch(maps, plan, cuts, mask, steps) for maps in self._teachers
        )
        to = self._device
        return Batch(
            inputs=padded(inputs, steps).to(to),
            mask=mask.to(to),
            targets=padded(targets, steps).to(to),
            labelled=(mask & ~torch.tensor(unknown)[:, None]).to(to),
            anchors=torch.tensor(plan.anchors, dtype=torch.long).to(to),
            teachers=teachers,
        )

    def _teacher_batch(
        self,
        maps: TeacherMaps,
        plan: BatchPlan,
        cuts: Sequence[slice],
        mask: Tensor,
        steps: int,
    ) -> TeacherBatch:
        outputs = [maps[video] for video in plan.videos]
        features = padded(
            [out.features[cut] for out, cut in zip(outputs, cuts, strict=True)], steps
        )
        logits = padded([out.logits[cut] for out, cut in zip(outputs, cuts, strict=True)], steps)
        count = self._settings.negatives
        negatives = features.new_zeros(len(plan.anchors), count, steps, features.shape[-1])
        negative_mask = torch.zeros(len(plan.anchors), count, steps, dtype=torch.bool)
        for row, (anchor, partners) in enumerate(zip(plan.anchors, plan.negatives, strict=True)):
            for column, partner in enumerate(partners):
                # "The same t" is counted from the start of the video, not of the part cut out.
                rows = maps[partner].features[cuts[anchor]]
                negatives[row, column, : len(rows)] = rows
                negative_mask[row, column, : len(rows)] = self._contrasting(
                    plan.videos[anchor], partner, cuts[anchor], len(rows)
                )
        if len(plan.anchors):
            negative_mask &= mask[list(plan.anchors)][:, None]
        # At least one, so that the critic stays defined in a batch without any negative.
        phi = max(1, int(negative_mask.sum())) / self._snippets
        to = self._device
        return TeacherBatch(
            TemporalOutput(features.to(to), logits.to(to)),
            negatives.to(to),
            negative_mask.to(to),
            phi,
        )

    def _contrasting(self, anchor: int, partner: int, cut: slice, count: int) -> Tensor:
        """Say which snippets of a negative may be contrasted with the positive, (count,)."""
        own, other = self._sequences[anchor].targets, self._sequences[partner].targets
        if self.contrast or own is None or other is None:
            return torch.ones(count, dtype=torch.bool)
        # Every video has the same label set: what differs is what happens at the moment.
        return (own[cut][:count] != other[cut][:count]).any(dim=1)
