"""Training of 2s-AGCN on labelled snippets of poses, in one process.

The two streams are trained side by side: the loss is the sum of theirs, and neither sees the other,
so that the result is that of two trainings. As for the other encoders, a run that is killed and
started again ends with the same weights on the same processor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vidkd.console import log, progress
from vidkd.distillation.epochs import Epochs
from vidkd.distillation.run_folder import RunFolder
from vidkd.errors import UsageError, VidkdError
from vidkd.finetuning.job import FinetuneResult
from vidkd.finetuning.outcome import BEFORE_THE_FIRST, encoder_result, keep_if_best
from vidkd.finetuning.pose_data import PoseData, PoseReader
from vidkd.finetuning.snippets import BalancedSampler, Clip, validation_clips
from vidkd.finetuning.training import snippet_map
from vidkd.networks import select_device
from vidkd.networks.agcn import TwoStreamAGCN, initialise
from vidkd.networks.agcn_weights import NETWORK
from vidkd.networks.zoo import TRAINED_ENCODER
from vidkd.recipe import ModelCard, model_cards
from vidkd.recipe.jobs import PoseEncoderJob


def train_pose_encoder(job: PoseEncoderJob) -> FinetuneResult:
    """Train 2s-AGCN from nothing and leave a finished run folder.

    A finished run with the same settings on the same data is left alone, an unfinished one goes
    on after its last whole epoch.

    Raises:
        UsageError: the settings do not fit the data, or the run in the folder; poses are missing.
        AnnotationError: the annotations cannot be read, or label nothing.
        CacheError: poses are damaged, or not alike.
        VidkdError: the training diverged, or the run folder cannot be written.
    """
    if job.card_name in model_cards():
        raise UsageError(
            f"{job.card_name} is a model that comes with vidkd", remedy="give another --name"
        )
    device = select_device(job.device)
    data = PoseData.load(job)
    folder = RunFolder(job.output, TRAINED_ENCODER)
    recipe = {**job.recipe(), "data": data.identity}
    with folder.lock():
        folder.remove_leftovers()
        if folder.begin(recipe, overwrite=job.overwrite):
            result = folder.read_result(FinetuneResult)
            log(f"{job.output}: done before, {result.summary} of {result.epochs}")
            return result
        folder.write_environment(device, job.seed)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            return _Run(job, data, folder, device).run()


def pose_card(job: PoseEncoderJob, data: PoseData, feature_dim: int) -> ModelCard:
    """Return the model card of the encoder that a run trains."""
    return ModelCard(
        name=job.card_name,
        network=NETWORK,
        modality="pose",
        description=f"2s-AGCN, trained by vidkd on {len(data.training)} videos of "
        f"{len(data.classes)} classes",
        feature_dim=feature_dim,
        in_channels=3,
        frames=data.frames,
        snippet=job.snippet,
        pose_network=job.network,
        pose_inputs=job.inputs,
        weights=(),
        licence="the terms of the training videos",
        source="vidkd train-encoder --modality pose",
    )


def stream_loss(streams: Tensor, targets: Tensor) -> Tensor:
    """Return the sum over streams of the binary cross-entropy, a mean over snippets and classes.

    Args:
        streams: (B, 2, K) logits.
        targets: (B, K).
    """
    wide = targets[:, None].expand_as(streams)
    return streams.shape[1] * functional.binary_cross_entropy_with_logits(streams, wide)


class _Run:
    def __init__(
        self, job: PoseEncoderJob, data: PoseData, folder: RunFolder, device: torch.device
    ) -> None:
        self.job, self.data, self.folder, self.device = job, data, folder, device
        self.steps = job.snippets_per_epoch // job.batch_size
        self.sampler = BalancedSampler(data.training, data.classes, job.snippet)
        self.training = PoseReader(data.training, data, job)
        self.validation = PoseReader(data.validation, data, job)
        self.clips = validation_clips(
            data.validation, job.snippet, sum(len(v.source.pts) for v in data.validation)
        )
        self.network = TwoStreamAGCN(job.network, len(data.classes), job.dropout)
        initialise(self.network, torch.Generator().manual_seed(job.seed))
        self.network.to(device)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=job.learning_rate, weight_decay=job.weight_decay
        )
        self.epochs = Epochs(folder, BEFORE_THE_FIRST)
        self.epochs.keep(network=self.network, optimiser=self.optimiser)

    def run(self) -> FinetuneResult:
        """Train to the end."""
        job, epochs = self.job, self.epochs
        card = pose_card(job, self.data, self.network.feature_dim)
        about = {"made_of": job.made_of(self.data.identity["annotations_sha256"])}
        count = (job.epochs - epochs.number) * self.steps * job.batch_size
        with progress("train-encoder", count, "snippets") as advance, epochs.recorded():
            while epochs.number < job.epochs:
                epochs.number += 1
                row = self._epoch()
                advance(self.steps * job.batch_size)
                epochs.add(row)
                score = row["validation_map"]
                keep_if_best(epochs, score, self.network, card, self.data, about)
                epochs.save()
        result = encoder_result(job.output, card, self.data, epochs)
        self.folder.finish(result)
        log(f"{job.output}: {result.summary} of {result.epochs}")
        return result

    def _batches(
        self, reader: PoseReader, clips: list[Clip], rng: np.random.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        size = self.job.batch_size
        for first in range(0, len(clips), size):
            inputs, targets = reader.batch(clips[first : first + size], rng)
            yield (
                torch.from_numpy(inputs).to(self.device),
                torch.from_numpy(targets).to(self.device),
            )

    def _epoch(self) -> dict[str, float]:
        job = self.job
        epoch = self.epochs.number
        # All that is random in an epoch follows from the seed and its number.
        rng = np.random.default_rng([job.seed, epoch])
        torch.manual_seed(job.seed * 1_000_003 + epoch)
        self.network.train()
        clips = self.sampler.draw(self.steps * job.batch_size, rng)
        total, losses, rate = job.epochs * self.steps, 0.0, 0.0
        for number, (inputs, targets) in enumerate(self._batches(self.training, clips, rng)):
            done = (epoch - 1) * self.steps + number
            rate = job.learning_rate * 0.5 * (1 + math.cos(math.pi * done / total))
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            self.optimiser.zero_grad(set_to_none=True)
            loss = stream_loss(self.network(inputs).streams, targets)
            loss.backward()
            self.optimiser.step()
            losses += loss.item() / self.steps
        if not math.isfinite(losses):
            raise VidkdError(
                f"the training diverged in epoch {epoch} (the loss is {losses})",
                path=job.output,
                remedy="use a smaller --learning-rate, in another --output",
            )
        score, validation_loss = self._validate()
        return {
            "epoch": epoch,
            "learning_rate": rate,
            "loss": losses,
            "validation_loss": validation_loss,
            "validation_map": score,
        }

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        """Return the snippet mAP of the streams' mean logits, and the loss as in training."""
        self.network.eval()
        found = [
            (self.network(inputs), targets)
            for inputs, targets in self._batches(self.validation, self.clips, None)
        ]
        streams = torch.cat([output.streams for output, _ in found]).cpu()
        targets = torch.cat([targets for _, targets in found]).cpu()
        score = snippet_map(streams.mean(dim=1).numpy(), targets.numpy())
        return score, float(stream_loss(streams, targets))
