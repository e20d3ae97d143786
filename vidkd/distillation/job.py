"""What came of a training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vidkd.recipe.jobs import Stage


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
