"""The stages of an experiment that are about poses: extraction, 2s-AGCN, its features.

Other encoders come trained. That of poses is trained by the recipe itself, once, on its training
videos, with the epoch chosen on its validation videos; its features then serve all seeds.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from vidkd.features import JobResult, run_jobs
from vidkd.pipeline.stages import Stage
from vidkd.recipe import PoseSettings

if TYPE_CHECKING:
    from vidkd.pipeline.experiment import Experiment


def encoder_run(experiment: Experiment) -> Path:
    """Return the run folder of the recipe's 2s-AGCN."""
    return experiment.layout.root / "models" / experiment.recipe.encoders["pose"].name


def pose_stages(experiment: Experiment) -> list[Stage]:
    """Return the stages from video to features of poses, in order."""
    recipe, cache = experiment.recipe, experiment.layout.cache
    poses = recipe.model_dump(mode="json", include={"synth", "data", "frames", "pose"})
    trained = {"snippet", "encoders", "pose_encoder", "subsets"}
    training = {**poses, **recipe.model_dump(mode="json", include=trained)}
    folder = cache / "features" / recipe.encoders["pose"].name
    return [
        Stage("pose", poses, [cache / "pose"], experiment.extract_pose),
        Stage(
            "encoder-pose",
            training,
            [encoder_run(experiment) / "result.json"],
            functools.partial(train_encoder, experiment),
        ),
        Stage(
            "features-pose",
            training,
            [folder],
            functools.partial(experiment.extract_features, "pose"),
        ),
    ]


def extract(experiment: Experiment, workers: int) -> list[JobResult]:
    """Extract the poses of every annotated video, as ``vidkd extract-pose`` does."""
    from vidkd.features.pose import pose_task

    recipe = experiment.recipe
    chosen = recipe.pose
    poses = chosen.poses
    if chosen.backend == "files" and poses is None and recipe.synth is not None:
        poses = experiment.layout.data / "poses"
    task = pose_task(
        experiment.layout.cache,
        recipe.frames,
        PoseSettings.model_validate(chosen.model_dump(include=set(PoseSettings.model_fields))),
        detector=chosen.detector,
        poses=poses,
        device=experiment.device,
        overwrite=experiment.overwrite,
    )
    return run_jobs(experiment.videos, task, workers=workers, overwrite=experiment.overwrite)


def train_encoder(experiment: Experiment) -> None:
    """Train the recipe's 2s-AGCN, as ``vidkd train-encoder --modality pose`` does."""
    from vidkd.finetuning.pose import train_pose_encoder
    from vidkd.finetuning.pose_job import PoseEncoderJob

    recipe = experiment.recipe
    job = PoseEncoderJob(
        **recipe.pose_encoder.model_dump(),
        annotations=experiment.annotations_file,
        annotation_format=experiment.annotation_format,
        output=encoder_run(experiment),
        cache=experiment.layout.cache,
        subsets=recipe.subsets,
        snippet=recipe.snippet,
        device=experiment.device,
        overwrite=experiment.overwrite,
    )
    train_pose_encoder(job)


def extract_features(experiment: Experiment, workers: int) -> list[JobResult]:
    """Encode the poses of every annotated video, as ``vidkd extract-features`` does."""
    from vidkd.features.pose_features import pose_feature_task

    task = pose_feature_task(
        experiment.layout.cache,
        str(encoder_run(experiment)),
        experiment.recipe.frames,
        experiment.recipe.snippet,
        device=experiment.device,
        overwrite=experiment.overwrite,
    )
    return run_jobs(experiment.videos, task, workers=workers, overwrite=experiment.overwrite)
