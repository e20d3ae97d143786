"""The thresholds kept with a model, against a search over all of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidkd.distillation.validation import Validation


def f1(probabilities, targets, threshold):
    found = probabilities >= threshold
    return 2 * (found & targets).sum() / max(1, found.sum() + targets.sum())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(12, 80), st.sampled_from([3, 20, 1000]))
def test_no_other_threshold_has_a_greater_f1(seed, count, levels):
    rng = np.random.default_rng(seed)
    targets = rng.random(count) < 0.4
    targets[:10] = True
    # Few levels make ties, which no threshold can separate.
    probabilities = np.clip(rng.normal(0.3 + 0.2 * targets, 0.2), 0.05, 0.95)
    probabilities = np.round(probabilities * levels) / levels
    probabilities = np.clip(probabilities, 0.05, 0.95)
    found = Validation(0.0, 0.0, probabilities[:, None], targets[:, None]).thresholds()[0]
    best = max(f1(probabilities, targets, level) for level in np.unique(probabilities))
    assert f1(probabilities, targets, found) == pytest.approx(best)
    assert 0 < found < 1


def test_a_class_with_few_positives_takes_the_common_threshold():
    rng = np.random.default_rng(0)
    targets = np.zeros((200, 2), dtype=bool)
    targets[:60, 0] = True
    targets[:2, 1] = True
    probabilities = np.clip(rng.normal(0.2 + 0.4 * targets, 0.1), 0.01, 0.99)
    first, second = Validation(0.0, 0.0, probabilities, targets).thresholds()
    both = Validation(0.0, 0.0, probabilities.reshape(-1, 1), targets.reshape(-1, 1))
    assert second == both.thresholds()[0]
    assert first != second


def test_without_positives_the_threshold_is_a_half():
    nothing = Validation(0.0, 0.0, np.full((9, 1), 0.2), np.zeros((9, 1), dtype=bool))
    assert nothing.thresholds() == [0.5]
