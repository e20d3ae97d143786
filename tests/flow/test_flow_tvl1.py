"""TV-L1 against motion that is known, and the numba backend against OpenCV."""

from __future__ import annotations

import os
import platform
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numba
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


def assert_agrees_with_opencv(pair: tuple[Any, Any], parameters: Parameters = DEFAULTS) -> None:
    expected = tvl1(*pair, backend="opencv", parameters=parameters)
    actual = tvl1(*pair, backend="numba", parameters=parameters)
    assert end_point_error(actual, expected).mean() <= 0.01
    if sys.platform == "linux" and platform.machine() == "x86_64":
        # Elsewhere OpenCV may be compiled with fused multiply-add, which rounds differently.
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("size", [(96, 128), (37, 53), (64, 33), (17, 16), (5, 9)])
def test_numba_agrees_with_opencv_on_moving_texture(size: tuple[int, int]) -> None:
    assert_agrees_with_opencv(translated_pair(2.3, -1.2, size))


def test_numba_agrees_with_opencv_where_objects_move_over_a_flat_background() -> None:
    """Occlusion, flat regions and motion out of the frame, which translation does not have."""
    first, second = (np.full((72, 90), 60, np.uint8) for _ in range(2))
    patch = texture(30, 30, seed=5).astype(np.uint8)
    first[20:50, 10:40], second[22:52, 14:44] = patch, patch
    first[:30, 62:], second[:30, 65:] = patch[:, :28], patch[:, :25]
    assert_agrees_with_opencv((first, second))


@pytest.mark.parametrize(
    "parameters",
    [
        Parameters(epsilon=1e-6, warps=2, outer_iterations=3),
        Parameters(tau=0.2, weight=0.3, theta=0.25, scales=3, scale_step=0.5),
        Parameters(epsilon=0.2, inner_iterations=7),
    ],
)
def test_numba_agrees_with_opencv_for_other_parameters(parameters: Parameters) -> None:
    assert_agrees_with_opencv(translated_pair(-1.4, 2.6, (50, 70)), parameters)


def test_only_the_five_pixel_median_is_fused() -> None:
    image = np.zeros((32, 32), np.uint8)
    with pytest.raises(ValueError, match="5 x 5"):
        tvl1(image, image, backend="numba", parameters=Parameters(median=3))


def clips() -> list[Path]:
    folder = os.environ.get("VIDKD_TEST_DATA")
    return sorted(Path(folder, "clips").glob("*.mp4")) if folder else []


@pytest.mark.slow
@pytest.mark.skipif(not clips(), reason="needs VIDKD_TEST_DATA")
def test_numba_agrees_with_opencv_on_real_frames() -> None:
    for clip in clips():
        capture = cv2.VideoCapture(str(clip))
        capture.set(cv2.CAP_PROP_POS_FRAMES, 60)
        frames = []
        for _ in range(2):
            _, frame = capture.read()
            width = round(256 * frame.shape[1] / frame.shape[0])
            frames.append(cv2.cvtColor(cv2.resize(frame, (width, 256)), cv2.COLOR_BGR2GRAY))
        for pair in pairwise(frames):
            assert_agrees_with_opencv(pair)


def test_numba_is_several_times_as_fast_as_opencv() -> None:
    """A loop that LLVM no longer vectorises is easy to write and otherwise goes unnoticed."""
    pair = translated_pair(1.5, -0.75)
    seconds = {}
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    for backend in ("numba", "opencv"):
        estimate = flow_function(backend)
        estimate(*pair)
        times = []
        for _ in range(3):
            start = time.thread_time()
            estimate(*pair)
            times.append(time.thread_time() - start)
        seconds[backend] = min(times)
    cv2.setNumThreads(threads)
    assert seconds["opencv"] > 4 * seconds["numba"]  # 15 to 20 when measured


def test_kernels_work_where_no_compiled_code_can_be_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from numba.core.caching import CacheImpl

    from vidkd.flow import kernels

    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError):
        numba.njit(cache=True)(end_point_error)
    total = kernels._compiled()(kernels._row_sum.py_func)
    assert total(np.ones((3, 8), np.float32), 1, 5) == 5
