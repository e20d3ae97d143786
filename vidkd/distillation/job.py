"""What a training run is asked to do, and what it says when it is done."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from vidkd.recipe import (
    DistillationSettings,
    FilterSettings,
    Modality,
    OptimiserSettings,
    SegmentSettings,
    Settings,
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


@dataclass(frozen=True)
class TrainResult:
    """What a finished run found.

    Attributes:
        output: the run folder.
        stage: ``train-teacher``, ``train-baseline`` or ``distill``.
        best_epoch: the epoch whose weights are kept, counted from 1.
        epochs: how many were trained.
        validation_map: frame mAP of the best epoch on the validation subset, in [0, 1], over the
            classes present there.
        training_videos: how many were trained on; ``unlabelled_videos`` of them had no labels.
        unlabelled_videos: see above.
        validation_videos: how many were validated on.
        seconds: time spent training, over all resumed parts.
        skipped: the run was finished before and nothing was done.
    """

    output: Path
    stage: Stage
    best_epoch: int
    epochs: int
    validation_map: float
    training_videos: int
    unlabelled_videos: int
    validation_videos: int
    seconds: float
    skipped: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {**asdict(self), "output": str(self.output)}
