"""What a pose detector is to be trained on and how, and what came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from vidkd.networks.lcrnet import Backbone
from vidkd.recipe import Settings


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
    backbone: Backbone = "inception"
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
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    seed: int = 0
    device: str = "auto"
    workers: Annotated[int, Field(ge=1)] = 1
    """Threads that prepare pictures."""
    overwrite: bool = False

    @model_validator(mode="after")
    def _sensible(self) -> PoseTrainingJob:
        if min(self.pictures_per_epoch, self.pictures) < self.batch_size:
            raise ValueError("an epoch must hold at least one batch")
        if self.precision == "fp16":
            raise ValueError("precision: fp16 is not supported, its range is too small here")
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


@dataclass(frozen=True)
class PoseTrainingResult:
    """What a finished run found.

    Attributes:
        output: the run folder.
        name: of the detector.
        weights_sha256: hash of its weights, as the provenance of poses has it.
        best_epoch: the epoch whose weights are kept, counted from 1.
        epochs: how many were trained.
        validation: the scores (:class:`vidkd.pose.metrics.PoseScores`) of that epoch.
        training_pictures: pictures to draw from.
        validation_pictures: pictures validated on.
        seconds: time spent, over all resumed parts.
        skipped: the run was finished before and nothing was done.
    """

    output: Path
    name: str
    weights_sha256: str
    best_epoch: int
    epochs: int
    validation: dict[str, float]
    training_pictures: int
    validation_pictures: int
    seconds: float
    skipped: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {**asdict(self), "output": str(self.output)}
