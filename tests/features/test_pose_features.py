"""Features of poses: aligned with RGB snippets, and never of poses that have changed."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pose_double import SNIPPET, encoder, load

from vidkd.cache import CacheFile, cache_path, verify
from vidkd.errors import CacheError, UsageError, VidkdError
from vidkd.features import FeatureSettings, FeatureTask, feature_task, plan_jobs
from vidkd.features.poses import pose_task
from vidkd.pose.normalise import lift, normalise
from vidkd.pose.poses import load_poses
from vidkd.recipe import FrameSettings, PoseSettings
from vidkd.streams import STREAMS
from vidkd.streams.pose import cut
from vidkd.video import VideoFile, VideoWriter, cut_snippets, read_frames

FRAMES = FrameSettings(short_side=48)


@pytest.fixture
def walk(tmp_path: Path) -> VideoFile:
    """A video of 45 frames in which a white square moves right, and its poses."""
    path = tmp_path / "videos" / "walk.mp4"
    path.parent.mkdir()
    with VideoWriter(path, 160, 96, Fraction(25)) as writer:
        for number in range(45):
            image = np.full((96, 160, 3), 90, np.uint8)
            image[30:50, 10 + 3 * number : 30 + 3 * number] = (240, 240, 240)
            writer.write(image)
    video = VideoFile(path, "walk")
    extract_poses(video, tmp_path / "cache")
    return video


def extract_poses(video: VideoFile, cache: Path, every: int = 1) -> None:
    settings = PoseSettings(every=every)
    task = pose_task(cache, FRAMES, settings, detector="white", load=load, overwrite=True)
    task(video, lambda amount: None, 1)


def task(
    folder: Path, run: Path | None = None, *, overwrite: bool = False, **more: Any
) -> FeatureTask:
    chosen = {"frames": FRAMES, "snippet": SNIPPET, "device": "cpu", **more}
    settings = FeatureSettings(STREAMS["pose"], str(run or encoder(folder)), **chosen)
    return feature_task(folder / "cache", settings, overwrite=overwrite)


def test_snippets_are_those_of_rgb_and_rows_those_of_the_network(
    walk: VideoFile, tmp_path: Path
) -> None:
    chosen = task(tmp_path, dtype="float32")
    made = chosen(walk, lambda amount: None, 1)
    assert made.path == tmp_path / "cache" / "features" / "small-agcn" / "walk.h5"
    assert verify(made.path) == []
    frames = list(read_frames(walk.path, short_side=48))
    expected = list(cut_snippets(frames, SNIPPET))
    with CacheFile(made.path) as file:
        np.testing.assert_allclose(file.pts, [(item.start, item.end) for item in expected])
        rows = file.rows()
        assert file.provenance.encoder == "small-agcn"
        assert file.provenance.weights_sha256 == chosen.weights_sha256
        found = file.provenance.settings
    poses = load_poses(tmp_path / "cache" / "pose" / "walk.h5")
    with CacheFile(tmp_path / "cache" / "pose" / "walk.h5") as file:
        assert found["inputs"] == {"pose_sha256": file.sha256}
    from vidkd.networks.agcn_weights import load_pose_encoder

    network = load_pose_encoder(str(tmp_path / "small-agcn"), "cpu")
    joints = lift(poses, network.inputs)
    for number in (0, 2, len(expected) - 1):
        window = joints[np.minimum(np.arange(16) + 8 * number, len(joints) - 1)]
        one = normalise(window.transpose(1, 0, 2, 3), network.network.skeleton, network.inputs)
        tensor = torch.from_numpy(one.transpose(3, 1, 2, 0)[None])
        np.testing.assert_allclose(rows[number], network.features(tensor)[0], atol=1e-5)
    assert chosen(walk, lambda amount: None, 1).skipped


def test_features_of_other_poses_are_stale(walk: VideoFile, tmp_path: Path) -> None:
    chosen = task(tmp_path)
    chosen(walk, lambda amount: None, 1)
    extract_poses(walk, tmp_path / "cache", every=5)
    [plan] = plan_jobs([walk], chosen)
    assert plan.status == "stale"
    assert "inputs.pose_sha256" in plan.reason
    with pytest.raises(CacheError, match="is stale"):
        chosen(walk, lambda amount: None, 1)
    renewed = task(tmp_path, overwrite=True)
    assert not renewed(walk, lambda amount: None, 1).skipped
    encoder(tmp_path, seed=1)
    [plan] = plan_jobs([walk], task(tmp_path, tmp_path / "small-agcn"))
    assert "weights" in plan.reason


def test_missing_poses_are_one_line_with_the_command(walk: VideoFile, tmp_path: Path) -> None:
    cache_path(tmp_path / "cache", "pose", "walk").unlink()
    [plan] = plan_jobs([walk], task(tmp_path))
    assert plan.status == "failed"
    assert "vidkd extract-pose" in plan.reason
    assert "--cache" in plan.reason


def test_poses_of_other_frames_or_of_another_video_are_refused(
    walk: VideoFile, tmp_path: Path
) -> None:
    slower = task(tmp_path, frames=FrameSettings(short_side=48, frame_rate=5))
    with pytest.raises(VidkdError, match="frame_rate is None"):
        slower(walk, lambda amount: None, 1)
    walk.path.write_bytes(walk.path.read_bytes() + b"\0" * 8)
    with pytest.raises(CacheError, match="content has changed"):
        task(tmp_path)(walk, lambda amount: None, 1)


def test_only_pose_encoders_are_taken(tmp_path: Path) -> None:
    for name in ("i3d-rgb-kinetics400", str(tmp_path / "nothing")):
        with pytest.raises(UsageError, match="no pose encoder"):
            task(tmp_path, Path(name))


def test_a_window_holds_one_person_per_slot_and_nothing_past_the_end() -> None:
    joints = np.arange(10, dtype=np.float32)[:, None, None, None] * np.ones((1, 2, 2, 3))
    tracks = np.full((10, 2), -1, dtype=np.int32)
    tracks[:4, 0], tracks[4:, 0] = 0, 1
    window = cut(joints, tracks, 2, 6)
    assert window.shape == (2, 6, 2, 3)
    assert np.isnan(window[0, :2]).all()
    np.testing.assert_array_equal(window[0, 2:, 0, 0], [4, 5, 6, 7])
    assert np.isnan(window[1]).all()
    late = cut(joints, tracks, 7, 6)
    np.testing.assert_array_equal(late[0, :3, 0, 0], [7, 8, 9])
    assert np.isnan(late[0, 3:]).all()
    early = cut(joints, tracks, -2, 6)
    assert np.isnan(early[0, :2]).all()
    np.testing.assert_array_equal(early[0, 2:, 0, 0], [0, 1, 2, 3])
