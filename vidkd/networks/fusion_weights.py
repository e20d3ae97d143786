"""Several students in one file, with the weights of their fusion and their trained encoders."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator

from vidkd.errors import WeightsError
from vidkd.networks.filter_weights import FilterHeader, restored_filter, weights_file
from vidkd.networks.stored import header_of, read_header
from vidkd.networks.temporal import TemporalFilter
from vidkd.networks.weights import load_weights, save_weights
from vidkd.recipe import SegmentSettings, Settings

NETWORK = "fusion"

Weight = Annotated[float, Field(ge=0, le=1)]


class FusionHeader(Settings):
    """What the students of a fused file are, and how their logits are averaged."""

    format: Literal[1] = 1
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    students: Annotated[tuple[str, ...], Field(min_length=2)]
    """Names of the runs they were."""
    weights: tuple[tuple[Weight, ...], ...]
    """(students, classes): shares of their logits, which sum to 1 for each class."""
    thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...]
    """For each class the fused probability that separates it best (F1) on validation."""
    segments: SegmentSettings = SegmentSettings()
    chosen_on: dict[str, Any] = {}  # noqa: RUF012
    """What the weights were chosen on, and what else was tried."""

    @model_validator(mode="after")
    def _complete(self) -> FusionHeader:
        shape = [len(self.classes)] * len(self.students)
        if [len(row) for row in self.weights] != shape or len(self.thresholds) != len(self.classes):
            raise ValueError("weights and thresholds must have one number for each class")
        return self


@dataclass(frozen=True)
class FusedStudent:
    """A student of a fused file.

    Attributes:
        name: of the run it was.
        module: its temporal filter, in evaluation mode.
        header: what it was trained on.
        encoder: tensors and header of its encoder, where the file holds it.
    """

    name: str
    module: TemporalFilter
    header: FilterHeader
    encoder: tuple[dict[str, torch.Tensor], dict[str, Any]] | None = None

    @contextmanager
    def encoder_file(self) -> Iterator[Path | None]:
        """Give the encoder as a file that can be loaded while the block runs; None without one."""
        if self.encoder is None:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="vidkd-encoder-") as folder:
            path = Path(folder) / "encoder.safetensors"
            save_weights(path, *self.encoder)
            yield path


def save_fusion(
    path: str | Path,
    header: FusionHeader,
    students: Sequence[Path],
    encoders: Mapping[int, Path],
) -> None:
    """Write several students into one file, atomically.

    Args:
        path: the file to write, ending in ``.safetensors``.
        header: with as many students.
        students: their run folders or weights files.
        encoders: weights files of encoders that do not come with vidkd, by the student's number.

    Raises:
        WeightsError: one of them cannot be read.
        VidkdError: the file cannot be written.
    """
    parts = {f"student.{n}": weights_file(item) for n, item in enumerate(students)}
    parts |= {f"encoder.{number}": item for number, item in encoders.items()}
    state: dict[str, torch.Tensor] = {}
    headers = {}
    for name, file in parts.items():
        tensors, headers[name] = load_weights(file)
        state |= {f"{name}/{key}": value for key, value in tensors.items()}
    fields = header.model_dump(mode="json")
    save_weights(path, state, {"network": NETWORK, **fields, "parts": headers})


def is_fusion(path: str | Path) -> bool:
    """Return whether a run folder or file holds several students, by its header alone."""
    return (read_header(weights_file(path)) or {}).get("network") == NETWORK


def load_fusion(
    path: str | Path, device: str | torch.device = "cpu"
) -> tuple[list[FusedStudent], FusionHeader]:
    """Load what :func:`save_fusion` wrote.

    Raises:
        WeightsError: the file is missing, damaged, or of another network.
    """
    path = weights_file(path)
    state, fields = load_weights(path)
    remedy = "fuse the students again with `vidkd fuse`"
    parts = fields.pop("parts", None)
    if fields.pop("network") != NETWORK or not isinstance(parts, dict):
        raise WeightsError("does not hold fused students", path=path, remedy=remedy)
    header = header_of(FusionHeader, fields, path, remedy)
    tensors: dict[str, dict[str, torch.Tensor]] = {name: {} for name in parts}
    for key, value in state.items():
        name, _, own = key.partition("/")
        tensors.setdefault(name, {})[own] = value
    students = []
    for number, name in enumerate(header.students):
        own, encoder = f"student.{number}", f"encoder.{number}"
        if not isinstance(parts.get(own), dict) or "network" not in parts[own]:
            raise WeightsError(f"lacks the student {name}", path=path, remedy=remedy)
        module, filter_header = restored_filter(tensors[own], dict(parts[own]), path, device)
        if not set(filter_header.classes) <= set(header.classes):
            raise WeightsError(f"lacks classes of the student {name}", path=path, remedy=remedy)
        held = (tensors[encoder], parts[encoder]) if encoder in parts else None
        students.append(FusedStudent(name, module, filter_header, held))
    return students, header
