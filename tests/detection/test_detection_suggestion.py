"""Which videos are suggested, against loops and cases made by hand; and results as tables."""

from __future__ import annotations

import sys
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidkd.detection.detector import DetectionResult
from vidkd.detection.suggestion import choose, entropy, uncertain_parts, uncertainty
from vidkd.errors import UsageError
from vidkd.evaluation import Detection
from vidkd.recipe import SegmentSettings
from vidkd.video import VideoInfo


def result_of(scores: np.ndarray, segments: tuple[Detection, ...] = ()) -> DetectionResult:
    """Return a result with snippets of one second."""
    count, classes = scores.shape
    pts = np.stack([np.arange(count), np.arange(count) + 1], axis=1).astype(float)
    info = VideoInfo(
        Path("v <1>.mp4"), 0, 0, Fraction(25), float(count), 25 * count, "", "", 0, 0.0, 0
    )
    names = tuple(f"class {k}" for k in range(classes))
    return DetectionResult(
        "v <1>", info, names, scores, pts, list(segments), 0.5, "score", "m", SegmentSettings()
    )


def test_entropy_is_one_bit_at_a_half_and_none_where_the_model_is_sure() -> None:
    scores = np.array([[0.5, 0.5], [0.0, 1.0], [0.5, 1.0], [0.11, 0.89]])
    assert entropy(scores) == pytest.approx([1, 0, 0.5, 0.4999], abs=1e-4)
    assert uncertainty(result_of(scores)) == pytest.approx(1.9999 / 4, abs=1e-4)


def test_the_part_that_the_model_is_least_sure_of_comes_first() -> None:
    scores = np.zeros((25, 1))
    scores[10:20], scores[20:24] = 0.5, 0.5
    parts = uncertain_parts(result_of(scores), 10, 2)
    # 25 s are three parts; the rest of 5 s is long enough to be one.
    assert [(item.start, item.end) for item in parts] == [(10, 20), (20, 25)]
    assert [item.uncertainty for item in parts] == pytest.approx([1, 0.8])
    (whole,) = uncertain_parts(result_of(scores), 60, 3)
    assert (whole.start, whole.end) == (0, 25)
    assert whole.uncertainty == pytest.approx(14 / 25)


def test_a_twin_of_a_labelled_or_chosen_video_comes_last() -> None:
    means = np.array([[0.0, 0.0], [0.0, 0.01], [5.0, 5.0], [5.0, 5.01], [-4.0, 6.0]])
    found = choose([0.9, 0.9, 0.9, 0.8, 0.3], means, means[:1], 5)
    order = [item.number for item in found]
    assert order[0] == 2
    assert order[1] == 4  # far from both, though the model is surer of it
    assert order[-1] == 0
    assert found[-1].distance == 0
    alone = choose([0.2, 0.9], means[:2], means[:0], 5)
    assert [item.number for item in alone] == [1, 0]
    assert alone[0].distance == float("inf")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(0, 4))
def test_each_choice_is_the_best_by_a_plain_loop(seed: int, count: int, known: int) -> None:
    rng = np.random.default_rng(seed)
    means, labelled = rng.normal(size=(count, 3)), rng.normal(size=(known, 3))
    unsure = rng.random(count)
    found = choose(unsure, means, labelled, 5)
    assert len({item.number for item in found}) == len(found) == min(5, count)
    points = np.concatenate([means, labelled])
    points = (points - points.mean(0)) / np.maximum(points.std(0), 1e-6)
    centres = list(points[count:])
    for place, item in enumerate(found):
        left = set(range(count)) - {other.number for other in found[:place]}

        def gain(n: int, centres: list = centres) -> float:
            near = min((float(np.linalg.norm(points[n] - c)) for c in centres), default=1.0)
            return near * unsure[n]

        assert gain(item.number) == pytest.approx(max(map(gain, left)))
        centres.append(points[item.number])


SEGMENTS = (
    Detection("<b>sit</b>", 0.75, 3.0, 65.5),
    Detection("walk", 0.5, 0.0, 2.0),
)


def test_a_result_is_a_table_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    table = result_of(np.zeros((70, 2)), SEGMENTS).to_dataframe()
    assert isinstance(table, pandas.DataFrame)
    assert table.columns.tolist() == ["video", "label", "start", "end", "score"]
    assert table.iloc[0].tolist() == ["v <1>", "<b>sit</b>", 3.0, 65.5, 0.75]
    empty = result_of(np.zeros((3, 2))).to_dataframe()
    assert empty.columns.tolist() == table.columns.tolist()
    assert len(empty) == 0


def test_without_pandas_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install pandas"):
        result_of(np.zeros((3, 2))).to_dataframe()


def test_a_notebook_shows_the_segments_and_runs_nothing_of_their_labels() -> None:
    tags: list[str] = []
    words: list[str] = []

    class Page(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list) -> None:
            tags.append(tag)

        def handle_data(self, data: str) -> None:
            words.append(data)

    text = result_of(np.zeros((70, 2)), SEGMENTS)._repr_html_()
    Page().feed(text)
    assert "b" not in tags
    assert tags.count("tr") == 3
    assert words.index("walk") < words.index("<b>sit</b>")  # by start
    assert "01:05.5" in words
    assert "no action" in result_of(np.zeros((3, 2)))._repr_html_()
