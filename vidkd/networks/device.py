"""Choosing where a network runs."""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
import threading
from importlib.metadata import version
from typing import TYPE_CHECKING

from vidkd.errors import UsageError

if TYPE_CHECKING:
    import torch


def device_name(name: str) -> str:
    """Return the name of the device that :func:`select_device` returns.

    Where it is the CPU, torch is not imported, unless a driver for GPUs is there.

    Raises:
        UsageError: the name is none that there is.
    """
    on_cpu = name == "cpu" or (name == "auto" and not _driver())
    return "cpu" if on_cpu else str(select_device(name))


def _driver() -> bool:
    """Tell whether this PyTorch may find a GPU here."""
    kind = version("torch").partition("+")[2]
    if kind == "cpu" or sys.platform == "darwin":
        return False
    if not sys.platform.startswith("linux") or kind.startswith("rocm"):
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def select_device(name: str) -> torch.device:
    """Return the device called ``name``: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    ``auto`` is the first GPU when there is one that works, and the CPU otherwise.

    Raises:
        UsageError: the name is none of these, or that GPU is not there.
    """
    import torch

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


_processor = threading.Lock()


def in_turn(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return a context in which one network at a time computes on the processor.

    Networks of several threads, such as one that looks for people and the encoder that waits for
    them, each have OpenMP threads of their own, as many as there are cores, and would take them
    from each other. A GPU is left to share itself out.
    """
    return _processor if device.type == "cpu" else contextlib.nullcontext()
