"""The thresholds kept with a model, against a search over all of them."""

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vidkd.detection.predict import predict_runs, read_features
from vidkd.detection.scorers import StudentScorer
from vidkd.distillation import train
from vidkd.distillation.validation import Validation
from vidkd.networks import load_temporal_filter
from vidkd.networks.segment_head import Proposals


def f1(probabilities, targets, threshold):
    found = probabilities >= threshold
    return 2 * (found & targets).sum() / max(1, found.sum() + targets.sum())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(12, 80), st.sampled_from([3, 20, 1000]))
def test_no_other_threshold_has_a_greater_f1(seed, count, levels):
    rng = np.random.default_rng(seed)
    targets = rng.random(count) < 0.4
    targets[:10] = True
    # Few levels make ties, which no threshold can separate.
    probabilities = np.clip(rng.normal(0.3 + 0.2 * targets, 0.2), 0.05, 0.95)
    probabilities = np.round(probabilities * levels) / levels
    probabilities = np.clip(probabilities, 0.05, 0.95)
    found = Validation(0.0, 0.0, probabilities[:, None], targets[:, None]).thresholds()[0]
    best = max(f1(probabilities, targets, level) for level in np.unique(probabilities))
    assert f1(probabilities, targets, found) == pytest.approx(best)
    assert 0 < found < 1


def test_a_class_with_few_positives_takes_the_common_threshold():
    rng = np.random.default_rng(0)
    targets = np.zeros((200, 2), dtype=bool)
    targets[:60, 0] = True
    targets[:2, 1] = True
    probabilities = np.clip(rng.normal(0.2 + 0.4 * targets, 0.1), 0.01, 0.99)
    first, second = Validation(0.0, 0.0, probabilities, targets).thresholds()
    both = Validation(0.0, 0.0, probabilities.reshape(-1, 1), targets.reshape(-1, 1))
    assert second == both.thresholds()[0]
    assert first != second


def test_without_positives_the_threshold_is_a_half():
    nothing = Validation(0.0, 0.0, np.full((9, 1), 0.2), np.zeros((9, 1), dtype=bool))
    assert nothing.thresholds() == [0.5]


def test_the_calibration_of_a_run_changes_scores_and_no_ranking(job):
    runs = {
        mode: train(job(output=job().output.with_name(mode), calibrate=mode)).output
        for mode in ("none", "temperature", "per-class")
    }
    recipe = {mode: yaml.safe_load((run / "recipe.yaml").read_text()) for mode, run in runs.items()}
    assert "calibrate" not in recipe["none"]
    assert recipe["per-class"]["calibrate"] == "per-class"
    headers = {mode: load_temporal_filter(run)[1] for mode, run in runs.items()}
    assert headers["none"].calibration is None
    assert headers["none"].segment_calibration is None
    assert len(set(headers["temperature"].calibration)) == 1
    assert len(headers["per-class"].segment_calibration) == len(headers["none"].classes)
    assert {key: item.thresholds for key, item in headers.items()} == dict.fromkeys(
        headers, headers["none"].thresholds
    )
    cache = job().cache
    folder = cache / "features" / headers["none"].encoder
    videos = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.h5")]
    plain = predict_runs([runs["none"]], cache, videos)
    for mode in ("temperature", "per-class"):
        found = predict_runs([runs[mode]], cache, videos)
        for video, (scores, pts) in found.videos.items():
            before = plain.videos[video][0]
            assert not np.allclose(scores, before)
            for own, made in zip(before.T, scores.T, strict=True):
                assert (np.diff(made[np.argsort(own, kind="stable")]) >= 0).all()
            # What detection shows is what evaluation compares.
            scorer = StudentScorer([runs[mode]], torch.device("cpu"))
            rows, _ = read_features(folder / f"{video}.h5", scorer.students[0].header)
            shown, _, candidates = scorer.scores([rows], [pts])
            np.testing.assert_allclose(shown, scores, atol=1e-6)
            np.testing.assert_allclose(candidates.score, found.candidates[video].score, atol=1e-6)


def test_thresholds_of_segments_are_drawn_towards_the_common_one():
    """Two classes of one event each, found with 0.9 and 0.4, and a wrong one with 0.2 of each."""
    found = Proposals(
        np.array([0, 0, 1, 1]),
        np.array([0.9, 0.2, 0.4, 0.2]),
        np.array([2.0, 10.0, 2.0, 10.0]),
        np.array([5.0, 14.0, 5.0, 14.0]),
    )
    events = np.array([[0, 2, 5], [1, 2, 5]], dtype=np.float32)
    none = np.zeros((1, 2))
    validation = Validation(0.0, 0.0, none, none > 0, {"a": (found, events)})
    # Alone the best are 0.55 and 0.3, halfway to the next lower score; together 0.3.
    odds = [np.log(p / (1 - p)) for p in (0.55, 0.3)]
    expected = [1 / (1 + np.exp(-(one + 10 * odds[1]) / 11)) for one in odds]
    assert validation.segment_thresholds() == pytest.approx(expected)
