"""Poses into the cache: rows that belong to the frames, kept, resumed and drawn."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pose_double import WhiteDetector, load

from vidkd.cache import CacheFile, verify
from vidkd.errors import CacheError, UsageError
from vidkd.features import FlowTask, JobResult
from vidkd.features.pose_video import render_all
from vidkd.features.poses import PoseTask, detect_every, pose_task
from vidkd.pose.poses import load_poses
from vidkd.recipe import FlowSettings, FrameSettings, PoseSettings, TrackSettings
from vidkd.video import Frame, VideoFile, VideoWriter, probe, read_frames

FRAMES = FrameSettings(short_side=48)


def draw(number: int, width: int = 160, height: int = 96) -> np.ndarray:
    """Return a grey picture with a white square 3 pixels further right for each number."""
    image = np.full((height, width, 3), 90, np.uint8)
    image[30:50, 10 + 3 * number : 30 + 3 * number] = (240, 240, 240)
    return image


@pytest.fixture
def walk(tmp_path: Path) -> VideoFile:
    path = tmp_path / "videos" / "walk.mp4"
    path.parent.mkdir()
    with VideoWriter(path, 160, 96, Fraction(25)) as writer:
        for number in range(40):
            writer.write(draw(number))
    return VideoFile(path, "walk")


def task(cache: Path, detector: str = "white", **pose: Any) -> PoseTask:
    return pose_task(cache, FRAMES, PoseSettings(**pose), detector=detector, load=load)


def extract(video: VideoFile, chosen: PoseTask) -> Path:
    """Extract in this process; a new one would import torch again."""
    return chosen(video, lambda amount: None, 1).path


@pytest.mark.parametrize("every", [1, 6])
def test_the_person_is_where_the_picture_has_it(
    walk: VideoFile, tmp_path: Path, every: int
) -> None:
    path = extract(walk, task(tmp_path / "cache", every=every))
    assert path == tmp_path / "cache" / "pose" / "walk.h5"
    assert verify(path) == []
    poses = load_poses(path)
    assert poses.data.shape == (40, 4, 13, 6)
    assert (poses.width, poses.height) == (80, 48)
    # Half the size; the middle of the square, measured between the middles of pixels.
    until = 36 if every == 6 else 39
    expected = (19.5 + 3 * np.arange(40).clip(max=until) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(poses.joints_2d[:, 0, 0, 0], expected, atol=0.6)
    np.testing.assert_allclose(poses.joints_2d[:, 0, 0, 1], (39.5 + 0.5) / 2 - 0.5, atol=0.6)
    np.testing.assert_allclose(poses.scores[:, 0], 0.8, atol=1e-6)
    np.testing.assert_allclose(poses.joints_3d[:, 0], 400 / (160 * 96), atol=0.01)
    assert (poses.present == [True, False, False, False]).all()


def test_rows_are_those_of_flow(walk: VideoFile, tmp_path: Path) -> None:
    flow = FlowTask(tmp_path, FRAMES, FlowSettings(backend="opencv"))
    path = flow(walk, lambda amount: None, 1).path
    poses = load_poses(extract(walk, task(tmp_path)))
    with CacheFile(path) as file:
        np.testing.assert_array_equal(poses.pts, file.pts)
        assert (poses.height, poses.width) == file.data.shape[1:3]
        with pytest.raises(CacheError, match="holds flow"):
            load_poses(path)


def test_provenance_says_what_made_the_poses(walk: VideoFile, tmp_path: Path) -> None:
    chosen = task(tmp_path, every=2, tracks=TrackSettings(max_people=2))
    path = extract(walk, chosen)
    with CacheFile(path) as file:
        assert file.provenance.encoder == "white"
        assert file.provenance.weights_sha256 == WhiteDetector.weights_sha256
        assert file.provenance.settings["pose"]["every"] == 2
        assert file.provenance.settings["size"] == [80, 48]
    before = path.read_bytes()
    assert chosen(walk, lambda amount: None, 1).skipped
    two = TrackSettings(max_people=2)
    with pytest.raises(CacheError, match=r"pose\.every is 2 \(asked for: 3\)"):
        extract(walk, task(tmp_path, every=3, tracks=two))
    with pytest.raises(CacheError, match="the weights of white were others"):
        extract(walk, task(tmp_path, "other", every=2, tracks=two))
    assert path.read_bytes() == before
    again = pose_task(tmp_path, FRAMES, PoseSettings(), detector="white", load=load, overwrite=True)
    assert load_poses(extract(walk, again)).data.shape[1] == 4


def test_only_the_chosen_frames_are_looked_at(walk: VideoFile) -> None:
    seen: list[int] = []

    class Counting(WhiteDetector):
        def __call__(self, images: Any) -> Any:
            seen.append(len(images))
            return super().__call__(images)

    frames = (Frame(draw(number), number / 25, (number + 1) / 25, number) for number in range(40))
    looks = list(detect_every(frames, Counting(), every=7, batch_size=4))
    assert [index for index, _, _ in looks] == [0, 7, 14, 21, 28, 35]
    assert seen == [4, 2]


def test_unsure_people_are_ignored(walk: VideoFile, tmp_path: Path) -> None:
    poses = load_poses(extract(walk, task(tmp_path, min_score=0.95)))
    assert not poses.present.any()
    assert np.isnan(poses.data).all()


def test_videos_are_drawn_once_and_again_when_the_poses_are_newer(
    walk: VideoFile, tmp_path: Path
) -> None:
    path = extract(walk, task(tmp_path / "cache"))
    result = JobResult("walk", walk.path, path, "done", rows=40)
    assert not render_all([result], tmp_path / "drawn", workers=1)
    target = tmp_path / "drawn" / "walk.mp4"
    info = probe(target)
    assert (info.frame_count, info.height) == (40, 360)
    # What is drawn moves with the square, which is enlarged 3.75 times.
    pictures = [frame.image.astype(int) for frame in read_frames(target)]
    for number in (0, 39):
        middle = round(3.75 * (19.5 + 3 * number + 0.5))
        plain = np.full((360, 600, 3), 90)
        plain[113:188, middle - 37 : middle + 38] = 240
        differs = np.abs(pictures[number][:, :600] - plain).max(axis=2) > 60
        _, columns = np.nonzero(differs)
        assert len(columns) > 50
        assert middle - 60 < columns.min() <= columns.max() < middle + 120
    before = target.stat().st_mtime_ns
    assert not render_all([result], tmp_path / "drawn", workers=1)
    assert target.stat().st_mtime_ns == before
    walk.path.write_bytes(b"gone")
    path.touch()
    assert render_all([result], tmp_path / "drawn", workers=1)


@pytest.mark.parametrize(
    ("pose", "arguments", "complaint"),
    [
        ("files", {}, "needs --poses"),
        ("files", {"poses": Path("nowhere")}, "does not exist"),
        ("files", {"poses": Path(), "detector": "white"}, "uses no detector"),
        ("lcrnet", {"poses": Path()}, "needs --backend files"),
    ],
)
def test_contradictions_are_told_before_any_work(
    tmp_path: Path, pose: str, arguments: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        pose_task(tmp_path, FRAMES, PoseSettings(backend=pose), load=load, **arguments)
