"""TV-L1 in torch against the numba kernels and OpenCV."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import vidkd.flow.torch_tvl1 as torch_tvl1
from vidkd.errors import VidkdError
from vidkd.flow import Parameters, flow_rows, flow_settings, resolve, tvl1
from vidkd.flow.median import _MEDIAN, _SELECT, _SORT, median5
from vidkd.flow.torch_tvl1 import TorchTVL1
from vidkd.recipe import FlowSettings
from vidkd.video import Frame


def sequence(count: int, size: tuple[int, int] = (40, 56)) -> np.ndarray:
    """Gray images (count, H, W) of a texture that moves ever faster, with a still corner."""
    height, width = size
    noise = np.random.default_rng(4).normal(size=(height + 60, width + 60))
    scene = cv2.GaussianBlur(noise, (0, 0), 1.5) + 2 * cv2.GaussianBlur(noise, (0, 0), 5)
    scene = np.uint8(255 * (scene - scene.min()) / (scene.max() - scene.min()))
    images = []
    for number in range(count):
        shift = number * (number + 1) // 2
        image = scene[shift : shift + height, 2 * number : 2 * number + width].copy()
        image[:12, :12] = 90
        images.append(image)
    return np.stack(images)


def error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.hypot(*np.moveaxis(a - b, -1, 0)).mean())


def test_every_pair_of_a_batch_agrees_with_opencv() -> None:
    images = sequence(5)
    flows = TorchTVL1("cpu", batch_size=4).sequence(images)
    assert flows.shape == (4, 40, 56, 2)
    assert flows.dtype == np.float32
    for number, (first, second) in enumerate(itertools.pairwise(images)):
        expected = tvl1(first, second, backend="opencv")
        assert np.abs(expected).mean() > 0.5
        assert error(flows[number], expected) <= 0.01


@pytest.mark.parametrize(
    "parameters",
    [
        Parameters(epsilon=1e-6, warps=2, outer_iterations=3),
        Parameters(tau=0.2, weight=0.3, theta=0.25, scales=3, scale_step=0.5),
    ],
)
def test_other_parameters_agree_with_opencv(parameters: Parameters) -> None:
    first, second = sequence(2, (35, 50))
    expected = tvl1(first, second, backend="opencv", parameters=parameters)
    assert error(tvl1(first, second, "torch", parameters), expected) <= 0.01


def test_pairs_do_not_depend_on_their_company() -> None:
    images = sequence(4, (20, 24))
    together = TorchTVL1("cpu", batch_size=3).sequence(images)
    apart = TorchTVL1("cpu", batch_size=1).sequence(images)
    np.testing.assert_array_equal(together, apart)


def test_a_still_and_a_flat_scene_have_no_motion() -> None:
    still = np.repeat(sequence(1), 2, axis=0)
    assert np.abs(TorchTVL1("cpu").sequence(still)).max() < 1e-3
    flat = np.full((2, 20, 20), 77, np.uint8)
    assert np.abs(TorchTVL1("cpu").sequence(flat)).max() == 0


def test_the_median_network_selects_the_median_of_zeros_and_ones() -> None:
    """By the 0-1 principle that proves it for all values."""
    values = np.array(list(itertools.product([False, True], repeat=5))).T.copy()
    wires = list(values)
    for low, high in _SORT:
        wires[low], wires[high] = wires[low] & wires[high], wires[low] | wires[high]
    np.testing.assert_array_equal(np.stack(wires), np.sort(values, axis=0))
    # All ways to fill five sorted columns.
    ones = np.array(list(itertools.product(range(6), repeat=5)))
    wires = [ones[:, column] >= 5 - rank for rank in range(5) for column in range(5)]
    expected = sum(wire.astype(int) for wire in wires) >= 13
    for low, high in _SELECT:
        wires[low], wires[high] = wires[low] & wires[high], wires[low] | wires[high]
    np.testing.assert_array_equal(wires[_MEDIAN], expected)


@pytest.mark.parametrize("size", [(64, 85), (101, 130), (102, 136)])
def test_resizing_is_opencvs(size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).uniform(0, 255, size).astype(np.float32)
    smaller = cv2.resize(image, None, fx=0.8, fy=0.8)
    larger = cv2.resize(image, (round(size[1] * 1.25), round(size[0] * 1.25)))
    tensor = torch.from_numpy(image)[None]
    for expected, actual in (
        (smaller, torch_tvl1._resized(tensor, smaller.shape, 1 / 0.8)),
        (larger, torch_tvl1._resized(tensor, larger.shape)),
    ):
        np.testing.assert_allclose(actual[0].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("size", [(17, 23), (3, 4)])
def test_the_median_filter_is_opencvs(size: tuple[int, int]) -> None:
    planes = np.random.default_rng(0).normal(size=(2, 2, *size)).astype(np.float32)
    planes[0] = np.round(planes[0])
    actual = median5(torch.from_numpy(planes)).numpy()
    for place in np.ndindex(2, 2):
        np.testing.assert_array_equal(actual[place], cv2.medianBlur(planes[place], 5))


def test_out_of_memory_halves_the_batch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = sequence(6, (16, 18))
    expected = TorchTVL1("cpu").sequence(images)
    sizes = []
    real = torch_tvl1._flow

    def small(images: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        sizes.append(len(images) - 1)
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(images, parameters)

    monkeypatch.setattr("vidkd.flow.torch_tvl1._flow", small)
    estimator = TorchTVL1("cpu", batch_size=5)
    np.testing.assert_array_equal(estimator.sequence(images), expected)
    assert sizes == [5, 2, 2, 1]
    assert "going on with 2 pairs" in capsys.readouterr().err

    def never(images: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("vidkd.flow.torch_tvl1._flow", never)
    with pytest.raises(VidkdError, match=r"single pair; .*--backend numba"):
        estimator.sequence(images)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 6])
def test_rows_are_those_of_the_other_backends(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidkd.flow.rows._BATCH", 2)
    frames = [
        Frame(np.repeat(image[..., None], 3, axis=2), number / 10, (number + 1) / 10, number)
        for number, image in enumerate(sequence(count, (16, 18)) if count else [])
    ]
    rows = list(flow_rows(frames, FlowSettings(backend="torch")))
    expected = list(flow_rows(frames, FlowSettings(backend="opencv")))
    assert [(row.start, row.end, row.index) for row in rows] == [
        (row.start, row.end, row.index) for row in expected
    ]
    for row, other in zip(rows, expected, strict=True):
        assert np.abs(row.image.astype(int) - other.image).max() <= 1


def test_the_backend_is_named_and_follows_the_device() -> None:
    assert [resolve("auto", device) for device in ("cpu", "cuda", "cuda:1")] == [
        "numba",
        "torch",
        "torch",
    ]
    assert resolve("opencv", "cuda") == "opencv"
    assert flow_settings(FlowSettings(), "cuda:0")["backend"] == "torch"
    assert flow_settings(FlowSettings())["backend"] == "numba"


def test_only_the_five_pixel_median_is_there() -> None:
    with pytest.raises(ValueError, match="5 x 5"):
        TorchTVL1("cpu", parameters=Parameters(median=3))


def clips() -> list[Path]:
    folder = os.environ.get("VIDKD_TEST_DATA")
    return sorted(Path(folder, "clips").glob("*.mp4")) if folder else []


@pytest.mark.slow
@pytest.mark.skipif(not clips(), reason="needs VIDKD_TEST_DATA")
def test_torch_agrees_with_opencv_on_real_frames() -> None:
    for clip in clips():
        capture = cv2.VideoCapture(str(clip))
        capture.set(cv2.CAP_PROP_POS_FRAMES, 60)
        images = []
        for _ in range(3):
            _, frame = capture.read()
            width = round(128 * frame.shape[1] / frame.shape[0])
            images.append(cv2.cvtColor(cv2.resize(frame, (width, 128)), cv2.COLOR_BGR2GRAY))
        flows = TorchTVL1("cpu").sequence(np.stack(images))
        for number, pair in enumerate(itertools.pairwise(images)):
            assert error(flows[number], tvl1(*pair, backend="opencv")) <= 0.01
