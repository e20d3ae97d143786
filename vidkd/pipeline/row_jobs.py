"""What the processes of a benchmark do: train a run, keep one untrained, evaluate a row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vidkd.annotations import load_annotations
from vidkd.pipeline.scoring import score_runs
from vidkd.recipe import EvaluationSettings, FilterSettings, Modality, SegmentSettings

if TYPE_CHECKING:
    from vidkd.recipe.jobs import TrainingJob

# Added to the seed of an untrained teacher: with its own seed it would be the student itself as
# it is before the first step.
_OTHER = 7919


def train_job(job: TrainingJob) -> None:
    """Train one run."""
    from vidkd.distillation import train

    train(job)


@dataclass(frozen=True)
class UntrainedJob:
    """Write the first, random weights of a filter as those of a teacher: a control.

    Its inputs are standardised as those of a trained teacher are, so that nothing but what was
    learnt is missing.
    """

    output: Path
    cache: Path
    annotations: Path
    annotation_format: str
    training: str
    modality: Modality
    encoder: str
    filter: FilterSettings
    seed: int

    def __call__(self) -> None:
        """Write them."""
        import torch

        from vidkd.distillation.data import find_stream, load_sequences, read_rows
        from vidkd.networks import FilterHeader, build_temporal_filter, save_temporal_filter

        annotations = load_annotations(self.annotations, self.annotation_format).actions()
        stream = find_stream(self.cache, self.modality, self.encoder)
        classes = tuple(annotations.classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + _OTHER)
            module = build_temporal_filter(self.filter, stream.width, len(classes))
        if self.filter.standardise:
            videos = load_sequences([stream], annotations.subset(self.training))
            module.standardise(read_rows(video, 0) for video in videos)
        header = FilterHeader(
            filter=self.filter,
            in_features=stream.width,
            classes=classes,
            modality=stream.modality,
            encoder=stream.encoder,
            encoder_sha256=stream.weights_sha256,
            frames=stream.frames,
            snippet=stream.snippet,
            crop=stream.crop,
            training_data={"stage": "untrained"},
        )
        save_temporal_filter(self.output / "weights.safetensors", module, header)


@dataclass(frozen=True)
class EvaluateJob:
    """Score one row of a table on one subset."""

    runs: tuple[Path, ...]
    cache: Path
    annotations: Path
    annotation_format: str
    subset: str
    evaluation: EvaluationSettings
    segments: SegmentSettings
    device: str
    folder: Path

    def __call__(self) -> None:
        """Score it; see ``score_runs``."""
        truth = load_annotations(self.annotations, self.annotation_format).subset(self.subset)
        score_runs(
            self.runs, self.cache, truth, self.evaluation, self.segments, self.device, self.folder
        )
