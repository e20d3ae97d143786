"""``vidkd train-pose``: the pose detector."""

from __future__ import annotations

from vidkd.cli.options import Json, with_settings
from vidkd.console import emit
from vidkd.recipe.jobs import PoseTrainingJob


@with_settings
def train_pose(job: PoseTrainingJob, as_json: Json = False) -> None:
    """Train a pose detector; RUN then works as --detector of extract-pose.

    A finished run is left alone; an unfinished one goes on where it stopped.
    """
    from vidkd.pose.training import train_pose as train

    result = train(job)
    rows = [
        (key, f"{value:.3f}" if isinstance(value, float) else value)
        for key, value in result.validation.items()
    ]
    rows = [("best epoch", f"{result.best_epoch} of {result.epochs}"), *rows]
    emit(result.to_json(), as_json, ("validation", result.name), rows, str(result.output))
