"""TV-L1 against motion that is known, and the numba backend against OpenCV."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from vidkd.flow import DEFAULTS, Parameters, flow_function, tvl1

BACKENDS = ["opencv", "numba"]


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth random image (H, W), float32 in 0..255."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    image = cv2.GaussianBlur(noise, (0, 0), 1.5) + 2 * cv2.GaussianBlur(noise, (0, 0), 6)
    image = (image - image.min()) / (image.max() - image.min())
    return (255 * image).astype(np.float32)


def translated_pair(dx: float, dy: float, size: tuple[int, int] = (96, 128)) -> tuple[Any, Any]:
    """Two uint8 views of one texture; its content moves by (dx, dy) pixels."""
    height, width = size
    scene = texture(height + 40, width + 40)
    xs, ys = np.meshgrid(np.arange(width) + 20.0, np.arange(height) + 20.0)
    views = [
        cv2.remap(scene, (xs - x).astype(np.float32), (ys - y).astype(np.float32), cv2.INTER_CUBIC)
        for x, y in ((0, 0), (dx, dy))
    ]
    first, second = (np.clip(np.rint(view), 0, 255).astype(np.uint8) for view in views)
    return first, second


def end_point_error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.hypot(*np.moveaxis(a.astype(np.float64) - b, -1, 0))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("motion", [(1.5, -0.75), (-3.0, 2.0), (0.0, 5.0)])
def test_known_translation_is_recovered(backend: Any, motion: tuple[float, float]) -> None:
    flow = tvl1(*translated_pair(*motion), backend=backend)
    assert flow.shape == (96, 128, 2)
    assert flow.dtype == np.float32
    inside = flow[10:-10, 10:-10]
    assert np.median(end_point_error(inside, np.array(motion))) < 0.1
    assert end_point_error(inside, np.array(motion)).mean() < 0.15


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_still_scene_has_no_motion(backend: Any) -> None:
    image = texture(60, 80).astype(np.uint8)
    assert np.abs(tvl1(image, image, backend=backend)).max() < 1e-3
    flat = np.full((40, 40), 77, np.uint8)
    assert np.abs(tvl1(flat, flat, backend=backend)).max() < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_do_not_depend_on_what_came_before(backend: Any) -> None:
    estimate = flow_function(backend)
    pair = translated_pair(2.0, 1.0)
    fresh = estimate(*pair)
    estimate(*translated_pair(1.0, 0.0, (20, 24)))
    np.testing.assert_array_equal(estimate(*pair), fresh)


@pytest.mark.parametrize("backend", BACKENDS)
def test_float_images_give_the_flow_of_the_same_bytes(backend: Any) -> None:
    first, second = translated_pair(1.0, 0.5, (48, 64))
    whole = tvl1(first, second, backend=backend)
    floats = tvl1(first.astype(np.float32), second.astype(np.float32), backend=backend)
    assert end_point_error(whole, floats).mean() < 0.01


@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_images_are_refused(backend: Any) -> None:
    image = np.zeros((32, 32), np.uint8)
    with pytest.raises(ValueError, match="one shape and type"):
        tvl1(image, image[:, :-1], backend=backend)
    with pytest.raises(ValueError, match="one shape and type"):
        tvl1(image, image.astype(np.float32), backend=backend)
    with pytest.raises(ValueError, match="uint8 or float32"):
        tvl1(image.astype(np.int32), image.astype(np.int32), backend=backend)
    with pytest.raises(ValueError, match="too small"):
        tvl1(image[:2], image[:2], backend=backend)


def test_defaults_are_those_of_opencv() -> None:
    ours = DEFAULTS
    opencv = cv2.optflow.DualTVL1OpticalFlow_create()
    assert ours == Parameters(
        tau=opencv.getTau(),
        weight=opencv.getLambda(),
        theta=opencv.getTheta(),
        scales=opencv.getScalesNumber(),
        warps=opencv.getWarpingsNumber(),
        epsilon=opencv.getEpsilon(),
        inner_iterations=opencv.getInnerIterations(),
        outer_iterations=opencv.getOuterIterations(),
        scale_step=opencv.getScaleStep(),
        median=opencv.getMedianFiltering(),
    )
    assert opencv.getGamma() == 0
