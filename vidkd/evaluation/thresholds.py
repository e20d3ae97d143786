"""The score at which a class is found best: the greatest F1."""

from __future__ import annotations

import numpy as np

LEAST = 0.02
"""Thresholds stay so far from 0 and 1."""
_FEW = 10


def best_thresholds(probabilities: np.ndarray, targets: np.ndarray) -> list[float]:
    """Return the probability of each class at which F1 is greatest.

    A class with few positive snippets takes the threshold that is best for all classes together,
    since its own would fit those few.

    Args:
        probabilities: (N, K) of snippets.
        targets: (N, K) bool.
    """
    common = best_threshold(probabilities.ravel(), targets.ravel())
    return [
        best_threshold(probabilities[:, k], targets[:, k])
        if targets[:, k].sum() >= _FEW
        else common
        for k in range(targets.shape[1])
    ]


def best_threshold(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the threshold of the greatest F1, halfway to the next lower score."""
    if not targets.any():
        return 0.5
    # F1 only rises where a positive is added: the scores of the positives are the places to cut,
    # each with all that have the same score. Few are positive, and plain sorting of the others is
    # far quicker than ranking everything.
    wanted = np.sort(probabilities[targets])
    others = np.sort(probabilities[~targets])
    cuts = np.unique(wanted)
    hits = len(wanted) - np.searchsorted(wanted, cuts)
    taken = hits + len(others) - np.searchsorted(others, cuts)
    f1 = 2 * hits / (taken + len(wanted))
    # The highest of equally good cuts.
    best = len(cuts) - 1 - int(np.argmax(f1[::-1]))
    score = cuts[best]
    below = [cuts[best - 1]] if best else []
    place = np.searchsorted(others, score)
    below += [others[place - 1]] if place else []
    lower = max(map(float, below), default=0.0)
    return float(np.clip((float(score) + lower) / 2, LEAST, 1 - LEAST))
