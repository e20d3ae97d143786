"""Training of an encoder on labelled snippets, by one process or several under ``torchrun``."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from vidkd.errors import UsageError
from vidkd.evaluation.average_precision import non_interpolated
from vidkd.finetuning.frames import FrameEncoder
from vidkd.finetuning.poses import PoseEncoder
from vidkd.finetuning.snippets import (
    BalancedSampler,
    Batches,
    EncoderInTraining,
    divided,
    validation_clips,
)
from vidkd.networks import cards, zoo
from vidkd.networks.weights import without_counts
from vidkd.recipe import ModelCard
from vidkd.recipe.jobs import FinetuneJob, PoseEncoderJob
from vidkd.training.loop import RunFolder, RunResult, Training, train_in
from vidkd.training.optimisation import go_on, half_cosine, working_type
from vidkd.training.processes import Processes, join


@dataclass(frozen=True, kw_only=True)
class FinetuneResult(RunResult):
    """What a finished run found.

    Attributes:
        encoder: name of the trained encoder.
        weights_sha256: hash of its weights, as features made with it record it.
        validation_map: snippet mAP of the best epoch, in [0, 1], over the classes present.
        training_videos: videos trained on.
        validation_videos: videos validated on.
    """

    encoder: str
    weights_sha256: str
    validation_map: float
    training_videos: int
    validation_videos: int

    @property
    def summary(self) -> str:
        """The best epoch in words."""
        return (
            f"best validation snippet mAP {100 * self.validation_map:.1f} "
            f"in epoch {self.best_epoch} of {self.epochs}"
        )


def train_encoder(job: FinetuneJob | PoseEncoderJob) -> FinetuneResult:
    """Train an encoder and leave a finished run folder.

    A finished run with the same settings on the same data is left alone, an unfinished one goes
    on after its last whole epoch.

    Args:
        job: fine-tunes an encoder of frames, or trains one of poses (in one process).

    Raises:
        UsageError: the settings do not fit each other, the data, or the run in the folder.
        AnnotationError: the annotations cannot be read, or label nothing.
        CacheError: flow or poses are missing, damaged or not alike.
        VideoError: a video cannot be decoded.
        WeightsError: the weights to start from are missing or damaged.
        VidkdError: the training diverged, or the run folder cannot be written.
    """
    if cards.zoo_card(job.card_name) is not None:
        raise UsageError(
            f"{job.card_name} is a model that comes with vidkd", remedy="give another --name"
        )
    with join(job.device) as processes:
        if processes.size > 1 and isinstance(job, PoseEncoderJob):
            raise UsageError(
                "an encoder of poses is trained by one process", remedy="leave out torchrun"
            )
        encoder = PoseEncoder(job) if isinstance(job, PoseEncoderJob) else FrameEncoder(job)
        folder = RunFolder(job.output, cards.TRAINED_ENCODER)
        return train_in(
            folder,
            {**encoder.recipe, "data": encoder.data.identity},
            lambda: EncoderTraining(encoder, folder, processes),
            FinetuneResult,
            processes=processes,
            seed=job.seed,
            overwrite=job.overwrite,
        )


class EncoderTraining(Training[FinetuneResult]):
    """One run in one process."""

    def __init__(self, encoder: EncoderInTraining, folder: RunFolder, processes: Processes) -> None:
        job = encoder.job
        share = encoder.accumulate * processes.size
        if job.batch_size % share:
            raise UsageError(
                f"a batch of {job.batch_size} cannot be divided into {encoder.accumulate} parts "
                f"for {processes.size} processes",
                remedy=f"choose a multiple of {share} for --batch-size",
            )
        self.part = job.batch_size // share
        self.steps = job.snippets_per_epoch // job.batch_size
        super().__init__(
            folder,
            processes,
            stage="train-encoder",
            epochs=job.epochs,
            seed=job.seed,
            unit="snippets",
            per_epoch=self.steps * job.batch_size,
        )
        self.job, self.encoder = job, encoder
        data = encoder.data
        self.sampler = BalancedSampler(data.training, data.classes, job.snippet)
        clips = validation_clips(data.validation, job.snippet, encoder.most_validated)
        self.validation = divided(clips[processes.rank :: processes.size], self.part)
        encoder.start(processes.device)
        if not self.resumed:
            encoder.prepare(self.sampler.draw)
        self.model = encoder.model
        self.parallel: nn.Module = self.model
        if processes.size > 1:
            self.parallel = DistributedDataParallel(self.model)
        self.dtype = working_type(encoder.precision, processes.device)
        self.optimiser = torch.optim.AdamW(encoder.groups, weight_decay=job.weight_decay)
        self.schedule = half_cosine(self.optimiser, job.epochs * self.steps)
        self.scaler = torch.amp.GradScaler(
            processes.device.type, enabled=self.dtype is torch.float16
        )
        scaler = {"scaler": self.scaler} if self.scaler.is_enabled() else {}
        self.keep_state(network=encoder.network, optimiser=self.optimiser, **scaler)
        go_on(self.schedule, self.number * self.steps)

    def train(self, rng: np.random.Generator) -> dict[str, float]:
        rank = self.processes.rank
        seed = (self.seed * 1_000_003 + self.number) * self.encoder.seed_stride
        torch.manual_seed(seed + rank)
        self.model.train()
        losses = torch.zeros((), device=self.processes.device)
        clips = self.sampler.draw(self.per_epoch, rng)
        own = divided(clips, self.part)[rank :: self.processes.size]
        batches = self.encoder.batches(own, rng)
        for _ in range(self.steps):
            losses += self.backward(batches)
            rate = self.optimiser.param_groups[-1]["lr"]
            self.scaler.step(self.optimiser)
            self.scaler.update()
            self.schedule.step()
            self.advance(self.job.batch_size)
        loss = float(np.mean(self.processes.gather(losses.item() / self.steps)))
        return {"learning_rate": rate, "loss": loss}

    def backward(self, batches: Batches) -> Tensor:
        """Add up the gradients of this process's share of one step; return its mean loss."""
        accumulate = self.encoder.accumulate
        self.optimiser.zero_grad(set_to_none=True)
        sums = torch.zeros((), device=self.processes.device)
        for number in range(1, accumulate + 1):
            inputs, targets = next(batches)
            waits = number < accumulate and isinstance(self.parallel, DistributedDataParallel)
            with self.parallel.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
                loss = classifiers_loss(self._logits(self.parallel, inputs), targets)
                self.scaler.scale(loss / accumulate).backward()
            sums += loss.detach() / accumulate
        return sums

    def _logits(self, model: nn.Module, x: Tensor) -> Tensor:
        """Return logits (B, S, K) in float32, computed in the working precision."""
        device, mixed = self.processes.device.type, self.dtype is not torch.float32
        with torch.autocast(device, dtype=self.dtype if mixed else None, enabled=mixed):
            logits: Tensor = model(x)
        return logits.float()

    @torch.no_grad()
    def validate(self) -> tuple[float, dict[str, float]]:
        """See :meth:`Training.validate`; the score is the snippet mAP of the mean logits."""
        self.model.eval()
        own = [
            (self._logits(self.model, inputs).cpu(), targets.cpu())
            for inputs, targets in self.encoder.batches(self.validation, None)
        ]
        shares = [pair for share in self.processes.gather(own) for pair in share]
        if not shares:
            return 0.0, {"validation_loss": math.nan, "validation_map": 0.0}
        logits, targets = (torch.cat(items) for items in zip(*shares, strict=True))
        score = snippet_map(logits.mean(dim=1).numpy(), targets.numpy())
        loss = float(classifiers_loss(logits, targets))
        return score, {"validation_loss": loss, "validation_map": score}

    def keep(self, score: float) -> dict[str, Any]:
        """Write the weights, with their card."""
        encoder, data = self.encoder, self.encoder.data
        training = {
            "annotations_sha256": data.identity["annotations_sha256"],
            **encoder.about,
            "videos": len(data.training),
            "epoch": self.number,
            "validation_map": score,
        }
        path = self.folder.weights
        digest = save_encoder(path, encoder.network, encoder.card, data.classes, training)
        return {"sha256": digest}

    def result(self) -> FinetuneResult:
        data = self.encoder.data
        return FinetuneResult(
            output=self.folder.path,
            encoder=self.encoder.card.name,
            weights_sha256=self.best.get("sha256", ""),
            best_epoch=self.best["epoch"],
            epochs=self.total,
            validation_map=self.best["map"],
            training_videos=len(data.training),
            validation_videos=len(data.validation),
            seconds=round(self.seconds, 2),
        )


def save_encoder(
    path: Path,
    network: nn.Module,
    card: ModelCard,
    classes: tuple[str, ...],
    training_data: dict[str, Any],
) -> str:
    """Write weights and card into one file, and the card beside it for people to read.

    Returns:
        the hash of the weights, as the provenance of features will have it.
    """
    kept = without_counts(network.state_dict())
    state = {name: value.detach().cpu().float() for name, value in kept.items()}
    beside = path.with_name("card.yaml")
    return zoo.save_encoder(
        path, state, card, beside, classes=list(classes), training_data=training_data
    )


def classifiers_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sum over classifiers of their binary cross-entropies, means over (B, K).

    Args:
        logits: (B, S, K).
        targets: (B, K).
    """
    wide = targets[:, None].expand_as(logits)
    return logits.shape[1] * functional.binary_cross_entropy_with_logits(logits, wide)


def snippet_map(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean, over the classes present, of the average precision of ranked snippets.

    Args:
        scores: (N, K).
        targets: (N, K) in {0, 1}.

    Returns:
        in [0, 1]; 0 when no class is present.
    """
    values = []
    for column, labels in zip(scores.T, targets.T > 0, strict=True):
        if labels.any():
            ranking = np.argsort(-column, kind="stable")
            values.append(non_interpolated(labels[ranking], int(labels.sum())))
    return float(np.mean(values)) if values else 0.0
