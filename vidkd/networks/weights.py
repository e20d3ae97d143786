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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vidkd.errors import WeightsError
from vidkd.files import atomic_path, refuse_address

HEADER_KEY = "vidkd"


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
    refuse_address(path)
    path = Path(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as stream:
            text = (stream.metadata() or {}).get(HEADER_KEY)
            # Copied, since the tensors would otherwise be windows on a file that may change.
            state = {name: stream.get_tensor(name).clone() for name in stream.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise WeightsError(
            "there is no such weights file", path=path, remedy="check the path"
        ) from error
    except (SafetensorError, OSError, MemoryError, ValueError) as error:
        raise WeightsError(
            f"is not a whole safetensors file ({error})",
            path=path,
            remedy="copy, fetch or train it again",
        ) from error
    try:
        header = json.loads(text or "")
    except ValueError:
        header = None
    if not isinstance(header, dict) or "network" not in header:
        raise WeightsError(
            "carries no vidkd header, so that its network is unknown",
            path=path,
            remedy="give a file that vidkd wrote",
        )
    return state, header


def read_header(path: str | Path) -> dict[str, Any] | None:
    """Return the header alone; None where :func:`load_weights` would refuse the file."""
    try:
        with safe_open(path, framework="pt", device="cpu") as stream:
            header = json.loads((stream.metadata() or {}).get(HEADER_KEY, ""))
    except (SafetensorError, OSError, MemoryError, ValueError):
        return None
    return header if isinstance(header, dict) else None


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
    digest = state_sha256(state)
    if header.get("weights_sha256") != digest:
        raise WeightsError(
            "was damaged since it was written (its content has another hash)",
            path=path,
            remedy=remedy,
        )
    return digest


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


def check_state(module: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise WeightsError unless the names and shapes of ``state`` are those of ``module``."""
    expected = {
        name: tuple(value.shape)
        for name, value in module.state_dict().items()
        # A count of training steps, which no computation here reads.
        if not name.endswith("num_batches_tracked")
    }
    found = {
        name: tuple(value.shape)
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
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
