"""What came of the training of a pose detector."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PoseTrainingResult:
    """What a finished run found."""

    output: Path
    """The run folder."""
    name: str
    """Of the detector."""
    weights_sha256: str
    """Hash of its weights, as the provenance of poses has it."""
    best_epoch: int
    """The epoch whose weights are kept, counted from 1."""
    epochs: int
    """How many were trained."""
    validation: dict[str, float]
    """The scores (:class:`vidkd.pose.metrics.PoseScores`) of that epoch."""
    training_pictures: int
    """Pictures to draw from."""
    validation_pictures: int
    """Pictures validated on."""
    seconds: float
    """Time spent, over all resumed parts."""
    skipped: bool = False
    """The run was finished before and nothing was done."""

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {**asdict(self), "output": str(self.output)}
