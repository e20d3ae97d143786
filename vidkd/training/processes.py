"""The processes that train together under ``torchrun``; one alone needs none of this."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vidkd.console import silenced
from vidkd.networks.device import select_device


class Processes:
    """This process among those that train together.

    Attributes:
        rank: its number; 0 writes the run folder.
        size: how many there are.
        device: where this one computes.
    """

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank = rank
        self.size = size
        self.device = device

    @property
    def first(self) -> bool:
        """Tell whether this process is the one that writes and reports."""
        return self.rank == 0

    def share(self, value: Any) -> Any:
        """Return the value that process 0 gave."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def total(self, amount: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, without gradients."""
        if self.size > 1:
            amount = amount.detach().clone()
            dist.all_reduce(amount)
        return amount

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in order of their rank, to each of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


@contextlib.contextmanager
def join(device: str) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started, or be alone, while the block runs.

    Args:
        device: ``auto``, ``cpu`` or ``cuda[:n]``; with several processes on GPUs, each takes
            the one of its local rank.

    Raises:
        UsageError: there is no such device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    target = select_device(device)
    if size == 1:
        yield Processes(0, 1, target)
        return
    rank = int(os.environ["RANK"])
    if target.type == "cuda":
        target = select_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(target)
    dist.init_process_group("nccl" if target.type == "cuda" else "gloo")
    # Progress and remarks are told once; an error that ends this process still is.
    quiet = silenced() if rank else contextlib.nullcontext()
    try:
        with quiet:
            yield Processes(rank, size, target)
    finally:
        dist.destroy_process_group()
