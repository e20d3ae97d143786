"""How often scores are right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 15
"""Of equal width in [0, 1]; a score on a border is in the upper one, 1 in the last."""


@dataclass(frozen=True)
class Reliability:
    """How often scores are right.

    Attributes:
        count: (B,) in each of B bins of equal width over [0, 1].
        score: (B,) mean score in it; NaN where there is none.
        correct: (B,) share that is right; NaN where there is none.
        error: expected calibration error: the mean of |score - correct| over all scores.
    """

    count: np.ndarray
    score: np.ndarray
    correct: np.ndarray
    error: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        values = {name: getattr(self, name).tolist() for name in ("count", "score", "correct")}
        return {"bins": len(self.count), "expected_calibration_error": self.error, **values}


def reliability(scores: np.ndarray, correct: np.ndarray) -> Reliability:
    """Compare scores with how often they are right.

    Args:
        scores: (N,) in [0, 1].
        correct: (N,) bool.
    """
    place = np.minimum((np.asarray(scores, dtype=np.float64) * BINS).astype(int), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    total = np.bincount(place, weights=scores, minlength=BINS)
    right = np.bincount(place, weights=np.asarray(correct, dtype=float), minlength=BINS)
    empty = np.full(BINS, np.nan)
    return Reliability(
        count,
        np.divide(total, count, out=empty.copy(), where=count > 0),
        np.divide(right, count, out=empty.copy(), where=count > 0),
        float(np.abs(total - right).sum() / max(len(place), 1)),
    )
