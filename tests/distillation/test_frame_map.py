"""Frame mAP with everything fixed computed once, against the protocol itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidkd.annotations import Annotations, Segment, VideoAnnotation
from vidkd.distillation.validation import FrameMap
from vidkd.evaluation import DenseScores, evaluate

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


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rates=st.lists(st.just(10.0), min_size=1, max_size=6)
    | st.lists(st.sampled_from([None, 7.5, 25.0]), min_size=1, max_size=6),
)
def test_it_is_the_protocols_number_bit_by_bit(seed, rates):
    annotations, scores = make(np.random.default_rng(seed), rates)
    expected = evaluate(DenseScores(CLASSES, scores), annotations, "frame").map
    frame_map = FrameMap(annotations, {name: pts for name, (_, pts) in scores.items()})
    for _ in range(2):  # It keeps nothing from one call to the next.
        found = frame_map({name: rows for name, (rows, _) in scores.items()})
        assert found == expected or (np.isnan(found) and np.isnan(expected))


def test_perfect_scores_are_perfect():
    segments = (Segment(0.0, 1.9, "a"), Segment(1.0, 2.9, "b"))
    video = VideoAnnotation(id="v", subset="", duration=4.0, segments=segments, frame_rate=None)
    pts = np.stack([np.arange(4.0), np.arange(4.0) + 1], axis=1)
    rows = np.zeros((4, 4), dtype=np.float32)
    rows[:2, 0] = rows[1:3, 1] = 1
    frame_map = FrameMap(Annotations(classes=CLASSES, videos={"v": video}), {"v": pts})
    assert frame_map({"v": rows}) == pytest.approx(1.0)
    assert frame_map({"v": 1 - rows}) < 0.6
