"""From a plan of videos to the tensors of one training step."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from vidkd.distillation.data import VideoFeatures
from vidkd.distillation.storage import RowStorage, TeacherMaps, batches_ahead, readers_for
from vidkd.recipe import DistillationSettings
from vidkd.recipe.training import OptimiserSettings
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
        events: (E, 4) float32: row, class, start and end of every labelled segment, in snippets.
    """

    inputs: Tensor
    mask: Tensor
    targets: Tensor
    labelled: Tensor
    anchors: Tensor
    teachers: tuple[TeacherBatch, ...]
    events: Tensor = field(default_factory=lambda: torch.zeros(0, 4))

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
        features: RowStorage,
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
        stores = [features, *(maps.storage for maps in teachers)]
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
            events=_events(chosen, cuts),
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


def _events(videos: Sequence[VideoFeatures], cuts: Sequence[slice]) -> Tensor:
    """Return row, class, start and end of the segments, counted from where each cut begins."""
    rows = []
    for row, (video, cut) in enumerate(zip(videos, cuts, strict=True)):
        events = video.events - np.array([0, cut.start, cut.start], dtype=np.float32)
        rows.append(np.insert(events, 0, row, axis=1))
    return torch.from_numpy(np.concatenate(rows).astype(np.float32))


@dataclass(frozen=True)
class BatchPlan:
    """The videos of one training step.

    Attributes:
        videos: numbers of the B videos; each has the classification, the global and the
            boundary loss.
        anchors: places in ``videos`` of the P positives of the atomic loss.
        negatives: for each of them the numbers of N videos with another label set.
    """

    videos: tuple[int, ...]
    anchors: tuple[int, ...] = ()
    negatives: tuple[tuple[int, ...], ...] = ()


def padded(
    rows: Sequence[Tensor],
    longest: int,
    *,
    dtype: torch.dtype | None = None,
    pinned: bool = False,
) -> Tensor:
    """Stack (T_i, D) tensors into (B, ``longest``, D), zero after the end of each.

    Args:
        rows: of one type.
        longest: at least the longest T_i.
        dtype: of the result; None keeps that of the rows.
        pinned: in memory from which a GPU copies while the processor works on.
    """
    shape = (len(rows), longest, rows[0].shape[-1])
    stacked = torch.empty(shape, dtype=dtype or rows[0].dtype, pin_memory=pinned)
    for number, item in enumerate(rows):
        stacked[number, : len(item)] = item
        stacked[number, len(item) :] = 0
    return stacked


def plain_batches(count: int, batch_size: int, rng: np.random.Generator) -> list[BatchPlan]:
    """Cut a random order of ``count`` videos into batches; the last may be smaller."""
    order = rng.permutation(count).tolist()
    return [
        BatchPlan(tuple(order[start : start + batch_size])) for start in range(0, count, batch_size)
    ]


def contrastive_batches(
    labels: Sequence[Hashable], batch_size: int, negatives: int, rng: np.random.Generator
) -> list[BatchPlan]:
    """Cut a random order of the videos into batches of positives and their negatives.

    A batch of B videos has P = B / (N + 1) positives with N negatives each; the negatives are
    the other videos of the batch. Every video comes once per epoch, in one of the two roles, and
    the order changes from epoch to epoch. When none of the videos left in the epoch can serve as
    a negative, one is drawn from the whole set and only its teacher's features are used.

    Args:
        labels: one label set per video; a negative is a video with a different one. When all
            are equal, any other video serves; the caller then contrasts only the snippets whose
            own labels differ (see ``has_contrast``).
        batch_size: B, at least N + 1.
        negatives: N.
        rng: the only source of randomness.
    """
    contrast = has_contrast(labels)
    left = rng.permutation(len(labels)).tolist()
    plans = []
    while left:
        videos: list[int] = []
        anchors: list[int] = []
        chosen: list[tuple[int, ...]] = []
        for _ in range(max(1, batch_size // (negatives + 1))):
            if not left or len(videos) + negatives >= batch_size:
                break
            anchor = left.pop(0)
            anchors.append(len(videos))
            videos.append(anchor)
            partners = []
            for _ in range(negatives):
                place = _first_other(left, labels, anchor, contrast)
                if place is None:
                    drawn = _draw_other(labels, anchor, contrast, rng)
                    if drawn is not None:
                        partners.append(drawn)
                else:
                    partner = left.pop(place)
                    partners.append(partner)
                    videos.append(partner)
            chosen.append(tuple(partners))
        while left and len(videos) < batch_size:
            videos.append(left.pop(0))
        plans.append(BatchPlan(tuple(videos), tuple(anchors), tuple(chosen)))
    return plans


def has_contrast(labels: Sequence[Hashable]) -> bool:
    """Say whether at least two videos have different label sets."""
    return len(set(labels)) > 1


def _first_other(
    left: Sequence[int], labels: Sequence[Hashable], anchor: int, contrast: bool
) -> int | None:
    for place, video in enumerate(left):
        if not contrast or labels[video] != labels[anchor]:
            return place
    return None


def _draw_other(
    labels: Sequence[Hashable], anchor: int, contrast: bool, rng: np.random.Generator
) -> int | None:
    others = [
        video
        for video in range(len(labels))
        if video != anchor and (not contrast or labels[video] != labels[anchor])
    ]
    return int(rng.choice(others)) if others else None


def crop_starts(
    lengths: Sequence[int], longest: int | None, rng: np.random.Generator
) -> Iterator[int]:
    """Yield for each length where a training sequence of at most ``longest`` snippets starts."""
    for length in lengths:
        spare = 0 if longest is None else max(0, length - longest)
        yield int(rng.integers(spare + 1)) if spare else 0
