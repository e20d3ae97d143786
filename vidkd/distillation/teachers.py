"""Frozen teachers: their feature maps on the training videos."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vidkd.distillation.data import IN_MEMORY_BYTES, Features, Stream, VideoFeatures, find_stream
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
    """What one teacher makes of every training video, computed once when it fits in memory.

    A frozen teacher in evaluation mode gives the same feature map in every epoch, so that
    training a student costs little more than training without a teacher. The maps are those of
    whole videos, also when the student trains on parts.

    Args:
        teacher: the teacher.
        sequences: the training videos.
        stream: number of the teacher's stream among the sequences' ``paths``.
        device: where the teacher runs; the maps are kept in main memory.
        limit: bytes up to which the maps are kept.
    """

    def __init__(
        self,
        teacher: Teacher,
        sequences: Sequence[VideoFeatures],
        stream: int,
        device: torch.device,
        limit: int = IN_MEMORY_BYTES,
    ) -> None:
        self._teacher = teacher
        self._device = device
        width = teacher.header.filter.channels + len(teacher.header.classes)
        keep = sum(len(item) for item in sequences) * width * 4 <= limit
        # Each file is read once when the maps are kept, so its features need not be.
        self._features = Features(
            sequences, stream, teacher.header.in_features, limit=0 if keep else limit
        )
        self._kept = [self._compute(number) for number in range(len(sequences))] if keep else None

    @torch.no_grad()
    def _compute(self, number: int) -> TemporalOutput:
        rows = self._features[number].to(self._device)[None]
        mask = torch.ones(rows.shape[:2], dtype=torch.bool, device=self._device)
        output = self._teacher.module(rows, mask)
        return TemporalOutput(output.features[0].cpu(), output.logits[0].cpu())

    def __getitem__(self, number: int) -> TemporalOutput:
        """Return the feature map (T, C) and the logits (T, K) of one training video."""
        return self._compute(number) if self._kept is None else self._kept[number]

    def scale(self) -> float:
        """Return the standard deviation of the feature map over the training videos.

        It is the root of the mean over channels of their variance, and 1 for a constant map.
        """
        count, total, squares = 0, 0.0, 0.0
        mean = torch.zeros(self._teacher.header.filter.channels, dtype=torch.float64)
        for number in range(len(self._features)):
            rows = self[number].features.double()
            count += len(rows)
            mean += rows.sum(dim=0)
            squares += float(rows.square().sum())
        mean /= count
        total = squares / count - float(mean.square().sum())
        return math.sqrt(total / len(mean)) if total > 0 else 1.0


def padded(rows: Sequence[Tensor], longest: int) -> Tensor:
    """Stack (T_i, D) tensors into (B, ``longest``, D), zero after the end of each."""
    stacked = rows[0].new_zeros(len(rows), longest, rows[0].shape[-1])
    for number, item in enumerate(rows):
        stacked[number, : len(item)] = item
    return stacked
