"""``train-teacher``, ``train-baseline``, ``distill`` and ``train-encoder``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

from vidkd.cli.options import Fields, Json, with_settings
from vidkd.console import emit
from vidkd.recipe.jobs import FinetuneJob, PoseEncoderJob, TrainingJob

if TYPE_CHECKING:
    from vidkd.distillation import TrainResult
    from vidkd.finetuning import FinetuneResult

_OF_STUDENTS = ("teachers", "distillation", "unlabelled", "subsets.unlabelled")


@with_settings
def train_teacher(
    job: Annotated[TrainingJob, Fields(without=_OF_STUDENTS, defaults={"modality": "flow"})],
    as_json: Json = False,
) -> None:
    """Train a teacher on cached features, by default of optical flow.

    A finished run is left alone; an unfinished one goes on where it stopped. Several processes:
    `torchrun --nproc-per-node N -m vidkd train-teacher ...`.
    """
    _train(job, as_json)


@with_settings
def train_baseline(
    job: Annotated[TrainingJob, Fields(without=_OF_STUDENTS)],
    as_json: Json = False,
) -> None:
    """Train the vanilla baseline: the student's stream (RGB) without a teacher.

    A finished run is left alone; an unfinished one goes on where it stopped. Several processes:
    `torchrun --nproc-per-node N -m vidkd train-baseline ...`.
    """
    _train(job, as_json)


@with_settings
def distill(
    job: Annotated[TrainingJob, Fields(required=("teachers",))],
    as_json: Json = False,
) -> None:
    """Train the RGB student with one or more frozen teachers.

    A finished run is left alone; an unfinished one goes on where it stopped. Several processes:
    `torchrun --nproc-per-node N -m vidkd distill ...`.
    """
    _train(job, as_json)


def _train(job: TrainingJob, as_json: bool) -> None:
    from vidkd.distillation import train

    result = train(job)
    _print(result, "frame", {"videos": result.training_videos}, as_json)


def _print(
    result: TrainResult | FinetuneResult, unit: str, more: dict[str, object], as_json: bool
) -> None:
    """Print what a training found; of several processes, the first does."""
    if os.environ.get("RANK", "0") == "0":
        facts = {
            "run": result.output,
            "best epoch": result.best_epoch,
            "epochs": result.epochs,
            f"validation {unit} mAP": f"{100 * result.validation_map:.1f}",
            **more,
            "seconds": f"{result.seconds:.1f}",
        }
        emit(result.to_json(), as_json, tuple(facts), [tuple(facts.values())])


@with_settings
def train_encoder(
    job: Annotated[FinetuneJob | PoseEncoderJob, Fields(without=("subsets.unlabelled",))],
    as_json: Json = False,
) -> None:
    """Fine-tune an encoder on labelled snippets; RUN then works as --encoder everywhere.

    The encoder of poses, 2s-AGCN, is trained from nothing. A finished run is left alone; an
    unfinished one goes on where it stopped. Several GPUs: `torchrun --nproc-per-node N -m vidkd
    train-encoder ...`.
    """
    from vidkd.finetuning import train_encoder as train

    result = train(job)
    _print(result, "snippet", {"encoder": result.encoder}, as_json)
