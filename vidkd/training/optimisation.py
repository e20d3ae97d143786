"""Learning rates, and the type of number that a network is trained in."""

from __future__ import annotations

import math

import torch
from torch.optim.lr_scheduler import LambdaLR

from vidkd.errors import UsageError
from vidkd.recipe.choices import TrainingPrecision


def half_cosine(optimiser: torch.optim.Optimizer, total: int, warm_up: int = 0) -> LambdaLR:
    """Return a schedule that lets every group's rate fall to zero along half a cosine.

    It is stepped after every step of the optimiser.

    Args:
        optimiser: with the rates to start from.
        total: number of steps.
        warm_up: steps, of these, in which the rate first rises in a straight line.
    """

    def share(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))

    return LambdaLR(optimiser, share)


def go_on(schedule: LambdaLR, step: int) -> None:
    """Bring a schedule, and the rates of its optimiser, to where a run is after ``step`` steps."""
    schedule.last_epoch = step
    for group, base, share in zip(
        schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
    ):
        group["lr"] = base * share(step)


def working_type(precision: TrainingPrecision, device: torch.device) -> torch.dtype:
    """Return the type that convolutions are computed in.

    ``auto`` is float32 on a processor, and bfloat16 on a GPU that has it, else float16.

    Raises:
        UsageError: float16 on a processor, which has no fast form of it.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("fp16 needs a GPU", remedy="use --precision bf16 or float32")
    if precision == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
