"""Scores that are right as often as they say: a temperature and a bias for the logits of a class.

Guo et al. 2017, "On Calibration of Modern Neural Networks" (temperature), and Platt 1999 (with a
bias, and targets that are drawn in by as much as one example of each kind).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LEAST_SCALE, _LARGEST_SCALE = 0.02, 50.0
_LEAST = 1e-7
FEW = 10
"""A class with fewer right or fewer wrong examples takes what fits all classes together."""

Affine = tuple[float, float]
"""Scale (one over the temperature), above 0, and bias: calibrated logit = scale logit + bias."""


def fit(scores: np.ndarray, correct: np.ndarray, *, bias: bool) -> Affine:
    """Return the scale and bias of the least cross-entropy.

    The scale is positive, so that the order of the scores stays as it is.

    Args:
        scores: (N,) in [0, 1].
        correct: (N,) bool.
        bias: fit one; otherwise it is 0.
    """
    from scipy.optimize import minimize  # half a second, which few commands need

    logits = _logits(scores)
    right = int(np.count_nonzero(correct))
    wrong = len(logits) - right
    if not right or not wrong:
        return 1.0, 0.0
    target = np.where(correct, (right + 1) / (right + 2), 1 / (wrong + 2))

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        scale = np.exp(values[0])
        found = scale * logits + values[1]
        # The derivative of the cross-entropy by the logit is sigmoid - target.
        slope = 0.5 * (1 + np.tanh(found / 2)) - target
        value = (np.logaddexp(0, found) - target * found).mean()
        gradient = np.array([(slope * logits).mean() * scale, slope.mean() if bias else 0.0])
        return float(value), gradient

    bounds = [(np.log(_LEAST_SCALE), np.log(_LARGEST_SCALE)), (-50, 50) if bias else (0, 0)]
    found = minimize(loss, np.zeros(2), jac=True, bounds=bounds, method="L-BFGS-B")
    return float(np.exp(found.x[0])), float(found.x[1])


def fit_classes(
    scores: Sequence[np.ndarray], correct: Sequence[np.ndarray], *, per_class: bool
) -> list[Affine]:
    """Return the scale and bias of each of K classes.

    Args:
        scores: of each class, in [0, 1].
        correct: of each class, bool.
        per_class: a temperature and a bias for each class; otherwise one temperature for all.
    """
    common = fit(np.concatenate(scores), np.concatenate(correct), bias=per_class)
    if not per_class:
        return [common] * len(scores)
    return [
        fit(own, right, bias=True) if min(right.sum(), (~right).sum()) >= FEW else common
        for own, right in zip(scores, correct, strict=True)
    ]


def apply(scores: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Return calibrated scores in (0, 1), in the type of ``scores``."""
    found = scale * _logits(scores) + bias
    return (0.5 * (1 + np.tanh(found / 2))).astype(np.asarray(scores).dtype)


def _logits(scores: np.ndarray) -> np.ndarray:
    clipped = np.clip(np.asarray(scores, dtype=np.float64), _LEAST, 1 - _LEAST)
    return np.log(clipped) - np.log1p(-clipped)
