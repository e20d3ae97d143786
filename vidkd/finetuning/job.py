"""What to fine-tune, on what, and what came of it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from vidkd.networks.i3d import END_POINTS
from vidkd.recipe import Settings, SnippetSettings, SubsetSettings

Precision = Literal["auto", "float32", "bf16", "fp16"]
BatchNorm = Literal["train", "frozen", "recalibrate"]


class FinetuneJob(Settings):
    """Everything that ``vidkd train-encoder`` is told."""

    modality: Literal["rgb", "flow"]
    annotations: Path
    output: Path
    encoder: str
    """The encoder to start from: a name of the zoo, or the path of a fine-tuned one."""
    videos: Path | None = None
    """For rgb: the folder (or list) of the videos."""
    cache: Path | None = None
    """For flow: the cache that holds the flow of the videos."""
    name: str | None = None
    """What the trained encoder is called; by default as the run folder."""
    annotation_format: str = "auto"
    subsets: SubsetSettings = SubsetSettings()
    short_side: Annotated[int, Field(ge=32, le=2160)] = 256
    """For rgb; that of flow is the cache's."""
    frame_rate: Annotated[float, Field(gt=0, le=1000)] | None = None
    """For rgb: frames per second to sample; None keeps the video's own frames."""
    snippet: SnippetSettings = SnippetSettings()
    """The length of a snippet; the stride is that of validation."""
    crop: Annotated[int, Field(ge=32, le=512)] = 224
    epochs: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Snippets per step of the optimiser, over all processes and accumulated parts."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Parts in which each process computes its share of a batch."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Of AdamW at the start; it falls to zero along a half cosine. The new head learns ten times
    as fast, for it starts from nothing."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    precision: Precision = "auto"
    freeze_until: str | None = None
    """Last layer of those that stay as they are."""
    batch_norm: BatchNorm = "frozen"
    """Statistics of the batch normalisation: ``train`` updates them with every batch; ``frozen``
    keeps them; ``recalibrate`` measures them on training snippets first and then keeps them."""
    snippets_per_epoch: Annotated[int, Field(ge=1)] = 2048
    validation_snippets: Annotated[int, Field(ge=1)] = 4096
    """Largest number of snippets to validate on, spread evenly."""
    seed: int = 0
    device: str = "auto"
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that read and decode snippets, per training process."""
    overwrite: bool = False

    @model_validator(mode="after")
    def _sensible(self) -> FinetuneJob:
        if self.modality == "rgb" and self.videos is None:
            raise ValueError("rgb needs --videos")
        if self.modality == "flow" and self.cache is None:
            raise ValueError("flow needs --cache, with the flow of the videos")
        if self.freeze_until is not None and self.freeze_until not in END_POINTS:
            raise ValueError(f"--freeze-until is one of {', '.join(END_POINTS)}")
        if self.snippets_per_epoch < self.batch_size:
            raise ValueError("an epoch must hold at least one batch")
        if not re.fullmatch(r"\w[\w.+-]*", self.card_name):
            raise ValueError("--name must consist of letters, digits and . _ + -")
        return self

    @property
    def card_name(self) -> str:
        """The name of the trained encoder and of its folder in a cache."""
        return self.name or self.output.resolve().name

    def recipe(self) -> dict[str, Any]:
        """Return the settings that decide the result, as JSON values, with paths set apart."""
        fields = self.model_dump(mode="json")
        for name in ("device", "workers", "overwrite"):
            del fields[name]
        names = ("annotations", "videos", "cache", "output", "encoder")
        paths = {name: fields.pop(name) for name in names}
        return {"stage": "train-encoder", **fields, "name": self.card_name, "paths": paths}


@dataclass(frozen=True)
class FinetuneResult:
    """What a finished run found.

    Attributes:
        output: the run folder.
        encoder: name of the trained encoder.
        weights_sha256: hash of its weights, as features made with it record it.
        best_epoch: the epoch whose weights are kept, counted from 1.
        epochs: how many were trained.
        validation_map: snippet mAP of the best epoch, in [0, 1], over the classes present.
        training_videos: videos trained on.
        validation_videos: videos validated on.
        seconds: time spent, over all resumed parts.
        skipped: the run was finished before and nothing was done.
    """

    output: Path
    encoder: str
    weights_sha256: str
    best_epoch: int
    epochs: int
    validation_map: float
    training_videos: int
    validation_videos: int
    seconds: float
    skipped: bool = False

    @property
    def summary(self) -> str:
        """The best epoch in words."""
        return (
            f"best validation snippet mAP {100 * self.validation_map:.1f} "
            f"in epoch {self.best_epoch}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {**asdict(self), "output": str(self.output)}
