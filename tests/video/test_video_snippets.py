"""Snippets against a slow definition: windows over a list."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidkd.recipe import SnippetSettings
from vidkd.video import Frame, clip_frames, cut_snippets, snippet_count, snippet_pts


def rows(length: int, stride: int) -> SnippetSettings:
    return SnippetSettings(length=length, stride=stride)


def pictures(count: int, seed: int = 0) -> list[Frame]:
    steps = np.random.default_rng(seed).uniform(0.01, 0.5, count + 1)
    times = np.cumsum(steps) - steps[0]
    return [
        Frame(
            np.full((2, 3, 1), index, np.int32), float(times[index]), float(times[index + 1]), index
        )
        for index in range(count)
    ]


@given(
    count=st.integers(0, 120),
    length=st.integers(1, 40),
    stride=st.integers(1, 60),
    seed=st.integers(0, 5),
)
def test_counts_times_and_cutting_agree(count, length, stride, seed):
    frames = pictures(count, seed)
    # The definition: a window begins every `stride` frames, as long as the one before it has
    # not reached the end and there is a frame to begin with.
    begins = [0] if count else []
    while begins and begins[-1] + length < count and begins[-1] + stride < count:
        begins.append(begins[-1] + stride)
    snippets = list(cut_snippets(iter(frames), rows(length, stride)))
    assert snippet_count(count, rows(length, stride)) == len(begins) == len(snippets)
    times = np.array([(frame.start, frame.end) for frame in frames]).reshape(-1, 2)
    pts = snippet_pts(times, rows(length, stride))
    assert pts.shape == (len(begins), 2)
    assert pts.dtype == np.float64
    for index, (begin, snippet) in enumerate(zip(begins, snippets, strict=True)):
        real = list(range(begin, min(begin + length, count)))
        padded = real + [real[-1]] * (length - len(real))
        assert snippet.index == index
        assert snippet.frames.shape == (length, 2, 3, 1)
        assert snippet.frames.dtype == np.int32
        assert snippet.frames[:, 0, 0, 0].tolist() == padded
        assert (snippet.start, snippet.end) == (frames[begin].start, frames[real[-1]].end)
        assert pts[index].tolist() == [snippet.start, snippet.end]


@given(count=st.integers(1, 5000), length=st.integers(1, 64), data=st.data())
def test_count_by_formula_and_cover_of_the_whole_video(count, length, data):
    stride = data.draw(st.integers(1, length))
    total = snippet_count(count, rows(length, stride))
    assert total == 1 + math.ceil(max(count - length, 0) / stride)
    times = np.stack([np.arange(count), np.arange(count) + 1], axis=1)
    pts = snippet_pts(times, rows(length, stride))
    assert pts[0, 0] == 0
    assert pts[-1, 1] == count
    assert (pts[1:, 0] <= pts[:-1, 1]).all()


def test_known_values():
    assert [snippet_count(n, rows(16, 16)) for n in (0, 1, 15, 16, 17, 32, 33)] == [
        0,
        1,
        1,
        1,
        2,
        2,
        3,
    ]
    assert [snippet_count(n, rows(16, 8)) for n in (16, 17, 24, 25)] == [1, 2, 2, 3]
    # 355 pictures at 981/50 a second: 22 whole snippets and one of 3 pictures.
    assert snippet_count(355, rows(16, 16)) == 23


def test_the_tail_keeps_its_true_end():
    (first, last) = cut_snippets(pictures(18), rows(16, 16))
    assert last.frames[:, 0, 0, 0].tolist() == [16, 17] + [17] * 14
    assert last.end == pictures(18)[-1].end
    assert first.end == last.start


@pytest.mark.parametrize(("length", "stride"), [(0, 1), (1, 0), (-1, 4)])
def test_settings_without_sense(length, stride):
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        list(cut_snippets(pictures(3), rows(length, stride)))


def test_no_more_than_one_window_is_held():
    taken = 0

    def source():
        nonlocal taken
        for frame in pictures(100):
            taken += 1
            yield frame

    for index, _ in enumerate(cut_snippets(source(), rows(16, 16))):
        assert taken <= 16 * (index + 1)


@given(
    count=st.integers(0, 90),
    length=st.integers(1, 20),
    stride=st.integers(1, 40),
    step=st.integers(1, 9),
    window=st.one_of(st.none(), st.integers(1, 30)),
)
def test_clips_of_any_length_are_centred_on_rows_that_do_not_move(
    count, length, stride, step, window
):
    """The content of a frame is its number, so that a clip says which moments it shows."""
    snippet = SnippetSettings(length=length, stride=stride, step=step, window=window)
    frames = pictures(count)
    found = list(cut_snippets(iter(frames), snippet))
    # The rows are those of an encoder whose clips are its rows.
    plain = list(cut_snippets(iter(frames), rows(window or length, stride)))
    assert [(s.start, s.end, s.index) for s in found] == [(s.start, s.end, s.index) for s in plain]
    for item in found:
        numbers = item.frames[:, 0, 0, 0]
        assert len(numbers) == length
        inside = (numbers > 0) & (numbers < count - 1)
        assert (np.diff(numbers[inside]) == step).all()
        wanted = item.index * stride + ((window or length) - 1) / 2
        places = clip_frames(item.index * stride, snippet)
        assert abs(places.mean() - wanted) <= 0.5
        assert (numbers == places.clip(0, count - 1)).all()
