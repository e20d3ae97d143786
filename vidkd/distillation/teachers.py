"""Frozen teachers: their feature maps on the training videos."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vidkd.console import progress
from vidkd.distillation.data import Stream, VideoFeatures, find_stream, read_rows
from vidkd.distillation.storage import MemoryBudget, RowStorage
from vidkd.errors import CacheError, UsageError
from vidkd.files import sha256
from vidkd.networks import FilterHeader, TemporalFilter, TemporalOutput, load_temporal_filter


@dataclass(frozen=True)
class Teacher:
    """A trained filter that is not trained any more.

    Attributes:
        label: name of its terms in the metrics: the modality, numbered when it comes twice.
        path: the run folder.
        module: in evaluation mode, without gradients.
        header: what its weights belong to.
        stream: the features it sees.
        sha256: hash of the weights file.
    """

    label: str
    path: Path
    module: TemporalFilter
    header: FilterHeader
    stream: Stream
    sha256: str

    @property
    def name(self) -> str:
        """Name for the header of the student's weights."""
        return f"{self.header.modality} {self.header.encoder} {self.sha256[:12]}"


def load_teachers(
    runs: Sequence[Path],
    cache: Path,
    classes: Sequence[str],
    channels: int,
    device: torch.device,
) -> list[Teacher]:
    """Load the teachers of a distillation and find the features each of them sees.

    Args:
        runs: run folders, or weights files.
        cache: the cache folder.
        classes: the classes of the annotations, which must be the teachers' too.
        channels: C of the student, which must be the teachers' too.
        device: where the teachers run.

    Raises:
        WeightsError: a run has no readable weights.
        UsageError: a teacher knows other classes or has another C.
        CacheError: the features in the cache are not those the teacher was trained on.
    """
    teachers: list[Teacher] = []
    for run in runs:
        module, header = load_temporal_filter(run, device)
        if header.classes != tuple(classes):
            raise UsageError(
                f"this teacher knows {_names(header.classes)}, the annotations {_names(classes)}",
                path=run,
                remedy="train the teacher on the same annotation file",
            )
        if header.filter.channels != channels:
            raise UsageError(
                f"this teacher has {header.filter.channels} channels, the student {channels}",
                path=run,
                remedy=f"pass --channels {header.filter.channels}",
            )
        stream = find_stream(cache, header.modality, header.encoder)
        if stream.weights_sha256 != header.encoder_sha256 or stream.width != header.in_features:
            raise CacheError(
                f"these features are not those that teacher {run} was trained on",
                path=cache / "features" / header.encoder,
                remedy="train the teacher on this cache",
            )
        weights = run / "weights.safetensors" if run.is_dir() else run
        same = sum(teacher.header.modality == header.modality for teacher in teachers)
        label = f"{header.modality}{same + 1}" if same else header.modality
        teachers.append(Teacher(label, run, module, header, stream, sha256(weights)))
    return teachers


def _names(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:3])
    return f"{len(classes)} classes ({shown}{', ...' if len(classes) > 3 else ''})"


class TeacherMaps:
    """What one teacher makes of every training video, computed once.

    A frozen teacher in evaluation mode gives the same feature map in every epoch, so that
    training a student costs little more than training without a teacher. The maps are those of
    whole videos, also when the student trains on parts.

    Args:
        teacher: the teacher.
        sequences: the training videos.
        stream: number of the teacher's stream among the sequences' ``paths``.
        device: where the teacher runs.
        budget: decides whether the maps are kept in main memory.
        folder: where they are kept otherwise.

    Attributes:
        label: the teacher's name in the metrics.
        scale: the standard deviation of the feature map over the training videos: the root of the
            mean over channels of their variance, and 1 for a constant map.
        storage: where the maps are, logits after features.
    """

    def __init__(
        self,
        teacher: Teacher,
        sequences: Sequence[VideoFeatures],
        stream: int,
        device: torch.device,
        budget: MemoryBudget,
        folder: Path,
    ) -> None:
        self.label = teacher.label
        self._teacher = teacher
        self._device = device
        self._channels = teacher.header.filter.channels
        lengths = [len(item) for item in sequences]
        width = self._channels + len(teacher.header.classes)
        self.storage = RowStorage(lengths, width, torch.float32, budget, folder)
        moments = _Moments(self._channels)
        with progress(f"feature maps of the {teacher.label} teacher", len(lengths), "videos") as go:
            for number, item in enumerate(sequences):
                features, logits = self._compute(read_rows(item, stream))
                self.storage.write(number, torch.cat([features, logits], dim=1))
                moments.add(features)
                go(1)
        self.scale = moments.deviation()

    @torch.no_grad()
    def _compute(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        inputs = rows.to(self._device).float()[None]
        mask = torch.ones(inputs.shape[:2], dtype=torch.bool, device=self._device)
        output = self._teacher.module(inputs, mask)
        return output.features[0].cpu(), output.logits[0].cpu()

    def read(self, number: int, part: slice = slice(None)) -> TemporalOutput:
        """Return the feature map (T, C) and the logits (T, K) of a part of one training video."""
        rows = self.storage.read(number, part)
        return TemporalOutput(rows[:, : self._channels], rows[:, self._channels :])


class _Moments:
    """Sums over the rows of a feature map, (T, C) at a time."""

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._sum = torch.zeros(channels, dtype=torch.float64)
        self._squares = 0.0

    def add(self, features: Tensor) -> None:
        rows = features.double()
        self._count += len(rows)
        self._sum += rows.sum(dim=0)
        self._squares += float(rows.square().sum())

    def deviation(self) -> float:
        """Return the root of the mean variance of the channels, and 1 for constant ones."""
        mean = self._sum / self._count
        total = self._squares / self._count - float(mean.square().sum())
        return math.sqrt(total / len(mean)) if total > 0 else 1.0


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
