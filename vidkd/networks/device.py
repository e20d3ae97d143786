"""Choosing where a network runs."""

from __future__ import annotations

import re

import torch

from vidkd.errors import UsageError


def select_device(name: str) -> torch.device:
    """Return the device called ``name``: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    ``auto`` is the first GPU when there is one that works, and the CPU otherwise.

    Raises:
        UsageError: the name is none of these, or that GPU is not there.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if not re.fullmatch(r"cuda(:\d{1,3})?", name):
        raise UsageError(f"unknown device {name!r}", remedy="give auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise UsageError(
            f"device {name} is not usable: PyTorch finds no working GPU",
            remedy="give --device cpu, or see `vidkd doctor`",
        )
    index = int(name.partition(":")[2] or 0)
    count = torch.cuda.device_count()
    if index >= count:
        raise UsageError(
            f"there is no GPU number {index}", remedy=f"give a number below {count}, or auto"
        )
    return torch.device("cuda", index)
