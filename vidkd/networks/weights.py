"""Weights on disk: safetensors with a JSON header, and nothing that could run code.

The header says which network the tensors belong to, with its hyper-parameters, labels, training
data and teachers; a file that does not fit is refused with the reason.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vidkd.errors import WeightsError
from vidkd.files import atomic_path
from vidkd.networks.stored import HEADER_KEY, check_sha256, opened


def save_weights(path: str | Path, state: Mapping[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and their header atomically.

    Args:
        path: the file to write, ending in ``.safetensors``.
        state: tensors by name, on any device.
        header: JSON-serialisable; must say which ``network`` this is.

    Raises:
        VidkdError: the file cannot be written.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    text = json.dumps(header, ensure_ascii=False, allow_nan=False, sort_keys=True)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={HEADER_KEY: text})


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors (on the CPU) and the header that :func:`save_weights` wrote.

    Raises:
        WeightsError: the file is missing, cut short, not safetensors, or has no header.
    """
    with opened(path, "pt") as (stream, header):
        # Copied, since the tensors would otherwise be windows on a file that may change.
        return {name: stream.get_tensor(name).clone() for name in stream.keys()}, header  # noqa: SIM118


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash names, types, shapes and values: the identity of weights whatever file holds them."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def checked_sha256(
    state: Mapping[str, Tensor], header: Mapping[str, Any], path: Path, remedy: str
) -> str:
    """Return the hash of the tensors that :func:`load_weights` has read.

    Raises:
        WeightsError: it is another than when the file was written.
    """
    return check_sha256(state_sha256(state), header, path, remedy)


def load_state(
    module: nn.Module, state: Mapping[str, Tensor], path: str | Path, *, assign: bool = False
) -> None:
    """Put ``state`` into ``module``, all of it and nothing else.

    Args:
        module: may live on the meta device when ``assign`` is set.
        state: tensors by name.
        path: what to call the file in error messages.
        assign: let the module take the tensors over, rather than copy their values.

    Raises:
        WeightsError: a tensor is missing, unknown, or of another shape; the message names the
            first such tensor.
    """
    check_state(module, state, path)
    module.load_state_dict(dict(state), assign=assign)


def without_counts(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state without the counts of training steps, which no computation here reads."""
    return {n: value for n, value in state.items() if not n.endswith("num_batches_tracked")}


def check_state(module: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise WeightsError unless the names and shapes of ``state`` are those of ``module``."""
    expected, found = (
        {name: tuple(value.shape) for name, value in without_counts(item).items()}
        for item in (module.state_dict(), state)
    )
    network = type(module).__name__
    remedy = "give weights of the network that is asked for"
    for name, shape in expected.items():
        if name not in found:
            raise WeightsError(f"has no tensor {name} of {network}", path=path, remedy=remedy)
        if found[name] != shape:
            raise WeightsError(
                f"tensor {name} has shape {found[name]} where {network} has {shape}",
                path=path,
                remedy=remedy,
            )
    for name in found:
        if name not in expected:
            raise WeightsError(
                f"has a tensor {name} that {network} does not", path=path, remedy=remedy
            )
