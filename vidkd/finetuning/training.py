"""Fine-tuning of I3D on labelled snippets, by one process or several under ``torchrun``.

A run that is killed at any moment and started again ends with the same weights as an undisturbed
one on the same processor: what is random in an epoch follows from the seed and the number of the
epoch, and the state is saved after every epoch. (On a GPU, pooling adds gradients in an order
that differs from run to run.)
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from vidkd.console import log, progress
from vidkd.distillation.run_folder import RunFolder
from vidkd.errors import UsageError, VidkdError
from vidkd.evaluation.average_precision import non_interpolated
from vidkd.features.encode import network_input
from vidkd.finetuning.card import save_encoder, trained_card
from vidkd.finetuning.data import SnippetData
from vidkd.finetuning.job import FinetuneJob, FinetuneResult
from vidkd.finetuning.network import Tuned, recalibrate, replace_head
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
from vidkd.networks.i3d import I3D
from vidkd.networks.weights import state_sha256
from vidkd.recipe import ModelCard, model_cards

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
        data = SnippetData.load(job)
        network, card = load_network(job.encoder)
        start = state_sha256(
            {k: v for k, v in network.state_dict().items() if not k.endswith("batches_tracked")}
        )
        recipe = {**job.recipe(), "start": {"card": card.name, "weights_sha256": start}}
        recipe["data"] = data.identity
        folder = RunFolder(job.output, ENCODER_FILE)
        with folder.lock() if processes.first else contextlib.nullcontext():
            if _finished(folder, recipe, job, processes):
                fields = processes.share(folder.read_result() if processes.first else None)
                if processes.first:
                    log(
                        f"{job.output}: done before, best validation snippet mAP "
                        f"{100 * fields['validation_map']:.1f} in epoch {fields['best_epoch']}"
                    )
                return FinetuneResult(**{**fields, "output": job.output, "skipped": True})
            devices = [processes.device] if processes.device.type == "cuda" else []
            with torch.random.fork_rng(devices=devices):
                replace_head(network, len(data.classes), job.dropout, job.seed)
                return _Run(job, data, network, folder, processes).run(
                    trained_card(job, card, data)
                )


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
        network: I3D,
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
        self.part = job.batch_size // share
        self.steps = job.snippets_per_epoch // job.batch_size
        self.sampler = BalancedSampler(data.training, data.classes, job.snippet.length)
        self.load = Loader(data.reader(data.training, job), job.workers)
        self.load_validation = Loader(data.reader(data.validation, job), job.workers)
        length, stride = job.snippet.length, job.snippet.stride
        clips = validation_clips(data.validation, length, stride, job.validation_snippets)
        own = clips[processes.rank :: processes.size]
        self.validation = [own[i : i + self.part] for i in range(0, len(own), self.part)]
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Any] = {"epoch": 0, "map": -1.0, "sha256": ""}
        self.seconds = 0.0
        state = folder.load_state()
        network = network.to(processes.device)
        self.network = network
        if state is None and job.batch_norm == "recalibrate":
            self._recalibrate()
        if state is not None:
            network.load_state_dict(state["network"])
        model = Tuned(self.network, job.freeze_until, job.batch_norm)
        self.stepper = Stepper(model, job, processes, job.epochs * self.steps)
        if state is not None:
            self._resume(state)

    def _inputs(
        self, batches: Iterator[tuple[np.ndarray, np.ndarray]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        device = self.processes.device
        for images, targets in batches:
            inputs = network_input(images, device, self.data.bound)
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
        rng = np.random.default_rng([self.job.seed, self.epoch])
        clips = self.sampler.draw(self.steps * self.job.batch_size, rng)
        parts = [clips[i : i + self.part] for i in range(0, len(clips), self.part)]
        return parts[self.processes.rank :: self.processes.size]

    def _epoch(self, advance: Callable[[float], None]) -> dict[str, float]:
        torch.manual_seed((self.job.seed * 1_000_003 + self.epoch) * 4096 + self.processes.rank)
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
                f"the training diverged in epoch {self.epoch} (the loss is {loss})",
                path=self.folder.path,
                remedy="use a smaller --learning-rate, in another --output",
            )
        score, validation_loss = self._validate()
        return {
            "epoch": self.epoch,
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

    def run(self, card: ModelCard) -> FinetuneResult:
        """Train to the end; only the first process writes."""
        first, total = self.processes.first, self.job.epochs
        started, before = time.monotonic(), self.seconds
        with contextlib.ExitStack() as stack:
            advance: Callable[[float], None] = _nothing
            board = None
            if first:
                from torch.utils.tensorboard import SummaryWriter

                count = (total - self.epoch) * self.steps * self.job.batch_size
                advance = stack.enter_context(progress("train-encoder", count, "snippets"))
                board = SummaryWriter(str(self.folder.tensorboard), purge_step=self.epoch + 1)
                stack.callback(board.close)
            while self.epoch < total:
                self.epoch += 1
                row = self._epoch(advance)
                self.history.append(row)
                self.seconds = before + time.monotonic() - started
                if board is not None:
                    for name in list(row)[1:]:
                        board.add_scalar(name.replace("_", "/", 1), row[name], self.epoch)
                    board.flush()
                    self._save(row["validation_map"], card)
        result = FinetuneResult(
            output=self.job.output,
            encoder=card.name,
            weights_sha256=self.best["sha256"],
            best_epoch=self.best["epoch"],
            epochs=total,
            validation_map=self.best["map"],
            training_videos=len(self.data.training),
            validation_videos=len(self.data.validation),
            seconds=round(self.seconds, 2),
        )
        if first:
            fields = asdict(result)
            del fields["output"], fields["skipped"]
            self.folder.finish(fields)
            log(
                f"{self.job.output}: best validation snippet mAP "
                f"{100 * result.validation_map:.1f} in epoch {result.best_epoch} of {total}"
            )
        return result

    def _save(self, score: float, card: ModelCard) -> None:
        """Keep the best weights and the state; ``last.pt`` comes last, for it tells the rest."""
        if score > self.best["map"]:
            about = {
                "annotations_sha256": self.data.identity["annotations_sha256"],
                "start": self.job.encoder,
                "videos": len(self.data.training),
                "epoch": self.epoch,
                "validation_map": score,
            }
            digest = save_encoder(self.folder.weights, self.network, card, self.data.classes, about)
            self.best = {"epoch": self.epoch, "map": score, "sha256": digest}
        self.folder.write_metrics(self.history)
        self.folder.save_state(
            {
                "epoch": self.epoch,
                "steps": self.stepper.steps,
                "network": self.network.state_dict(),
                "optimiser": self.stepper.optimiser.state_dict(),
                "scaler": self.stepper.scaler.state_dict(),
                "best": self.best,
                "history": self.history,
                "seconds": self.seconds,
            }
        )

    def _resume(self, state: dict[str, Any]) -> None:
        self.stepper.optimiser.load_state_dict(state["optimiser"])
        self.stepper.scaler.load_state_dict(state["scaler"])
        self.stepper.steps = state["steps"]
        self.epoch, self.best = state["epoch"], state["best"]
        self.history, self.seconds = state["history"], state["seconds"]
        if self.processes.first:
            log(f"{self.job.output}: going on after epoch {self.epoch}")


def _nothing(amount: float) -> None:
    """Stand in for the progress bar in the processes that show none."""
