"""What a command that trains is asked to do: its settings, and where its data are."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from vidkd.recipe.choices import BatchNorm, Modality, TrainingPrecision
from vidkd.recipe.evaluation import SegmentSettings
from vidkd.recipe.inputs import SnippetSettings
from vidkd.recipe.pose import PoseEncoderSettings
from vidkd.recipe.settings import Settings
from vidkd.recipe.training import (
    DistillationSettings,
    FilterSettings,
    OptimiserSettings,
    SubsetSettings,
)

Stage = Literal["train-teacher", "train-baseline", "distill"]


class TrainingJob(Settings):
    """One training run: a teacher, a vanilla baseline, or a student with its teachers."""

    output: Path
    """The run folder."""
    cache: Path
    """The cache with the features of all streams."""
    annotations: Path
    annotation_format: str = "auto"
    modality: Modality = "rgb"
    """Stream that the trained filter sees."""
    encoder: str | None = None
    """Its encoder; None takes the only one of this modality in the cache."""
    teachers: tuple[Path, ...] = ()
    """Run folders of the teachers; with any, this is a distillation."""
    filter: FilterSettings = FilterSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    distillation: DistillationSettings = DistillationSettings()
    subsets: SubsetSettings = SubsetSettings()
    segments: SegmentSettings = SegmentSettings()
    """Kept in the header of the weights for detection; training does not use them."""
    unlabelled: bool = False
    """Distil also on the cached videos that the annotation file does not name."""
    skip_missing: bool = False
    """Leave out annotated videos without features instead of refusing."""
    device: str = "auto"
    memory: Annotated[float, Field(ge=0)] | None = None
    """GiB of features to keep in memory; the rest goes to a scratch file in the run folder. None
    takes a quarter of what is free. It does not change the result."""
    overwrite: bool = False
    """Train again when the folder holds a run with other settings, instead of refusing."""

    @model_validator(mode="after")
    def _sensible(self) -> TrainingJob:
        if self.unlabelled and not self.teachers:
            raise ValueError("videos without labels teach nothing without a teacher")
        if self.teachers and self.optimiser.batch_size <= self.distillation.negatives:
            raise ValueError("the batch must hold a positive and its negatives")
        return self

    @property
    def stage(self) -> Stage:
        """What kind of run this is, by the name of its command."""
        if self.teachers:
            return "distill"
        return "train-baseline" if self.modality == "rgb" else "train-teacher"


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
    precision: TrainingPrecision = "auto"
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


class PoseEncoderJob(PoseEncoderSettings):
    """Everything that ``vidkd train-encoder --modality pose`` is told."""

    annotations: Path
    output: Path
    cache: Path
    """The cache that holds the poses of the videos."""
    name: str = ""
    """What the trained encoder is called; by default as the run folder."""
    annotation_format: str = "auto"
    subsets: SubsetSettings = SubsetSettings()
    snippet: SnippetSettings = SnippetSettings()
    """The length of a snippet; the stride is that of validation."""
    device: str = "auto"
    overwrite: bool = False

    @model_validator(mode="after")
    def _named(self) -> PoseEncoderJob:
        if not re.fullmatch(r"\w[\w.+-]*", self.card_name):
            raise ValueError("--name must consist of letters, digits and . _ + -")
        if self.network.skeleton != "lcrnet-13":
            raise ValueError("a pose cache holds the skeleton lcrnet-13")
        return self

    @property
    def card_name(self) -> str:
        """The name of the trained encoder and of its folder in a cache."""
        return self.name or self.output.resolve().name

    def recipe(self) -> dict[str, Any]:
        """Return the settings that decide the result, as JSON values, with paths set apart."""
        fields = self.model_dump(mode="json")
        for name in ("device", "overwrite"):
            del fields[name]
        paths = {name: fields.pop(name) for name in ("annotations", "cache", "output")}
        stage = {"stage": "train-encoder", "modality": "pose"}
        return {**stage, **fields, "name": self.card_name, "paths": paths}

    def made_of(self, annotations_sha256: str) -> str:
        """Return a hash of the settings and the labels, as the encoder and its features carry it.

        Whoever has the features alone can tell by it whether they are what a recipe asks for.
        """
        fields = self.recipe()
        for name in ("name", "paths", "annotation_format"):
            del fields[name]
        text = json.dumps({**fields, "annotations": annotations_sha256}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class PoseTrainingJob(Settings):
    """Everything that ``vidkd train-pose`` is told."""

    data: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Folders of ``vidkd synth`` and ``labels.json`` files; each is drawn from equally often."""
    output: Path
    validation: tuple[Path, ...] = ()
    """The same kinds of sources; without any, every tenth video or picture of the data."""
    start: str | None = None
    """A detector to go on from, by name or path, with its anchor poses and architecture."""
    name: str | None = None
    """What the detector is called; by default as the run folder."""
    backbone: Literal["inception", "resnet50-fpn"] = "inception"
    pretrained: bool = True
    """Start the inception backbone from I3D's RGB weights, and keep its lower layers."""
    full: Annotated[int, Field(ge=1, le=1000)] = 20
    upper: Annotated[int, Field(ge=0, le=1000)] = 8
    short_side: Annotated[int, Field(ge=64, le=1024)] = 192
    pictures: Annotated[int, Field(ge=1)] = 60_000
    """Pictures to learn from in all, each varied anew."""
    pictures_per_epoch: Annotated[int, Field(ge=1)] = 4000
    batch_size: Annotated[int, Field(ge=2)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Of AdamW after the warm-up; it falls to zero along a half cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    validation_pictures: Annotated[int, Field(ge=1)] = 400
    precision: Literal["auto", "float32", "bf16"] = "auto"
    seed: int = 0
    device: str = "auto"
    workers: Annotated[int, Field(ge=1)] = 1
    """Threads that prepare pictures."""
    overwrite: bool = False

    @model_validator(mode="after")
    def _sensible(self) -> PoseTrainingJob:
        if min(self.pictures_per_epoch, self.pictures) < self.batch_size:
            raise ValueError("an epoch must hold at least one batch")
        return self

    @property
    def detector_name(self) -> str:
        """The name of the trained detector."""
        return self.name or self.output.resolve().name

    @property
    def epochs(self) -> int:
        """Number of epochs; the last may be longer than what is left."""
        return max(1, round(self.pictures / self.pictures_per_epoch))

    def recipe(self) -> dict[str, Any]:
        """Return the settings that decide the result, as JSON values, with paths set apart."""
        fields = self.model_dump(mode="json")
        for name in ("device", "workers", "overwrite"):
            del fields[name]
        paths = {name: fields.pop(name) for name in ("data", "validation", "start", "output")}
        return {"stage": "train-pose", **fields, "name": self.detector_name, "paths": paths}
