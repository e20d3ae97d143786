"""Fine-tuning of I3D on labelled snippets, by one process or several under ``torchrun``.

A run that is killed at any moment and started again ends with the same weights as an undisturbed
one on the same processor: what is random in an epoch follows from the seed and the number of the
epoch, and the state is saved after every epoch. (On a GPU, pooling adds gradients in an order
that differs from run to run.)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from vidkd.console import log, progress
from vidkd.distillation.epochs import Epochs
from vidkd.distillation.run_folder import RunFolder
from vidkd.errors import UsageError, VidkdError
from vidkd.evaluation.average_precision import non_interpolated
from vidkd.finetuning.card import trained_card
from vidkd.finetuning.data import SnippetData
from vidkd.finetuning.job import FinetuneResult
from vidkd.finetuning.network import Tuned, recalibrate, replace_head, stages_until
from vidkd.finetuning.outcome import BEFORE_THE_FIRST, encoder_result, keep_if_best
from vidkd.finetuning.processes import Processes, join
from vidkd.finetuning.snippets import (
    BalancedSampler,
    Batches,
    Clip,
    SnippetReader,
    collate,
    validation_clips,
)
from vidkd.finetuning.steps import Stepper
from vidkd.networks import find_card, load_network
from vidkd.networks.encoders import EncoderNetwork
from vidkd.networks.weights import state_sha256
from vidkd.recipe import ModelCard, model_cards
from vidkd.recipe.jobs import FinetuneJob
from vidkd.streams.encode import network_input

ENCODER_FILE = "encoder.safetensors"
_CALIBRATION_SNIPPETS = 128
_CALIBRATION_BATCH = 16


def train_encoder(job: FinetuneJob) -> FinetuneResult:
    """Fine-tune an encoder and leave a finished run folder.

    A finished run with the same settings on the same data is left alone, an unfinished one goes
    on after its last whole epoch.

    Raises:
        UsageError: the settings do not fit each other, the data, or the run in the folder.
        AnnotationError: the annotations cannot be read, or label nothing.
        CacheError: flow is missing or damaged.
        VideoError: a video cannot be decoded.
        WeightsError: the weights to start from are missing or damaged.
        VidkdError: the training diverged, or the run folder cannot be written.
    """
    if job.card_name in model_cards():
        raise UsageError(
            f"{job.card_name} is a model that comes with vidkd", remedy="give another --name"
        )
    card = find_card(job.encoder)
    if card.modality != job.modality:
        raise UsageError(
            f"the encoder {card.name} is for {card.modality}, not for {job.modality}",
            remedy="choose another --encoder or --modality",
        )
    with join(job.device) as processes:
        network, card = load_network(job.encoder)
        stages_until(network, job.freeze_until)
        data = SnippetData.load(job)
        start = state_sha256(
            {k: v for k, v in network.state_dict().items() if not k.endswith("batches_tracked")}
        )
        recipe = {**job.recipe(), "start": {"card": card.name, "weights_sha256": start}}
        recipe["data"] = data.identity
        folder = RunFolder(job.output, ENCODER_FILE)
        with folder.lock() if processes.first else contextlib.nullcontext():
            if _finished(folder, recipe, job, processes):
                result: FinetuneResult = processes.share(
                    folder.read_result(FinetuneResult) if processes.first else None
                )
                if processes.first:
                    log(f"{job.output}: done before, {result.summary}")
                return result
            devices = [processes.device] if processes.device.type == "cuda" else []
            with torch.random.fork_rng(devices=devices):
                replace_head(network, len(data.classes), job.dropout, job.seed)
                trained = trained_card(job, card, data)
                return _Run(job, data, network, trained, folder, processes).run()


def _finished(
    folder: RunFolder, recipe: dict[str, Any], job: FinetuneJob, processes: Processes
) -> bool:
    """Prepare the folder in the first process, and tell all of them what it found."""
    outcome: bool | VidkdError = False
    if processes.first:
        try:
            folder.remove_leftovers()
            outcome = folder.begin(recipe, overwrite=job.overwrite)
            if not outcome:
                folder.write_environment(processes.device, job.seed)
        except VidkdError as error:
            outcome = error
    outcome = processes.share(outcome)
    if isinstance(outcome, VidkdError):
        raise outcome
    return outcome


class Loader:
    """Reads lists of clips, in the background when there are workers.

    Args:
        reader: reads one clip.
        workers: processes; 0 reads in this one.
    """

    def __init__(self, reader: SnippetReader, workers: int) -> None:
        self._batches = Batches()
        # Clips are the indices of the reader, which is all that a data set needs to be.
        self._loader: DataLoader[Any] = DataLoader(
            cast("Any", reader),
            batch_sampler=cast("Any", self._batches),
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            # Video libraries start threads, which a fork would not take along.
            multiprocessing_context="spawn" if workers else None,
        )

    def __call__(self, lists: list[list[Clip]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (B, T, S, S, C) uint8 and (B, K) for each list."""
        self._batches.lists = lists
        return iter(self._loader)


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


class _Run:
    """One run in one process."""

    def __init__(
        self,
        job: FinetuneJob,
        data: SnippetData,
        network: EncoderNetwork,
        card: ModelCard,
        folder: RunFolder,
        processes: Processes,
    ) -> None:
        share = job.accumulate * processes.size
        if job.batch_size % share:
            raise UsageError(
                f"a batch of {job.batch_size} cannot be divided into {job.accumulate} parts for "
                f"{processes.size} processes",
                remedy=f"choose a multiple of {share} for --batch-size",
            )
        self.job, self.data, self.folder, self.processes = job, data, folder, processes
        self.card = card
        self.part = job.batch_size // share
        self.steps = job.snippets_per_epoch // job.batch_size
        self.sampler = BalancedSampler(data.training, data.classes, job.snippet)
        self.load = Loader(data.reader(data.training, job), job.workers)
        self.load_validation = Loader(data.reader(data.validation, job), job.workers)
        clips = validation_clips(data.validation, job.snippet, job.validation_snippets)
        own = clips[processes.rank :: processes.size]
        self.validation = [own[i : i + self.part] for i in range(0, len(own), self.part)]
        self.epochs = Epochs(folder, BEFORE_THE_FIRST)
        self.network = network.to(processes.device)
        if not self.epochs.resumed and job.batch_norm == "recalibrate":
            self._recalibrate()
        model = Tuned(self.network, job.freeze_until, job.batch_norm)
        self.stepper = Stepper(model, job, processes, job.epochs * self.steps)
        self.epochs.keep(
            announce=processes.first,
            network=self.network,
            optimiser=self.stepper.optimiser,
            scaler=self.stepper.scaler,
        )
        self.stepper.steps = self.epochs.number * self.steps

    def _inputs(
        self, batches: Iterator[tuple[np.ndarray, np.ndarray]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        device = self.processes.device
        for images, targets in batches:
            inputs = network_input(images, self.card, device, self.data.bound)
            yield inputs, torch.from_numpy(targets).to(device)

    def _recalibrate(self) -> None:
        """Every process does the same, so that all begin with the same numbers."""
        rng = np.random.default_rng([self.job.seed, 0])
        clips = self.sampler.draw(_CALIBRATION_SNIPPETS, rng)
        lists = [
            clips[i : i + _CALIBRATION_BATCH] for i in range(0, len(clips), _CALIBRATION_BATCH)
        ]
        recalibrate(self.network, (inputs for inputs, _ in self._inputs(self.load(lists))))

    def _plan(self) -> list[list[Clip]]:
        """Return this process's parts of all batches of the epoch, in order."""
        rng = np.random.default_rng([self.job.seed, self.epochs.number])
        clips = self.sampler.draw(self.steps * self.job.batch_size, rng)
        parts = [clips[i : i + self.part] for i in range(0, len(clips), self.part)]
        return parts[self.processes.rank :: self.processes.size]

    def _epoch(self, advance: Callable[[float], None]) -> dict[str, float]:
        number = self.epochs.number
        torch.manual_seed((self.job.seed * 1_000_003 + number) * 4096 + self.processes.rank)
        stepper = self.stepper
        stepper.model.train()
        losses = torch.zeros((), device=self.processes.device)
        rate = 0.0
        parts = self._inputs(self.load(self._plan()))
        for _ in range(self.steps):
            losses += stepper.backward(parts)
            rate = stepper.step()
            advance(self.job.batch_size)
        loss = float(np.mean(self.processes.gather(losses.item() / self.steps)))
        if not math.isfinite(loss):
            raise VidkdError(
                f"the training diverged in epoch {number} (the loss is {loss})",
                path=self.folder.path,
                remedy="use a smaller --learning-rate, in another --output",
            )
        score, validation_loss = self._validate()
        return {
            "epoch": number,
            "learning_rate": rate,
            "loss": loss,
            "validation_loss": validation_loss,
            "validation_map": score,
        }

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        self.stepper.model.eval()
        scores, labels = [], []
        for inputs, targets in self._inputs(self.load_validation(self.validation)):
            scores.append(self.stepper.logits(self.stepper.model, inputs).cpu())
            labels.append(targets.cpu())
        classes = len(self.data.classes)
        own = (torch.cat([torch.zeros(0, classes), *found]).numpy() for found in (scores, labels))
        shares = self.processes.gather(tuple(own))
        logits, truth = (np.concatenate(items) for items in zip(*shares, strict=True))
        loss = functional.binary_cross_entropy_with_logits(
            torch.from_numpy(logits), torch.from_numpy(truth)
        )
        return snippet_map(logits, truth), float(loss)

    def run(self) -> FinetuneResult:
        """Train to the end; only the first process writes."""
        first, total, epochs = self.processes.first, self.job.epochs, self.epochs
        with contextlib.ExitStack() as stack:
            advance: Callable[[float], None] = _nothing
            if first:
                count = (total - epochs.number) * self.steps * self.job.batch_size
                advance = stack.enter_context(progress("train-encoder", count, "snippets"))
            stack.enter_context(epochs.recorded(curves=first))
            while epochs.number < total:
                epochs.number += 1
                row = self._epoch(advance)
                epochs.add(row)
                if first:
                    self._save(row["validation_map"])
        result = encoder_result(self.job.output, self.card, self.data, epochs)
        if first:
            self.folder.finish(result)
            log(f"{self.job.output}: {result.summary} of {total}")
        return result

    def _save(self, score: float) -> None:
        about = {"start": self.job.encoder}
        keep_if_best(self.epochs, score, self.network, self.card, self.data, about)
        self.epochs.save()


def _nothing(amount: float) -> None:
    """Stand in for the progress bar in the processes that show none."""
