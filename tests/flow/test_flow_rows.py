"""Streaming: as many rows as frames, in order, whatever the number of threads."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest

from vidkd.flow import flow_function, flow_rows, flow_settings, quantise, to_gray
from vidkd.recipe import FlowSettings


@dataclass(frozen=True)
class Frame:
    """What ``flow_rows`` needs of a decoded frame."""

    image: np.ndarray
    start: float
    end: float
    index: int


def moving_frames(count: int, size: tuple[int, int] = (36, 48)) -> list[Any]:
    height, width = size
    noise = np.random.default_rng(3).normal(size=(height + 40, width + 40, 3))
    texture = cv2.GaussianBlur(noise, (0, 0), 2)
    texture = np.clip(128 + 250 * texture, 0, 255).astype(np.uint8)
    return [
        Frame(texture[i : i + height, 2 * i : 2 * i + width].copy(), i / 10, (i + 1) / 10, i)
        for i in range(count)
    ]


SETTINGS = FlowSettings(backend="opencv")


def test_row_i_is_the_motion_from_frame_i_to_the_next_and_the_last_repeats() -> None:
    frames = moving_frames(4)
    rows = list(flow_rows(frames, SETTINGS))
    assert [(row.start, row.end, row.index) for row in rows] == [
        (frame.start, frame.end, frame.index) for frame in frames
    ]
    estimate = flow_function("opencv")
    for i in range(3):
        expected = estimate(to_gray(frames[i].image), to_gray(frames[i + 1].image))
        np.testing.assert_array_equal(rows[i].image, quantise(expected))
    np.testing.assert_array_equal(rows[3].image, rows[2].image)
    assert not np.shares_memory(rows[3].image, rows[2].image)


def test_one_frame_gives_one_row_of_zero_motion_and_none_gives_none() -> None:
    (row,) = flow_rows(moving_frames(1), SETTINGS)
    assert row.image.shape == (36, 48, 2)
    assert (row.image == 128).all()
    assert list(flow_rows([], SETTINGS)) == []


@pytest.mark.parametrize("backend", ["opencv", "numba"])
def test_repeated_frames_have_the_rows_that_tv_l1_gives_them(backend: Any) -> None:
    one, two = (frame.image for frame in moving_frames(2))
    images = [one, one, two, two]
    frames = [Frame(image, i / 10, (i + 1) / 10, i) for i, image in enumerate(images)]
    rows = [row.image for row in flow_rows(frames, FlowSettings(backend=backend))]
    estimate = flow_function(backend)
    for i in range(3):
        expected = quantise(estimate(to_gray(images[i]), to_gray(images[i + 1])))
        np.testing.assert_array_equal(rows[i], expected)


@pytest.mark.parametrize("backend", ["opencv", "numba"])
@pytest.mark.parametrize("threads", [2, 5])
def test_rows_do_not_depend_on_threads(backend: Any, threads: int) -> None:
    frames = moving_frames(6)
    settings = FlowSettings(backend=backend)
    alone = [row.image for row in flow_rows(frames, settings)]
    together = [row.image for row in flow_rows(frames, settings, threads=threads)]
    np.testing.assert_array_equal(alone, together)


def test_a_long_stream_keeps_only_a_few_frames() -> None:
    alive = most = 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def source() -> Iterator[Any]:
        nonlocal alive, most
        for frame in moving_frames(5) * 8:
            copy = Frame(frame.image.copy(), frame.start, frame.end, frame.index)
            alive += 1
            weakref.finalize(copy.image, gone)
            most = max(most, alive)
            yield copy

    assert sum(1 for _ in flow_rows(source(), FlowSettings(), threads=2)) == 40
    assert most <= 3


def test_reading_is_never_far_ahead_of_the_rows() -> None:
    taken = 0

    def source() -> Iterator[Any]:
        nonlocal taken
        for frame in moving_frames(12):
            taken += 1
            yield frame

    rows = flow_rows(source(), SETTINGS, threads=2)
    next(rows)
    assert taken <= 5
    rows.close()  # type: ignore[attr-defined]
    assert taken <= 5


def test_opencv_threads_are_put_back() -> None:
    before = cv2.getNumThreads()
    for _ in flow_rows(moving_frames(2), SETTINGS):
        assert cv2.getNumThreads() == 1
    assert cv2.getNumThreads() == before


def test_an_error_in_the_source_reaches_the_reader() -> None:
    def source() -> Iterator[Any]:
        yield from moving_frames(3)
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        list(flow_rows(source(), SETTINGS, threads=2))


def test_gray_follows_the_stated_weights() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    expected = rgb @ np.array([0.299, 0.587, 0.114])
    assert np.abs(to_gray(rgb) - expected).max() <= 0.51


def test_settings_name_everything_that_defines_the_numbers() -> None:
    settings = flow_settings(FlowSettings(backend="opencv", bound=15.0))
    assert json.loads(json.dumps(settings)) == settings
    assert settings["backend"] == "opencv"
    assert settings["bound"] == 15.0
    assert settings["quantisation"] == "symmetric-128"
    assert (settings["tau"], settings["weight"], settings["theta"]) == (0.25, 0.15, 0.3)
    assert flow_settings(FlowSettings(backend="auto"))["backend"] in {"numba", "opencv"}
