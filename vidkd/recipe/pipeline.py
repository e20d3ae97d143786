"""One experiment of ``pipelines/*.yaml``, and where it is found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from vidkd.errors import UsageError
from vidkd.files import resources
from vidkd.recipe.benchmark import BenchmarkSettings
from vidkd.recipe.choices import STUDENT_STREAM, Modality, Precision
from vidkd.recipe.evaluation import EvaluationSettings, SegmentSettings
from vidkd.recipe.inputs import (
    FlowSettings,
    FrameSettings,
    PoseSettings,
    SnippetSettings,
    SynthSettings,
)
from vidkd.recipe.paper import PaperSet
from vidkd.recipe.pose import PoseEncoderSettings
from vidkd.recipe.settings import Settings, describe
from vidkd.recipe.training import (
    DistillationSettings,
    FilterSettings,
    OptimiserSettings,
    SubsetSettings,
)


class EncoderSettings(Settings):
    """One encoder and the square it sees, cut from the middle of the resized frame."""

    name: str
    crop: Annotated[int, Field(ge=32, le=512)] = 224
    precision: Precision = "auto"
    """``int8``: the recipe quantises the encoder on its own training videos first."""

    @property
    def given_crop(self) -> int | None:
        """The crop, or None when the recipe leaves it to the encoder's card."""
        return self.crop if "crop" in self.model_fields_set else None


class PoseExtraction(PoseSettings):
    """The poses of a recipe: where they come from, at the recipe's frames."""

    detector: str | None = None
    """Name or file; None takes the one that ships with vidkd."""
    poses: Path | None = None
    """For the backend ``files``: where they are. A rendered data set has exact ones of its own."""

    @property
    def settings(self) -> PoseSettings:
        """How they are made, without where from."""
        return PoseSettings.model_validate(self.model_dump(include=set(PoseSettings.model_fields)))


class FolderData(Settings):
    """A folder of videos with one annotation file; ``vidkd run`` can override both paths."""

    videos: Path | None = None
    annotations: Path | None = None
    format: str = "auto"


class Pipeline(Settings):
    """One recipe of ``pipelines/``: every stage and hyper-parameter from video to the table."""

    name: str
    description: str
    data: FolderData | None = None
    synth: SynthSettings | None = None
    frames: FrameSettings = FrameSettings()
    snippet: SnippetSettings = SnippetSettings()
    flow: FlowSettings = FlowSettings()
    pose: PoseExtraction = PoseExtraction()
    student: Modality = STUDENT_STREAM
    """Stream of the students and of vanilla RGB, made of RGB frames: ``rgb`` or ``rgb-person``."""
    encoders: dict[Modality, EncoderSettings]
    """That of pose is trained by the recipe itself, and its ``crop`` means nothing."""
    pose_encoder: PoseEncoderSettings = PoseEncoderSettings()
    filter: FilterSettings = FilterSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    distillation: DistillationSettings = DistillationSettings()
    teachers: tuple[Modality, ...] = ("flow",)
    fused: tuple[Annotated[tuple[Modality, ...], Field(min_length=2)], ...] = ()
    """Further rows of ``vidkd run``: vanilla RGB (``rgb``) and teachers in one file that runs on
    video alone, with weights chosen on validation."""
    seeds: tuple[int, ...] = (0,)
    subsets: SubsetSettings = SubsetSettings()
    segments: SegmentSettings = SegmentSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    dataset: PaperSet | None = None
    """The data set of the paper that this is, so that its numbers can be printed beside ours."""
    benchmark: BenchmarkSettings = BenchmarkSettings()

    @property
    def sampling(self) -> FrameSettings:
        """The frames, the same for all streams: their encoders' cards do not count."""
        return FrameSettings.model_validate(self.frames.model_dump())

    @model_validator(mode="after")
    def _complete(self) -> Pipeline:
        if (self.data is None) == (self.synth is None):
            raise ValueError("give either data (a folder of videos) or synth (rendered videos)")
        missing = [name for name in (self.student, *self.teachers) if name not in self.encoders]
        if missing:
            raise ValueError(f"encoders lacks {', '.join(missing)}")
        unknown = {m for row in self.fused for m in row} - self.encoders.keys()
        if unknown:
            raise ValueError(f"fused names {', '.join(sorted(unknown))}, which has no encoder")
        if self.student in self.teachers:
            raise ValueError(f"{self.student} is the student's stream, and cannot be its teacher's")
        for method in self.benchmark.methods:
            values = {**self.distillation.model_dump(), **method.distillation}
            try:
                DistillationSettings.model_validate(values)
            except ValidationError as error:
                raise ValueError(f"method {method.name!r}: {describe(error)}") from error
        return self

    def with_data(self, videos: Path | None, annotations: Path | None) -> Pipeline:
        """Return the recipe on another folder of videos or annotation file.

        Raises:
            UsageError: the recipe renders its own videos.
        """
        if self.data is None:
            raise UsageError(
                f"recipe {self.name} renders its own videos",
                remedy="leave out --videos and --annotations",
            )
        given = {"videos": videos, "annotations": annotations}
        data = self.data.model_copy(update={k: v for k, v in given.items() if v is not None})
        return self.model_copy(update={"data": data})


def pipeline_path(name: str | Path) -> Path:
    """Return the file of a recipe given as a path, or by its name in ``pipelines/``."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return path
    known = {item.stem: item for item in sorted(resources("pipelines").glob("*.yaml"))}
    # `pipelines/demo.yaml` works from any folder, not only from a source checkout.
    if path.stem in known and path.parent.name in {"", "pipelines"}:
        return known[path.stem]
    raise UsageError(
        "there is no such recipe",
        path=path,
        remedy=f"give a YAML file or one of {', '.join(known)}",
    )
