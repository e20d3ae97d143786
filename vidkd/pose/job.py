"""What came of the training of a pose detector."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


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
