"""Training of 2s-AGCN: learning, resuming, and how snippets are varied."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pose_cache import FRAMES, person, write_dataset, write_poses
from torch.nn import functional

from vidkd.errors import CacheError, UsageError, VidkdError, WeightsError
from vidkd.finetuning import train_encoder
from vidkd.finetuning.poses import PoseReader, load_snippets, resample
from vidkd.finetuning.snippets import Clip
from vidkd.finetuning.training import classifiers_loss
from vidkd.networks import load_encoder
from vidkd.networks.agcn_weights import load_pose_encoder
from vidkd.recipe.jobs import PoseEncoderJob
from vidkd.training.loop import RunFolder

MakeJob = Callable[..., PoseEncoderJob]
STILL = {"rotation": 0, "flip": False, "scale": 0, "noise": 0, "tempo": 0}


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    folder = write_dataset(tmp_path / "data")

    def make(output: str = "poses", **fields: object) -> PoseEncoderJob:
        values: dict[str, object] = {
            "annotations": folder / "annotations.json",
            "cache": folder / "cache",
            "output": tmp_path / output,
            "network": {"channels": (8, 8, 16), "blocks": (1, 1, 1)},
            "epochs": 3,
            "batch_size": 16,
            "snippets_per_epoch": 96,
            "learning_rate": 0.01,
            "device": "cpu",
            **fields,
        }
        return PoseEncoderJob.model_validate(values)

    return make


def test_it_learns_and_a_finished_run_is_left_alone(make_job: MakeJob) -> None:
    job = make_job(learning_rate=0.03)
    result = train_encoder(job)
    assert result.validation_map > 0.9
    assert not result.skipped
    assert train_encoder(job).skipped
    encoder = load_pose_encoder(str(job.output), "cpu")
    assert encoder.card.feature_dim == 32
    assert encoder.classes == ("wave", "kick")
    assert encoder.weights_sha256 == result.weights_sha256
    with pytest.raises(UsageError, match="epochs"):
        train_encoder(make_job(epochs=4))
    for name in ("poses", "nothing"):
        with pytest.raises((UsageError, WeightsError)):
            load_encoder(str(job.output.with_name(name)), "cpu")


def test_a_killed_run_ends_with_the_same_weights(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_encoder(make_job("whole", name="same"))
    save = RunFolder.save_state

    def killed(folder: RunFolder, state: dict[str, object]) -> None:
        save(folder, state)
        if state["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "save_state", killed)
    with pytest.raises(KeyboardInterrupt):
        train_encoder(make_job("killed", name="same"))
    monkeypatch.setattr(RunFolder, "save_state", save)
    resumed = train_encoder(make_job("killed", name="same"))
    assert resumed.weights_sha256 == whole.weights_sha256
    assert resumed.validation_map == whole.validation_map


def test_the_loss_is_that_of_two_trainings() -> None:
    streams, targets = torch.randn(5, 2, 3), torch.rand(5, 3).round()
    expected = sum(
        functional.binary_cross_entropy_with_logits(streams[:, stream], targets)
        for stream in range(2)
    )
    torch.testing.assert_close(classifiers_loss(streams, targets), expected)


def test_unvaried_snippets_are_the_poses_of_the_cache(make_job: MakeJob) -> None:
    job = make_job(augmentation=STILL, inputs={"scale": "none", "view": False, "people": 1})
    data = load_snippets(job)
    reader = PoseReader(data.training, data, job)
    clips = [Clip(1, 0), Clip(1, 40), Clip(1, FRAMES - 8)]
    inputs, targets = reader.batch(clips)
    varied, _ = reader.batch(clips, np.random.default_rng(0))
    np.testing.assert_allclose(varied, inputs)
    assert inputs.shape == (3, 3, 16, 13, 1)
    assert targets.tolist() == [[1, 0], [0, 0], [0, 1]]
    joints = person(1)[0]
    expected = joints[40:56] - joints[40:56, 4:6].mean(axis=(0, 1))
    np.testing.assert_allclose(inputs[1, ..., 0].transpose(1, 2, 0), expected, atol=1e-2)
    # Past the end the last frame is held.
    np.testing.assert_array_equal(inputs[2, :, 8:], inputs[2, :, 7:8].repeat(8, axis=1))


def test_variation_follows_the_seed_and_keeps_the_shape_of_the_body(make_job: MakeJob) -> None:
    plain = make_job(augmentation=STILL, inputs={"view": False, "people": 1})
    data = load_snippets(plain)
    clips = [Clip(0, 20, flip=True), Clip(2, 30)]
    before, _ = PoseReader(data.training, data, plain).batch(clips)
    turned = make_job(
        augmentation={**STILL, "rotation": 90, "flip": True, "scale": 0.5},
        inputs={"view": False, "people": 1},
    )
    reader = PoseReader(data.training, data, turned)
    one, _ = reader.batch(clips, np.random.default_rng(3))
    other, _ = reader.batch(clips, np.random.default_rng(3))
    np.testing.assert_array_equal(one, other)
    for number in range(2):
        ratios = _distances(one[number]) / _distances(before[number])
        np.testing.assert_allclose(ratios, ratios[0, 0], rtol=1e-3)
        assert 0.5 <= ratios[0, 0] <= 1.5
        heights = ratios[0, 0] * _swapped(before, number, clips)
        np.testing.assert_allclose(one[number, 1], heights, rtol=1e-3, atol=1e-5)


def _distances(sample: np.ndarray) -> np.ndarray:
    """Return the distances of ankle and wrist pairs, which a mirror keeps: (T, 2)."""
    pairs = [(0, 1), (6, 7)]
    return np.stack(
        [np.linalg.norm(sample[:, :, i, 0] - sample[:, :, j, 0], axis=0) for i, j in pairs], axis=1
    )


def _swapped(before: np.ndarray, number: int, clips: list[Clip]) -> np.ndarray:
    """Return the heights (T, V, 1) as they are after a mirror, if there was one."""
    flip = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 12]
    order = flip if clips[number].flip else list(range(13))
    return np.asarray(before[number, 1][:, order])


def test_resampling_keeps_straight_lines_and_what_is_missing() -> None:
    line = np.arange(9, dtype=np.float32)[None, :, None, None] * np.ones((2, 1, 3, 3), np.float32)
    line[1, :, 2] = np.nan
    found = resample(line, 17)
    np.testing.assert_allclose(found[0, :, 0, 0], np.arange(17) / 2, atol=1e-6)
    assert np.isnan(found[1, :, 2]).all()
    gap = line.copy()
    gap[0, 4] = np.nan
    assert np.isnan(resample(gap, 17)[0, 7:10]).all()
    assert np.isfinite(resample(gap, 17)[0, [6, 10]]).all()
    assert resample(line, 9) is line


def test_what_cannot_be_trained_on_is_said_in_one_line(make_job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="vidkd extract-pose"):
        train_encoder(make_job(cache=tmp_path / "empty"))
    with pytest.raises(VidkdError, match="diverged"):
        train_encoder(make_job("wild", learning_rate=1e30, epochs=1))
    job = make_job("other")
    joints, _ = person(1)
    path = job.cache / "pose" / "v1.h5"
    path.unlink()
    with pytest.raises(UsageError, match="pose of video 'v1' was not found"):
        train_encoder(job)
    write_poses(path, np.full_like(joints, np.nan))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CacheError, match="v1"):
        train_encoder(job)
