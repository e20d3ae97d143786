"""Weights files as they lie on disk, read without the import of torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from vidkd.errors import WeightsError
from vidkd.files import refuse_address
from vidkd.recipe import Settings, describe

HEADER_KEY = "vidkd"
Fields = TypeVar("Fields", bound=Settings)
TYPES = {
    **{f"F{bits}": f"torch.float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"torch.int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"torch.uint{bits}" for bits in (8, 16, 32, 64)},
    **{"BF16": "torch.bfloat16", "BOOL": "torch.bool", "C64": "torch.complex64"},
    **{"F8_E4M3": "torch.float8_e4m3fn", "F8_E5M2": "torch.float8_e5m2"},
}
"""Types of tensors in safetensors, as torch calls them."""


@contextlib.contextmanager
def opened(path: str | Path, framework: str = "numpy") -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a weights file for the block; yield its tensors and the header of vidkd.

    Raises:
        WeightsError: the file is missing, cut short, not safetensors, or has no header.
    """
    refuse_address(path)
    path = Path(path)
    try:
        with safe_open(path, framework=framework, device="cpu") as stream:
            yield stream, _header((stream.metadata() or {}).get(HEADER_KEY, ""), path)
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


def _header(text: str, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except ValueError:
        header = None
    if not isinstance(header, dict) or "network" not in header:
        raise WeightsError(
            "carries no vidkd header, so that its network is unknown",
            path=path,
            remedy="give a file that vidkd wrote",
        )
    return header


def header_of(model: type[Fields], fields: object, path: str | Path, remedy: str) -> Fields:
    """Return what a header says as settings.

    Raises:
        WeightsError: it does not fit them; ``remedy`` says what to do.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise WeightsError(
            f"has a header that this version cannot read: {describe(error)}",
            path=path,
            remedy=remedy,
        ) from error


def whole_header(path: str | Path) -> dict[str, Any]:
    """Return the header of a weights file.

    Raises:
        WeightsError: as for :func:`opened`.
    """
    with opened(path) as (_, header):
        return header


def read_header(path: str | Path) -> dict[str, Any] | None:
    """Return the header of a weights file; None where it cannot be read as one."""
    try:
        return whole_header(path)
    except WeightsError:
        return None


def content_sha256(path: Path) -> str:
    """Hash the tensors of a file: what ``vidkd.networks.weights.state_sha256`` says of them.

    Raises:
        WeightsError: as for :func:`opened`.
    """
    digest = hashlib.sha256()
    # Opened as well, which checks that all parts lie within the file.
    with opened(path), path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        tensors = json.loads(file.read(length))
        for name in sorted(tensors.keys() - {"__metadata__"}):
            tensor = tensors[name]
            kind, shape = TYPES.get(tensor["dtype"], tensor["dtype"]), tuple(tensor["shape"])
            digest.update(f"{name} {kind} {shape}\n".encode())
            first, end = tensor["data_offsets"]
            file.seek(8 + length + first)
            digest.update(file.read(end - first))
    return digest.hexdigest()


def check_sha256(digest: str, header: Mapping[str, Any], path: Path, remedy: str) -> str:
    """Return the hash of a file's tensors.

    Raises:
        WeightsError: it is another than when the file was written.
    """
    if header.get("weights_sha256") != digest:
        raise WeightsError(
            "was damaged since it was written (its content has another hash)",
            path=path,
            remedy=remedy,
        )
    return digest
