"""The 8-bit form of flow: properties that hold for every bound and every motion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vidkd.flow import dequantise, quantise

bounds = st.floats(0.5, 200)
flows = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=3), elements=st.floats(-400, 400, width=32)
)


@given(bounds)
def test_zero_motion_is_exact(bound: float) -> None:
    stored = quantise(np.zeros((3, 4, 2), np.float32), bound)
    assert (stored == 128).all()
    assert (dequantise(stored, bound) == 0).all()


@given(flows, bounds)
def test_error_is_at_most_half_a_step_inside_the_bound_and_clips_outside(
    flow: np.ndarray, bound: float
) -> None:
    restored = dequantise(quantise(flow, bound), bound)
    assert restored.dtype == np.float32
    half_step = bound / 254
    error = np.abs(restored - np.clip(flow, -bound, bound))
    assert error.max() <= half_step * 1.001 + 1e-4


@given(flows, bounds)
def test_values_are_1_to_255_and_mirror_around_128(flow: np.ndarray, bound: float) -> None:
    stored = quantise(flow, bound)
    assert stored.dtype == np.uint8
    assert stored.min() >= 1
    np.testing.assert_array_equal(256 - stored.astype(int), quantise(-flow, bound))


def test_every_stored_value_survives_a_round_trip() -> None:
    stored = np.arange(1, 256, dtype=np.uint8)
    np.testing.assert_array_equal(quantise(dequantise(stored)), stored)
    assert dequantise(stored)[[0, -1]] == pytest.approx([-20, 20])
