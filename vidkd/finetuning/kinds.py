"""What differs between encoders of frames and of poses, for the loop that trains them."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vidkd.errors import UsageError
from vidkd.finetuning.card import pose_card, trained_card
from vidkd.finetuning.data import SnippetData
from vidkd.finetuning.network import Tuned, recalibrate, replace_head, stages_until
from vidkd.finetuning.pose_data import PoseData, PoseReader
from vidkd.finetuning.snippets import Clip, Loader
from vidkd.networks import find_card, load_network
from vidkd.networks.agcn import TwoStreamAGCN, initialise
from vidkd.networks.weights import state_sha256
from vidkd.recipe import ModelCard
from vidkd.recipe.choices import TrainingPrecision
from vidkd.recipe.jobs import FinetuneJob, PoseEncoderJob
from vidkd.streams import STREAMS

Batches = Iterator[tuple[Tensor, Tensor]]
"""Inputs, and labels (B, K) in {0, 1}, on the device."""

_CALIBRATION_SNIPPETS = 128
_CALIBRATION_BATCH = 16


class EncoderInTraining(ABC):
    """An encoder, and the snippets it is trained on.

    Attributes:
        data: the labelled videos.
        recipe: all that decides the result, as JSON values.
        about: what the header of the weights says of the training.
        card: of the trained encoder; this and what follows is there after `start`.
        network: what is saved.
        groups: the parameters that learn, each group with the rate it starts from.
        model: what is trained: maps inputs to logits (B, S, K) of S classifiers side by side.
    """

    data: SnippetData | PoseData
    recipe: dict[str, Any]
    about: dict[str, Any]
    card: ModelCard
    network: nn.Module
    groups: list[dict[str, Any]]
    model: nn.Module
    accumulate: int = 1
    """Parts in which a process computes its share of a batch."""
    precision: TrainingPrecision = "float32"
    most_validated: int = sys.maxsize
    """Largest number of snippets to validate on."""
    seed_stride: ClassVar[int] = 1
    """Seeds from one epoch to the next; each process takes its own of them."""

    @abstractmethod
    def start(self, device: torch.device) -> None:
        """Make the network, as it is before the first step."""

    def prepare(self, draw: Callable[[int, np.random.Generator], list[Clip]]) -> None:  # noqa: B027
        """Look at training snippets, which ``draw`` draws, before the first step."""

    @abstractmethod
    def batches(self, parts: list[list[Clip]], rng: np.random.Generator | None) -> Batches:
        """Read a batch for each part: of training videos with ``rng``, else of validation videos.

        ``rng`` may vary what is read beyond what the clips say.
        """


class FrameEncoder(EncoderInTraining):
    """An encoder of frames (RGB, flow), trained further from one that exists.

    Raises:
        UsageError: the encoder is for something else.
        AnnotationError, CacheError, VideoError, WeightsError: see ``train_encoder``.
    """

    seed_stride = 4096

    def __init__(self, job: FinetuneJob) -> None:
        card = find_card(job.encoder)
        if card.modality != job.modality:
            raise UsageError(
                f"the encoder {card.name} is for {card.modality}, not for {job.modality}",
                remedy="choose another --encoder or --modality",
            )
        self.job = job
        self._start, card = load_network(job.encoder)
        stages_until(self._start, job.freeze_until)
        self.data: SnippetData = SnippetData.load(job)
        state = self._start.state_dict()
        digest = state_sha256({k: v for k, v in state.items() if not k.endswith("batches_tracked")})
        self.recipe = {**job.recipe(), "start": {"card": card.name, "weights_sha256": digest}}
        self.about = {"start": job.encoder}
        self.card = trained_card(job, card, self.data)
        self.accumulate, self.precision = job.accumulate, job.precision
        self.most_validated = job.validation_snippets
        training, validation = self.data.training, self.data.validation
        self._training = Loader(self.data.reader(training, job), job.workers)
        self._validation = Loader(self.data.reader(validation, job), job.workers)

    def start(self, device: torch.device) -> None:
        """Give the network a new head, and freeze what is to stay as it is."""
        job, self._device = self.job, device
        replace_head(self._start, len(self.data.classes), job.dropout, job.seed)
        self.network = self._start.to(device)
        self.model = tuned = Tuned(self._start, job.freeze_until, job.batch_norm)
        self.groups = tuned.groups(job.learning_rate)

    def prepare(self, draw: Callable[[int, np.random.Generator], list[Clip]]) -> None:
        """Recalibrate; every process does the same, so that all begin with the same numbers."""
        if self.job.batch_norm == "recalibrate":
            rng = np.random.default_rng([self.job.seed, 0])
            lists = divided(draw(_CALIBRATION_SNIPPETS, rng), _CALIBRATION_BATCH)
            recalibrate(self._start, (inputs for inputs, _ in self.batches(lists, rng)))

    def batches(self, parts: list[list[Clip]], rng: np.random.Generator | None) -> Batches:
        """Read in the background; all that is random is in the clips."""
        prepare = STREAMS[self.job.modality].prepare(self.card, self._device, self.data.made)
        for images, targets in (self._validation if rng is None else self._training)(parts):
            yield prepare(images), torch.from_numpy(targets).to(self._device)


class PoseEncoder(EncoderInTraining):
    """2s-AGCN, trained from nothing.

    Its two streams are trained side by side: the loss is the sum of theirs, and neither sees the
    other, so that the result is that of two trainings.

    Raises:
        AnnotationError, CacheError, UsageError: see ``train_encoder``.
    """

    def __init__(self, job: PoseEncoderJob) -> None:
        self.job = job
        self.data: PoseData = PoseData.load(job)
        self.recipe = job.recipe()
        self.about = {"made_of": job.made_of(self.data.identity["annotations_sha256"])}
        self._training = PoseReader(self.data.training, self.data, job)
        self._validation = PoseReader(self.data.validation, self.data, job)

    def start(self, device: torch.device) -> None:
        """Draw the weights from the seed."""
        job, self._device = self.job, device
        network = TwoStreamAGCN(job.network, len(self.data.classes), job.dropout)
        initialise(network, torch.Generator().manual_seed(job.seed))
        self.network = network.to(device)
        self.model = _Streams(network)
        self.groups = [{"params": list(network.parameters()), "lr": job.learning_rate}]
        self.card = pose_card(job, self.data, network.feature_dim)

    def batches(self, parts: list[list[Clip]], rng: np.random.Generator | None) -> Batches:
        """Read from memory, and vary what is trained on."""
        reader = self._validation if rng is None else self._training
        for clips in parts:
            inputs, targets = reader.batch(clips, rng)
            yield (
                torch.from_numpy(inputs).to(self._device),
                torch.from_numpy(targets).to(self._device),
            )


class _Streams(nn.Module):
    """2s-AGCN to the logits of its two streams."""

    def __init__(self, network: TwoStreamAGCN) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x).streams
        return logits


def divided(clips: list[Clip], size: int) -> list[list[Clip]]:
    """Cut a list into parts of ``size``; the last may be shorter."""
    return [clips[first : first + size] for first in range(0, len(clips), size)]
