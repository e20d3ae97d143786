"""What came of the training of an encoder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FinetuneResult:
    """What a finished run found.

    Attributes:
        output: the run folder.
        encoder: name of the trained encoder.
        weights_sha256: hash of its weights, as features made with it record it.
        best_epoch: the epoch whose weights are kept, counted from 1.
        epochs: how many were trained.
        validation_map: snippet mAP of the best epoch, in [0, 1], over the classes present.
        training_videos: videos trained on.
        validation_videos: videos validated on.
        seconds: time spent, over all resumed parts.
        skipped: the run was finished before and nothing was done.
    """

    output: Path
    encoder: str
    weights_sha256: str
    best_epoch: int
    epochs: int
    validation_map: float
    training_videos: int
    validation_videos: int
    seconds: float
    skipped: bool = False

    @property
    def summary(self) -> str:
        """The best epoch in words."""
        return (
            f"best validation snippet mAP {100 * self.validation_map:.1f} "
            f"in epoch {self.best_epoch}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {**asdict(self), "output": str(self.output)}
