"""Calibration of scores, on scores whose probabilities are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidkd.evaluation.calibration import apply, fit, fit_classes
from vidkd.evaluation.predictions import Candidates
from vidkd.evaluation.reliability import reliability


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def drawn(scale: float, bias: float, count: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and outcomes whose true probability is sigmoid(scale logit + bias)."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, count)
    return sigmoid(logits), rng.random(count) < sigmoid(scale * logits + bias)


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (0.4, -1.5), (2.5, 1.0)])
def test_the_true_scale_and_bias_are_found(scale: float, bias: float) -> None:
    scores, correct = drawn(scale, bias)
    found = fit(scores, correct, bias=True)
    assert found == pytest.approx((scale, bias), abs=0.08)
    after = reliability(apply(scores, *map(np.asarray, found)), correct).error
    assert after < 0.015
    assert after <= reliability(scores, correct).error + 0.005


def test_a_temperature_alone_leaves_one_half_where_it_is() -> None:
    scores, correct = drawn(0.4, 0.0)
    scale, bias = fit(scores, correct, bias=False)
    assert (scale, bias) == (pytest.approx(0.4, abs=0.05), 0.0)
    assert apply(np.array([0.5]), np.array(scale), np.array(bias)) == 0.5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.booleans())
def test_the_ranking_within_a_class_stays(seed: int, count: int, per_class: bool) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.random((count, 3))
    targets = rng.random((count, 3)) < rng.random(3)
    found = np.array(fit_classes(list(scores.T), list(targets.T), per_class=per_class))
    assert (found[:, 0] > 0).all()
    after = apply(scores, *found.T)
    assert ((after > 0) & (after < 1)).all()
    for own, made in zip(scores.T, after.T, strict=True):
        assert (np.diff(made[np.argsort(own)]) >= 0).all()


def test_a_class_with_few_examples_takes_what_fits_all() -> None:
    scores, correct = drawn(0.5, -1.0, 2000)
    few = np.array([0.9, 0.8]), np.array([False, False])
    first, second = fit_classes([scores, few[0]], [correct, few[1]], per_class=True)
    common = fit(np.append(scores, few[0]), np.append(correct, few[1]), bias=True)
    assert second == common
    assert first == fit(scores, correct, bias=True)


def test_nothing_to_learn_changes_nothing() -> None:
    assert fit(np.array([0.2, 0.9]), np.array([True, True]), bias=True) == (1.0, 0.0)
    assert fit(np.zeros(0), np.zeros(0, dtype=bool), bias=True) == (1.0, 0.0)


def test_candidates_take_the_calibration_of_their_class() -> None:
    half = np.array([0.5, 0.5])
    found = Candidates(np.array([1, 0]), half, half, half + 1).calibrated([(1, 0), (1, 2)])
    assert found.score == pytest.approx([sigmoid(2.0), 0.5])
