"""What a command that trains is asked to do: its settings, and where its data are."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from vidkd.recipe.choices import (
    STUDENT_STREAM,
    STUDENT_STREAMS,
    BatchNorm,
    Modality,
    TrainingPrecision,
)
from vidkd.recipe.evaluation import SegmentSettings
from vidkd.recipe.inputs import SnippetSettings
from vidkd.recipe.pose import PoseEncoderSettings
from vidkd.recipe.settings import Option, Settings
from vidkd.recipe.training import (
    DistillationSettings,
    FilterSettings,
    OptimiserSettings,
    SubsetSettings,
)

TrainingStage = Literal["train-teacher", "train-baseline", "distill"]

_RUN = "Run"
_Annotations = Annotated[Path, Option(unit="FILE", common=True)]
_Format = Annotated[str, Option("--format", unit="FORMAT", table="vidkd.datasets")]
_Output = Annotated[Path, Option(unit="RUN", common=True, panel="Data")]
_Seed = Annotated[int, Option(common=True, panel=_RUN)]
_OPTIMISER = "Optimiser"
_TRAINED = Option(common=True, panel=_OPTIMISER)


class _Job(Settings):
    """What every training is told."""

    device: Annotated[str, Option(unit="DEVICE", common=True, panel=_RUN)] = "auto"
    """Where to compute: auto, cpu, cuda or cuda:N."""
    overwrite: Annotated[bool, Option(common=True, panel=_RUN)] = False
    """Train again when the folder holds a run with other settings, instead of stopping."""


class TrainingJob(_Job):
    """One training run: a teacher, a vanilla baseline, or a student with its teachers."""

    model_config = ConfigDict(title="Data")

    output: _Output
    """The run folder."""
    cache: Annotated[Path, Option(unit="DIR", common=True)]
    """The cache folder with the features."""
    annotations: _Annotations
    """The annotations of the videos."""
    annotation_format: _Format = "auto"
    """Format of the annotations."""
    modality: Annotated[Modality, Option(unit="STREAM", common=True, table="vidkd.streams")] = (
        STUDENT_STREAM
    )
    """Stream whose features are trained on."""
    encoder: Annotated[str | None, Option(unit="NAME", common=True)] = None
    """Encoder of the features. Default: the only one of its modality in the cache."""
    teachers: Annotated[tuple[Path, ...], Option("--teacher", unit="RUN", common=True)] = ()
    """Run folder of a teacher; several may be given."""
    filter: FilterSettings = FilterSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    distillation: DistillationSettings = DistillationSettings()
    subsets: SubsetSettings = SubsetSettings()
    segments: Annotated[SegmentSettings, Option("segment")] = SegmentSettings()
    """Kept in the header of the weights for detection; training does not use them."""
    calibrate: Literal["none", "temperature", "per-class"] = "none"
    """Make scores probabilities, fitted on the validation subset: one temperature for all classes,
    or a temperature and a bias for each. Detection then takes the plain threshold 0.5 instead of
    that of the best F1."""
    unlabelled: bool = False
    """Distil also on the cached videos that the annotations do not name."""
    skip_missing: Annotated[bool, Option(common=True)] = False
    """Leave out annotated videos that have no features, instead of stopping."""
    memory: Annotated[float | None, Field(ge=0), Option(unit="GIB", panel=_RUN)] = None
    """GiB of features to keep in memory; the rest goes to a scratch file in the run folder. It does
    not change the result. Default: a quarter of the free memory."""

    @model_validator(mode="after")
    def _sensible(self) -> TrainingJob:
        if self.unlabelled and not self.teachers:
            raise ValueError("videos without labels teach nothing without a teacher")
        if self.teachers and self.optimiser.batch_size <= self.distillation.negatives:
            raise ValueError("the batch must hold a positive and its negatives")
        return self

    @property
    def stage(self) -> TrainingStage:
        """What kind of run this is, by the name of its command."""
        if self.teachers:
            return "distill"
        return "train-baseline" if self.modality in STUDENT_STREAMS else "train-teacher"


class _EncoderJob(_Job):
    """What both kinds of encoders are trained with."""

    modality: Annotated[
        Modality, Option(unit="STREAM", common=True, panel="Data", table="vidkd.streams")
    ]
    """Stream of the encoder; flow needs extract-flow first, and pose extract-pose."""
    annotations: Annotated[Path, Option(unit="FILE", common=True, panel="Data")]
    """The annotations of the videos."""
    output: _Output
    """The run folder, which then works as --encoder of other commands."""
    name: Annotated[str | None, Option(unit="NAME", panel=_RUN)] = None
    """Name of the trained encoder in caches. Default: that of the run folder."""
    annotation_format: Annotated[
        str, Option("--format", unit="FORMAT", panel="Data", table="vidkd.datasets")
    ] = "auto"
    """Format of the annotations."""
    subsets: SubsetSettings = SubsetSettings()

    @model_validator(mode="after")
    def _named(self) -> Self:
        # The name is also that of a folder and a file.
        if not re.fullmatch(r"\w[\w.+-]*", self.card_name):
            raise ValueError("--name must consist of letters, digits and . _ + -")
        return self

    @property
    def card_name(self) -> str:
        """The name of the trained encoder and of its folder in a cache."""
        return self.name or self.output.resolve().name

    def recipe(self) -> dict[str, Any]:
        """Return the settings that decide the result, as JSON values, with paths set apart."""
        fields = self.model_dump(mode="json", exclude={"device", "workers", "overwrite"})
        names = fields.keys() & {"annotations", "videos", "cache", "output", "encoder"}
        paths = {name: fields.pop(name) for name in sorted(names)}
        return {"stage": "train-encoder", **fields, "name": self.card_name, "paths": paths}


class FinetuneJob(_EncoderJob):
    """Everything that ``vidkd train-encoder`` is told."""

    model_config = ConfigDict(title="Data")

    encoder: Annotated[str | None, Option(unit="NAME|RUN", common=True)] = None
    """Where to start: a model of `vidkd models list`, or a run of this command. Default:
    i3d-flow-inflated for flow, else i3d-rgb-kinetics400."""
    videos: Annotated[Path | None, Option(unit="DIR", common=True)] = None
    """For rgb and rgb-difference: folder of the videos, or a .txt list of them."""
    cache: Annotated[Path | None, Option(unit="DIR", common=True)] = None
    """For flow and pose: the cache that holds them."""
    short_side: Annotated[
        int, Field(ge=32, le=2160), Option(unit="PIXELS", common=True, panel="Input")
    ] = 256
    """Pixels of the shorter side of --videos after the resize; that of flow is the cache's."""
    frame_rate: Annotated[float | None, Field(gt=0, le=1000), Option(unit="FPS", panel="Input")] = (
        None
    )
    """Frames per second to sample from --videos. Default: their own frames."""
    snippet: SnippetSettings = SnippetSettings()
    """The length of a snippet; the stride is that of validation."""
    crop: Annotated[
        int, Field(ge=32, le=512), Option(unit="PIXELS", common=True, panel="Input")
    ] = 224
    """Pixels of the side of the square that the encoder sees."""
    epochs: Annotated[int, Field(ge=1), _TRAINED] = 20
    """Epochs to train, of --snippets-per-epoch snippets each."""
    batch_size: Annotated[
        int, Field(ge=1), Option(unit="SNIPPETS", common=True, panel=_OPTIMISER)
    ] = 16
    """Snippets per step of the optimiser, over all processes and accumulated parts."""
    accumulate: Annotated[int, Field(ge=1), Option(unit="PARTS", panel=_OPTIMISER)] = 1
    """Parts in which each process computes its share of a batch."""
    learning_rate: Annotated[float, Field(gt=0), _TRAINED] = 1e-4
    """Learning rate of AdamW at the start; it falls to zero along a half cosine.

    The new head learns ten times as fast, for it starts from nothing.
    """
    weight_decay: Annotated[float, Field(ge=0), Option(panel=_OPTIMISER)] = 1e-4
    """Weight decay of AdamW."""
    dropout: Annotated[float, Field(ge=0, lt=1), Option(panel=_OPTIMISER)] = 0.5
    """Share of the features that are set to zero before the classifier in training."""
    precision: Annotated[TrainingPrecision, Option(panel=_OPTIMISER)] = "auto"
    """Type that convolutions are computed in; auto: bf16 (or fp16) on a GPU, float32 on a CPU."""
    freeze_until: Annotated[str | None, Option(unit="LAYER", panel=_OPTIMISER)] = None
    """Layers up to this one are not trained, such as Mixed_4f. Default: all are trained."""
    batch_norm: Annotated[BatchNorm, Option(panel=_OPTIMISER)] = "frozen"
    """Statistics of the batch normalisation: updated with every batch, kept, or measured on
    training snippets first and then kept."""
    snippets_per_epoch: Annotated[int, Field(ge=1), Option(unit="SNIPPETS", panel=_OPTIMISER)] = (
        2048
    )
    """Snippets drawn for an epoch."""
    validation_snippets: Annotated[int, Field(ge=1), Option(unit="SNIPPETS", panel=_OPTIMISER)] = (
        4096
    )
    """Validate on at most so many snippets, spread evenly."""
    seed: _Seed = 0
    """Seed of everything random."""
    workers: Annotated[int, Field(ge=0), Option(unit="PROCESSES", panel=_RUN)] = 2
    """Processes that read and decode snippets, per training process; 0 reads in that process."""

    @model_validator(mode="after")
    def _sensible(self) -> FinetuneJob:
        if self.snippets_per_epoch < self.batch_size:
            raise ValueError("an epoch must hold at least one batch")
        return self


class PoseEncoderJob(PoseEncoderSettings, _EncoderJob):
    """Everything that ``vidkd train-encoder --modality pose`` is told."""

    model_config = ConfigDict(title="pose")

    modality: Annotated[Literal["pose"], Option(common=True, panel="Data")] = "pose"
    """Stream of the encoder."""
    cache: Annotated[Path, Option(unit="DIR", common=True, panel="Data")]
    """The cache that holds the poses of the videos."""
    snippet: SnippetSettings = SnippetSettings()
    """The length of a snippet; the stride is that of validation."""

    @model_validator(mode="after")
    def _fits_caches(self) -> PoseEncoderJob:
        if self.network.skeleton != "lcrnet-13":
            raise ValueError("a pose cache holds the skeleton lcrnet-13")
        return self

    def made_of(self, annotations_sha256: str) -> str:
        """Return a hash of the settings and the labels, as the encoder and its features carry it.

        Whoever has the features alone can tell by it whether they are what a recipe asks for.
        """
        fields = self.recipe()
        for name in ("name", "paths", "annotation_format"):
            del fields[name]
        text = json.dumps({**fields, "annotations": annotations_sha256}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class PoseTrainingJob(_Job):
    """Everything that ``vidkd pose train`` is told."""

    model_config = ConfigDict(title="Optimiser")

    data: Annotated[
        tuple[Path, ...],
        Field(min_length=1),
        Option(unit="DIR|labels.json", common=True, panel="Data"),
    ]
    """A folder of `vidkd synth`, or labelled pictures; several may be given, and each is drawn from
    equally often."""
    output: _Output
    """The run folder, which then works as --detector of extract-pose."""
    validation: Annotated[
        tuple[Path, ...], Option(unit="DIR|labels.json", common=True, panel="Data")
    ] = ()
    """The same, to choose the best epoch by. Default: every tenth video of --data."""
    start: Annotated[str | None, Option(unit="NAME|RUN", common=True, panel="Detector")] = None
    """Go on from this detector, with its anchor poses and backbone. Default: from nothing."""
    name: Annotated[str | None, Option(unit="NAME", panel=_RUN)] = None
    """Name of the detector in caches. Default: that of the run folder."""
    backbone: Annotated[
        Literal["inception", "resnet50-fpn"], Option(common=True, panel="Detector")
    ] = "inception"
    """Backbone; inception is fast enough for one core of a CPU."""
    pretrained: Annotated[bool, Option(panel="Detector")] = True
    """Start the inception backbone from I3D's RGB weights, and keep its lower layers."""
    full: Annotated[int, Field(ge=1, le=1000), Option(unit="POSES", panel="Detector")] = 20
    """Anchor poses of the full body."""
    upper: Annotated[int, Field(ge=0, le=1000), Option(unit="POSES", panel="Detector")] = 8
    """Anchor poses of the upper body."""
    short_side: Annotated[
        int, Field(ge=64, le=1024), Option(unit="PIXELS", common=True, panel="Detector")
    ] = 192
    """Pixels of the shorter side of a picture that the detector sees."""
    pictures: Annotated[int, Field(ge=1), Option(unit="PICTURES", common=True)] = 60_000
    """Pictures to train on in all, each varied at random."""
    pictures_per_epoch: Annotated[int, Field(ge=1), Option(unit="PICTURES")] = 4000
    """Pictures of an epoch, after which the detector is validated."""
    batch_size: Annotated[int, Field(ge=2), Option(unit="PICTURES", common=True)] = 16
    """Pictures per step."""
    learning_rate: Annotated[float, Field(gt=0), Option(common=True)] = 1e-3
    """Learning rate of AdamW after the warm-up; it falls to zero along a half cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    """Weight decay of AdamW."""
    validation_pictures: Annotated[int, Field(ge=1), Option(unit="PICTURES")] = 400
    """Validate on at most so many pictures, spread evenly."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Type that convolutions are computed in; auto: bf16 on a GPU, float32 on a CPU."""
    seed: _Seed = 0
    """Seed of everything random."""
    workers: Annotated[int, Field(ge=1), Option(unit="THREADS", panel=_RUN)] = 1
    """Threads that prepare pictures."""

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
        fields = self.model_dump(mode="json", exclude={"device", "workers", "overwrite"})
        paths = {name: fields.pop(name) for name in ("data", "validation", "start", "output")}
        return {"stage": "train-pose", **fields, "name": self.detector_name, "paths": paths}
