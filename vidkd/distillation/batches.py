"""From a plan of videos to the tensors of one training step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

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
from vidkd.distillation.storage import batches_ahead, readers_for
from vidkd.distillation.teachers import TeacherMaps, padded
from vidkd.recipe import DistillationSettings, OptimiserSettings
from vidkd.workers import prefetched


@dataclass(frozen=True)
class TeacherBatch:
    """What one teacher says of a batch.

    Attributes:
        label: name of the teacher in the metrics.
        features: (B, T, C) feature map.
        logits: (B, T, K).
        negatives: (P, N, T, C) feature maps of other videos, for the P anchors.
        negative_mask: (P, N, T) bool, where they may be contrasted.
        phi: see ``losses.atomic_loss``.
        scale: standard deviation of the teacher's feature map over the training videos, the unit
            in which features are compared.
    """

    label: str
    features: Tensor
    logits: Tensor
    negatives: Tensor
    negative_mask: Tensor
    phi: float
    scale: float


@dataclass(frozen=True)
class Batch:
    """The tensors of one training step.

    Attributes:
        inputs: (B, T, D) float32.
        mask: (B, T) bool.
        targets: (B, T, K) float32, zero where nothing is known.
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

    def to(self, device: torch.device) -> Batch:
        """Return the same on a device; what came as float16 or bool is widened there."""
        moved = _moved(self, device)
        return replace(
            moved,
            inputs=moved.inputs.float(),
            targets=moved.targets.float(),
            teachers=tuple(_moved(item, device) for item in self.teachers),
        )


Part = TypeVar("Part", Batch, TeacherBatch)


def _moved(part: Part, device: torch.device) -> Part:
    tensors: dict[str, Any] = {
        name: value.to(device, non_blocking=True)
        for name, value in vars(part).items()
        if isinstance(value, Tensor)
    }
    return replace(part, **tensors)


class TrainingSet:
    """The training videos, cut into batches anew in every epoch.

    Batches are read and put together by background threads. What they hold does not depend on
    where the features are kept, nor on the number of threads: everything random is drawn before
    an epoch begins.

    Args:
        sequences: the videos.
        features: the student's features of them.
        teachers: the teachers' maps of them; empty for training without distillation.
        classes: K.
        optimiser: batch size, longest sequence and seed.
        distillation: number of negatives.
        device: where the batches are put.
        readers: number of threads; None chooses by where the features are kept.

    Attributes:
        contrast: whether at least two videos have different labels.
        features: as given.
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
        readers: int | None = None,
    ) -> None:
        self._sequences = sequences
        self.features = features
        self._teachers = teachers
        self._classes = classes
        self._optimiser = optimiser
        self._settings = distillation
        self._device = device
        self._on_gpu = device.type == "cuda"
        # A video without labels is taken to differ from every other one.
        self._labels = [
            ("unlabelled", item.id) if item.labels is None else item.labels for item in sequences
        ]
        self.contrast = has_contrast(self._labels)
        self._snippets = sum(len(item) for item in sequences)
        stores = [features.storage, *(maps.storage for maps in teachers)]
        self._readers = readers_for(stores) if readers is None else readers
        longest = max(len(item) for item in sequences)
        steps = min(longest, optimiser.max_snippets or longest)
        # The batch's own rows, and as many negatives as positives and more at the most.
        width = sum(item.width for item in stores) * (1 + distillation.negatives) + classes
        self._ahead = batches_ahead(4 * optimiser.batch_size * steps * width)

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield the batches of one epoch; ``rng`` alone decides what they are.

        Raises:
            VidkdError: the features cannot be read any more.
        """
        size = self._optimiser.batch_size
        if self._teachers and self._settings.atomic > 0:
            plans = contrastive_batches(self._labels, size, self._settings.negatives, rng)
        else:
            plans = plain_batches(len(self._sequences), size, rng)
        work = [(plan, self._cuts(plan, rng)) for plan in plans]
        made = prefetched(self.assemble, work, self._readers, self._ahead)
        with contextlib.closing(made):
            for batch in made:
                yield batch.to(self._device)

    def _cuts(self, plan: BatchPlan, rng: np.random.Generator) -> list[slice]:
        lengths = [len(self._sequences[video]) for video in plan.videos]
        longest = self._optimiser.max_snippets
        return [
            slice(start, length if longest is None else min(length, start + longest))
            for start, length in zip(crop_starts(lengths, longest, rng), lengths, strict=True)
        ]

    def assemble(self, work: tuple[BatchPlan, list[slice]]) -> Batch:
        """Put one batch together in main memory, from its videos and the part of each."""
        plan, cuts = work
        chosen = [self._sequences[video] for video in plan.videos]
        inputs = [
            self.features.read(video, cut) for video, cut in zip(plan.videos, cuts, strict=True)
        ]
        steps = max(len(rows) for rows in inputs)
        lengths = torch.tensor([len(rows) for rows in inputs])
        mask = torch.arange(steps) < lengths[:, None]
        unknown = [item.targets is None for item in chosen]
        targets = [
            torch.zeros(len(rows), self._classes, dtype=torch.bool)
            if item.targets is None
            else item.targets[cut]
            for item, cut, rows in zip(chosen, cuts, inputs, strict=True)
        ]
        return Batch(
            inputs=self._padded(inputs, steps),
            mask=mask,
            targets=self._padded(targets, steps),
            labelled=mask & ~torch.tensor(unknown)[:, None],
            anchors=torch.tensor(plan.anchors, dtype=torch.long),
            teachers=tuple(
                self._teacher_batch(maps, plan, cuts, mask, steps) for maps in self._teachers
            ),
        )

    def _padded(self, rows: Sequence[Tensor], steps: int) -> Tensor:
        # A GPU widens numbers itself, so that fewer bytes have to get there.
        return padded(
            rows, steps, dtype=None if self._on_gpu else torch.float32, pinned=self._on_gpu
        )

    def _teacher_batch(
        self,
        maps: TeacherMaps,
        plan: BatchPlan,
        cuts: Sequence[slice],
        mask: Tensor,
        steps: int,
    ) -> TeacherBatch:
        outputs = [maps.read(video, cut) for video, cut in zip(plan.videos, cuts, strict=True)]
        features = self._padded([out.features for out in outputs], steps)
        logits = self._padded([out.logits for out in outputs], steps)
        count = self._settings.negatives
        negatives = torch.zeros(
            (len(plan.anchors), count, steps, features.shape[-1]), pin_memory=self._on_gpu
        )
        negative_mask = torch.zeros(len(plan.anchors), count, steps, dtype=torch.bool)
        for row, (anchor, partners) in enumerate(zip(plan.anchors, plan.negatives, strict=True)):
            for column, partner in enumerate(partners):
                # "The same t" is counted from the start of the video, not of the part cut out.
                rows = maps.read(partner, cuts[anchor]).features
                negatives[row, column, : len(rows)] = rows
                negative_mask[row, column, : len(rows)] = self._contrasting(
                    plan.videos[anchor], partner, cuts[anchor], len(rows)
                )
        if len(plan.anchors):
            negative_mask &= mask[list(plan.anchors)][:, None]
        # At least one, so that the critic stays defined in a batch without any negative.
        phi = max(1, int(negative_mask.sum())) / self._snippets
        return TeacherBatch(maps.label, features, logits, negatives, negative_mask, phi, maps.scale)

    def _contrasting(self, anchor: int, partner: int, cut: slice, count: int) -> Tensor:
        """Say which snippets of a negative may be contrasted with the positive, (count,)."""
        own, other = self._sequences[anchor].targets, self._sequences[partner].targets
        if self.contrast or own is None or other is None:
            return torch.ones(count, dtype=torch.bool)
        # Every video has the same label set: what differs is what happens at the moment.
        return (own[cut][:count] != other[cut][:count]).any(dim=1)
