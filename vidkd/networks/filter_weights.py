"""Saving and loading temporal filters, with everything that detection needs to know."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator

from vidkd.errors import WeightsError
from vidkd.files import refuse_address
from vidkd.hub import resolved
from vidkd.networks.stored import header_of
from vidkd.networks.temporal import FILTERS, TemporalFilter, build_temporal_filter
from vidkd.networks.weights import load_state, load_weights, save_weights
from vidkd.recipe import (
    FilterSettings,
    FrameSettings,
    Modality,
    SegmentSettings,
    Settings,
    SnippetSettings,
)

NETWORK = "temporal-filter"


class FilterHeader(Settings):
    """What the weights of a temporal filter belong to."""

    format: Literal[1] = 1
    filter: FilterSettings
    in_features: Annotated[int, Field(ge=1)]
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    modality: Modality
    encoder: str
    encoder_sha256: str
    """Hash of the encoder's weights, as :attr:`vidkd.networks.zoo.Encoder.weights_sha256`."""
    frames: FrameSettings = FrameSettings()
    snippet: SnippetSettings = SnippetSettings()
    crop: int = 224
    stream_settings: dict[str, Any] = {}  # noqa: RUF012
    """What else its features were made with, such as settings of flow or poses (``Stream``)."""
    training_data: dict[str, Any] = {}  # noqa: RUF012
    teachers: tuple[str, ...] = ()
    segments: SegmentSettings = SegmentSettings()
    thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] | None = None
    """For each class the probability that separates it best (F1) on the validation subset."""
    segment_thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] | None = None
    """The same for the scores of the segment head: best F1 of segments at a tIoU of 0.5."""

    calibration: tuple[tuple[float, float], ...] | None = None
    """For each class scale and bias of the logits that make probabilities of the scores."""
    segment_calibration: tuple[tuple[float, float], ...] | None = None
    """The same for the scores of the segment head: right is a segment at a tIoU of 0.5."""

    @model_validator(mode="after")
    def _complete(self) -> FilterHeader:
        for given in (self.thresholds, self.segment_thresholds):
            if given is not None and len(given) != len(self.classes):
                raise ValueError("thresholds must have one number for each class")
        for pairs in (self.calibration, self.segment_calibration):
            if pairs is None:
                continue
            if len(pairs) != len(self.classes) or not all(
                0 < scale < math.inf and math.isfinite(bias) for scale, bias in pairs
            ):
                raise ValueError("calibration must have a positive scale and a bias for each class")
        return self


def save_temporal_filter(path: str | Path, module: TemporalFilter, header: FilterHeader) -> None:
    """Write the weights of a filter and its header atomically as safetensors.

    Raises:
        VidkdError: the file cannot be written.
    """
    save_weights(path, module.state_dict(), {"network": NETWORK, **header.model_dump(mode="json")})


def load_temporal_filter(
    path: str | Path, device: str | torch.device = "cpu"
) -> tuple[TemporalFilter, FilterHeader]:
    """Load a trained filter in evaluation mode.

    Args:
        path: a run folder, of which ``weights.safetensors`` is read, a weights file, or a model of
            the hub (``hf:OWNER/NAME``).
        device: where to put it.

    Raises:
        WeightsError: the file is missing, damaged, or of another network.
    """
    path = weights_file(path)
    state, fields = load_weights(path)
    return restored_filter(state, fields, path, device)


def weights_file(path: str | Path) -> Path:
    """Return the weights of a run folder or of a model of the hub, or the file itself."""
    refuse_address(path)
    path = resolved(path)
    return path / "weights.safetensors" if path.is_dir() else path


def restored_filter(
    state: dict[str, torch.Tensor],
    fields: dict[str, Any],
    path: Path,
    device: str | torch.device = "cpu",
) -> tuple[TemporalFilter, FilterHeader]:
    """Make a trained filter of what its file holds; see :func:`load_temporal_filter`."""
    network = fields.pop("network")
    if network != NETWORK:
        raise WeightsError(
            f"holds the network {network!r}, not a temporal filter",
            path=path,
            remedy="give a run folder, or the weights.safetensors in it",
        )
    remedy = "train it again, or use the version of vidkd that wrote it"
    header = header_of(FilterHeader, fields, path, remedy)
    if header.filter.kind not in FILTERS:
        raise WeightsError(
            f"holds a temporal filter {header.filter.kind!r}, which is not known here",
            path=path,
            remedy=f"install the package that adds it; known are {', '.join(FILTERS)}",
        )
    # The header alone would let a small file ask for any amount of memory.
    with torch.device("meta"):
        module = build_temporal_filter(header.filter, header.in_features, len(header.classes))
    # Filters of before inputs were standardised took them as they were.
    state.setdefault("input_mean", torch.zeros(1).expand(header.in_features))
    state.setdefault("input_deviation", torch.ones(1).expand(header.in_features))
    load_state(module, state, path, assign=True)
    module.float().to(device)
    return module.eval().requires_grad_(False), header
