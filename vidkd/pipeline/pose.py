"""The stages of an experiment that are about poses: extraction, 2s-AGCN, its features.

Other encoders come trained. That of poses is trained by the recipe itself, once for each division
of the videos, on its training videos, with the epoch chosen on its validation videos; its features
then serve all seeds.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from vidkd.features import FeatureSettings, Task, feature_task, run_jobs
from vidkd.pipeline.stages import Stage
from vidkd.pipeline.workplace import Workplace, succeed
from vidkd.streams import STREAMS

if TYPE_CHECKING:
    from vidkd.recipe.jobs import PoseEncoderJob


def encoder_run(place: Workplace) -> Path:
    """Return the run folder of the 2s-AGCN of this division."""
    return place.layout.root / "models" / place.encoder_name("pose")


def pose_stages(place: Workplace) -> list[Stage]:
    """Return the stages from video to features of poses, in order."""
    poses = place.part("synth", "data", "frames", "pose")
    training = {**poses, **place.part("snippet", "encoders", "pose_encoder", "subsets")}
    run, features = encoder_run(place), place.features_folder("pose")
    return [
        Stage("pose", poses, [place.layout.cache / "pose"], functools.partial(extract, place)),
        Stage(
            "encoder-pose",
            training,
            [run / "result.json"],
            functools.partial(train_pose_encoder, place),
        ),
        Stage("features-pose", training, [features], functools.partial(extract_features, place)),
    ]


def extract(place: Workplace) -> None:
    """Extract the poses of every annotated video, as ``vidkd extract-pose`` does."""
    from vidkd.features.poses import pose_task

    recipe = place.recipe
    chosen = recipe.pose
    poses = chosen.poses
    if chosen.backend == "files" and poses is None and recipe.synth is not None:
        poses = place.layout.data / "poses"
    task = pose_task(
        place.layout.cache,
        recipe.frames,
        chosen.settings,
        detector=chosen.detector,
        poses=poses,
        device=place.device,
        overwrite=place.overwrite,
    )
    _run(place, task)


def encoder_job(place: Workplace) -> PoseEncoderJob:
    """Return what the recipe's 2s-AGCN is trained on, and how."""
    from vidkd.recipe.jobs import PoseEncoderJob

    recipe = place.recipe
    return PoseEncoderJob(
        **recipe.pose_encoder.model_dump(),
        annotations=place.division.path,
        annotation_format=place.division.format,
        output=encoder_run(place),
        cache=place.layout.cache,
        subsets=recipe.subsets,
        snippet=recipe.snippet,
        device=place.device,
        overwrite=place.retrain,
    )


def train_pose_encoder(place: Workplace) -> None:
    """Train the recipe's 2s-AGCN, as ``vidkd train-encoder --modality pose`` does."""
    from vidkd.finetuning import train_encoder

    train_encoder(encoder_job(place))


def extract_features(place: Workplace) -> None:
    """Encode the poses of every annotated video, as ``vidkd extract-features`` does."""
    recipe = place.recipe
    settings = FeatureSettings(
        STREAMS["pose"],
        str(encoder_run(place)),
        recipe.frames,
        recipe.snippet,
        device=place.device,
    )
    _run(place, feature_task(place.layout.cache, settings, overwrite=place.overwrite))


def _run(place: Workplace, task: Task) -> None:
    """Do a task with every annotated video."""
    workers = place.encoding_workers
    succeed(run_jobs(place.division.videos, task, workers=workers))
