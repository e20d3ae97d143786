"""Steps of the optimiser: precision, accumulation of gradients, and the learning rate."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from vidkd.finetuning.network import Tuned, working_type
from vidkd.finetuning.processes import Processes
from vidkd.recipe.jobs import FinetuneJob


class Stepper:
    """Computes steps of the optimiser from parts of a batch.

    Args:
        model: what is trained.
        settings: of the run.
        processes: among which every batch is divided.
        total: number of steps of the whole run, for the schedule.
    """

    def __init__(
        self, model: Tuned, settings: FinetuneJob, processes: Processes, total: int
    ) -> None:
        self.model = model
        self.dtype = working_type(settings.precision, processes.device)
        self.accumulate = settings.accumulate
        self.device = processes.device
        self.parallel: nn.Module = model if processes.size == 1 else DistributedDataParallel(model)
        self.optimiser = torch.optim.AdamW(
            model.groups(settings.learning_rate), weight_decay=settings.weight_decay
        )
        self._rates = [group["lr"] for group in self.optimiser.param_groups]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        self._total = total
        self.steps = 0

    def logits(self, model: nn.Module, x: Tensor) -> Tensor:
        """Return logits (B, K) in float32, computed in the working precision."""
        mixed = self.dtype is not torch.float32
        with torch.autocast(self.device.type, dtype=self.dtype if mixed else None, enabled=mixed):
            logits: Tensor = model(x)
        return logits.float()

    def backward(self, parts: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
        """Add up the gradients of one batch; return this process's mean loss.

        Args:
            parts: ``accumulate`` equal parts of this process's share: inputs and labels.
        """
        self.optimiser.zero_grad(set_to_none=True)
        sums = torch.zeros((), device=self.device)
        for number in range(1, self.accumulate + 1):
            inputs, targets = next(parts)
            waits = number < self.accumulate and isinstance(self.parallel, DistributedDataParallel)
            with self.parallel.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
                logits = self.logits(self.parallel, inputs)
                loss = functional.binary_cross_entropy_with_logits(logits, targets)
                self.scaler.scale(loss / self.accumulate).backward()
            sums += loss.detach() / self.accumulate
        return sums

    def step(self) -> float:
        """Change the weights by the gradients; return the learning rate of the pretrained part."""
        factor = 0.5 * (1 + math.cos(math.pi * self.steps / self._total))
        for group, rate in zip(self.optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.steps += 1
        return float(self.optimiser.param_groups[-1]["lr"])
