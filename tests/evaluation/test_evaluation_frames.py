"""Frame AP with everything fixed computed once, against its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidkd.annotations import Annotations, Segment, VideoAnnotation
from vidkd.evaluation import DenseScores
from vidkd.evaluation.average_precision import non_interpolated
from vidkd.evaluation.frames import FrameComparison, frame_grid

CLASSES = ("a", "b", "c", "never")


def make(rng, rates):
    """Return annotations of videos with these frame rates, and their scores and times."""
    videos, scores = {}, {}
    for number, rate in enumerate(rates):
        name = f"v{rng.integers(100)}-{number}"  # The order of the ids is not that of the file.
        steps = int(rng.integers(1, 12))
        edges = np.cumsum(rng.uniform(0.3, 0.9, steps + 1))
        segments = []
        for _ in range(int(rng.integers(0, 5))):
            start, end = np.sort(rng.uniform(0, edges[-1], 2))
            segments.append(Segment(float(start), float(end), CLASSES[rng.integers(3)]))
        duration = None if rate is None and rng.random() < 0.3 else float(edges[-1])
        videos[name] = VideoAnnotation(
            id=name, subset="", duration=duration, segments=tuple(segments), frame_rate=rate
        )
        # Few levels, so that there are ties.
        levels = rng.integers(0, 6, (steps, len(CLASSES))) / 7
        scores[name] = (levels.astype(np.float32), np.stack([edges[:-1], edges[1:]], axis=1))
    return Annotations(classes=CLASSES, videos=videos), scores


def by_definition(annotations, scores, times, label):
    """Return the AP of a class: all moments in one ranking, ties in the order of ids and time."""
    values, labels = [], []
    for name in sorted(annotations.videos):
        rows, pts = scores[name]
        column = rows[:, CLASSES.index(label)].astype(float)
        values.append(np.interp(times[name], pts.mean(axis=1), column))
        own = [item for item in annotations.videos[name].segments if item.label == label]
        labels += [any(item.start <= t <= item.end for item in own) for t in times[name]]
    ranking = np.argsort(-np.concatenate(values), kind="stable")
    return non_interpolated(np.array(labels)[ranking], sum(labels))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rates=st.lists(st.just(10.0), min_size=1, max_size=6)
    | st.lists(st.sampled_from([None, 7.5, 25.0]), min_size=1, max_size=6),
)
def test_it_is_the_definition(seed, rates):
    annotations, scores = make(np.random.default_rng(seed), rates)
    grid = frame_grid(annotations, DenseScores(CLASSES, scores), None)
    comparison = FrameComparison(
        annotations, grid, {name: pts for name, (_, pts) in scores.items()}
    )
    expected = {name: by_definition(annotations, scores, grid.times, name) for name in CLASSES}
    for threads in (1, 2):  # It keeps nothing from one call to the next.
        rows = {name: rows for name, (rows, _) in scores.items()}
        found = comparison.aps(rows, CLASSES, CLASSES, threads=threads)
        assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_perfect_scores_are_perfect():
    segments = (Segment(0.0, 1.9, "a"), Segment(1.0, 2.9, "b"))
    video = VideoAnnotation(id="v", subset="", duration=4.0, segments=segments, frame_rate=None)
    pts = np.stack([np.arange(4.0), np.arange(4.0) + 1], axis=1)
    rows = np.zeros((4, 4), dtype=np.float32)
    rows[:2, 0] = rows[1:3, 1] = 1
    annotations = Annotations(classes=CLASSES, videos={"v": video})
    grid = frame_grid(annotations, DenseScores(CLASSES, {"v": (rows, pts)}), None)
    comparison = FrameComparison(annotations, grid, {"v": pts})
    assert comparison.aps({"v": rows}, CLASSES, ("a", "b")) == pytest.approx({"a": 1.0, "b": 1.0})
    assert max(comparison.aps({"v": 1 - rows}, CLASSES, ("a", "b")).values()) < 0.6
