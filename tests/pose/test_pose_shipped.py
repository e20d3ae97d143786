"""The detector that travels with the package, and its card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vidkd.errors import WeightsError
from vidkd.files import resources
from vidkd.networks.weights import load_weights, state_sha256
from vidkd.pose.detector import load_pose_detector
from vidkd.pose.labels import load_pictures, read_labels
from vidkd.pose.metrics import PoseEvaluation
from vidkd.recipe import SynthSettings, pose_detector_cards
from vidkd.recipe.models import DEFAULT_DETECTOR
from vidkd.synth import render_dataset


def test_card_and_weights_agree() -> None:
    card = pose_detector_cards()[DEFAULT_DETECTOR]
    path = resources("models") / card.file
    assert path.stat().st_size <= 10_000_000
    state, header = load_weights(path)
    assert state_sha256(state) == header["weights_sha256"] == card.weights_sha256
    assert header["card"] == card.name == DEFAULT_DETECTOR
    assert {v.dtype for n, v in state.items() if "running" not in n} == {torch.float16}
    for scores in card.scores.values():
        assert {"recall", "precision", "mpjpe", "pck_head", "pck_torso"} <= set(scores)


def test_other_weights_than_the_card_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = pose_detector_cards()[DEFAULT_DETECTOR]
    changed = card.model_copy(update={"weights_sha256": "0" * 64})
    monkeypatch.setattr("vidkd.pose.detector.pose_detector_cards", lambda: {card.name: changed})
    with pytest.raises(WeightsError, match="other weights than its card says"):
        load_pose_detector(card.name, "cpu")


def test_finds_rendered_people_it_never_saw(tmp_path: Path) -> None:
    settings = SynthSettings(videos=2, seconds=4, frame_rate=1.0, seed=424_242)
    render_dataset(tmp_path, settings)
    detector = load_pose_detector(device="cpu")
    evaluation = PoseEvaluation()
    pictures = list(load_pictures(read_labels(tmp_path)))
    together = detector([image for _, image in pictures])
    for (frame, image), its_own in zip(pictures, together, strict=True):
        (found,) = detector([image])
        # How many it sees at once does not matter.
        for one, other in zip(found, its_own, strict=True):
            np.testing.assert_allclose(one.joints_2d, other.joints_2d, atol=0.01)
        evaluation.add(frame.people, found, image.shape[:2])
        for person in found:
            assert np.isfinite(person.joints_2d).all()
            np.testing.assert_allclose(person.joints_3d[4:6].mean(axis=0), 0, atol=1e-5)
    scores = evaluation.result()
    assert scores.people >= 8
    assert scores.recall >= 0.7
    assert scores.pck_torso >= 0.6
    assert scores.mpjpe < 250
