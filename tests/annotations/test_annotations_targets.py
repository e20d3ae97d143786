"""Labels of snippets against their definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidkd.annotations import Segment, VideoAnnotation, snippet_targets
from vidkd.errors import AnnotationError

CLASSES = ("a", "b")


def targets(segments: list[tuple[float, float, str]], pts: object, duration: float | None = None):
    items = tuple(Segment(*item) for item in segments)
    video = VideoAnnotation("v", duration=duration, segments=items)
    return snippet_targets(video, CLASSES, np.array(pts, dtype=float))


def test_half_of_the_shorter_counts() -> None:
    pts = [[0, 2], [2, 4], [4, 6]]
    assert targets([(1, 4.9, "a")], pts)[:, 0].tolist() == [1, 1, 0]
    # A short action inside a snippet counts, and so does the half of it beyond the border.
    assert targets([(3.5, 4.5, "b")], pts)[:, 1].tolist() == [0, 1, 1]
    assert targets([(3.9, 4.6, "b")], pts)[:, 1].tolist() == [0, 0, 1]


def test_exactly_half_counts_despite_rounding() -> None:
    pts = np.arange(0, 40).reshape(-1, 1) * 0.1 * 16 + np.array([[0.0, 1.6]])
    for start in pts[:, 0]:
        assert targets([(0.0, start + 0.8, "a")], pts)[:, 0].sum() == round(start / 1.6) + 1


def test_segments_are_clipped_to_the_video() -> None:
    pts = [[0, 2], [2, 4], [4, 4.5]]
    assert targets([(4.2, 30, "a"), (50, 60, "b")], pts, 4.5).tolist() == [[0, 0], [0, 0], [1, 0]]
    assert targets([(-5, 1, "a")], pts, 4.5)[:, 0].tolist() == [1, 0, 0]


def test_an_instant_belongs_to_one_snippet() -> None:
    assert targets([(2, 2, "a")], [[0, 2], [2, 4], [4, 6]])[:, 0].tolist() == [0, 1, 0]


def test_shape_and_type_of_nothing() -> None:
    assert targets([], np.zeros((0, 2))).shape == (0, 2)
    assert targets([], [[0, 1]]).dtype == np.float32


def test_unknown_class() -> None:
    with pytest.raises(AnnotationError, match="unknown class 'x'"):
        targets([(0, 1, "x")], [[0, 1]])


@given(
    segments=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30), st.sampled_from("ab"))),
    stride=st.integers(1, 8),
    length=st.integers(1, 8),
)
def test_against_counting_ticks(
    segments: list[tuple[int, int, str]], stride: int, length: int
) -> None:
    pts = np.array([[k, k + length] for k in range(0, 50, stride)])
    found = targets([(s, s + d, label) for s, d, label in segments], pts)
    for row, (start, end) in enumerate(pts):
        ticks = set(range(start, end))
        for column, name in enumerate(CLASSES):
            expected = any(
                2 * len(ticks & set(range(s, s + d))) >= min(len(ticks), d)
                for s, d, label in segments
                if label == name
            )
            assert found[row, column] == expected
