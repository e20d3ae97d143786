"""Sources that fail, shrink, change or vanish while they are read: no result, and no silence."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from unplugging import POSSIBLE, UnpluggedTask, remux, render, unplug

from vidkd.cache import describe_source
from vidkd.errors import VideoError
from vidkd.features import FlowTask, run_jobs
from vidkd.features.poses import PoseTask
from vidkd.recipe import FlowSettings, FrameSettings, PoseSettings
from vidkd.video import VideoFile, probe, read_frames

FRAMES = FrameSettings(short_side=32)
OPENCV = FlowSettings(backend="opencv")
ENDINGS = ["mp4", "mkv", "ts", "flv", "h264"]
needs_proc = pytest.mark.skipif(not POSSIBLE, reason="needs Linux's /proc/self/mem")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("rendered") / "v.mp4")


def read_until(path: Path, happens: Callable[[], object]) -> int:
    """Read a video in which something happens after 20 pictures; return how many came."""
    count = 0
    for _ in read_frames(path):
        count += 1
        if count == 20:
            happens()
    return count


@needs_proc
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_failing_disk_is_named_whatever_the_container(
    ending: str, rendered: Path, tmp_path: Path
) -> None:
    path = remux(rendered, tmp_path / f"v.{ending}")
    assert read_until(path, lambda: None) == 100
    with pytest.raises(
        VideoError, match=r"Input/output error at byte \d+\); check its disk"
    ) as got:
        read_until(path, lambda: unplug(path))
    assert got.value.path == str(path)
    # Nothing of it stays in FFmpeg or in this process.
    assert read_until(path, lambda: None) == 100


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_shrinks_is_named_whatever_the_container(
    ending: str, rendered: Path, tmp_path: Path
) -> None:
    path = remux(rendered, tmp_path / f"v.{ending}")
    half = path.stat().st_size // 2
    with pytest.raises(
        VideoError, match=f"became shorter while it was read: it ends at byte {half}"
    ):
        read_until(path, lambda: os.truncate(path, half))


@needs_proc
def test_a_disk_that_fails_at_the_hash_is_named(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copy(rendered, tmp_path))
    info = probe(path)
    digest = hashlib.file_digest

    def unplugged(stream: io.BufferedReader, name: str) -> object:
        assert unplug(path) == 1
        return digest(stream, name)

    monkeypatch.setattr(hashlib, "file_digest", unplugged)
    with pytest.raises(VideoError, match="Input/output error"):
        describe_source(path, info)


@needs_proc
@pytest.mark.slow
def test_the_unplugged_video_fails_alone_and_a_rerun_completes(
    rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, cache = tmp_path / "videos", tmp_path / "cache"
    folder.mkdir()
    videos = [VideoFile(folder / f"{key}.mp4", key) for key in ("unplugged", "one")]
    for video in videos:
        shutil.copy(rendered, video.path)
    results = run_jobs(videos, UnpluggedTask(cache, FRAMES, OPENCV), workers=1)
    assert [item.status for item in results] == ["failed", "done"]
    assert "Input/output error at byte" in results[0].reason
    assert f"failed: {videos[0].path}: could not be read to its end" in capsys.readouterr().err
    assert sorted(item.name for item in (cache / "flow").iterdir()) == ["one.h5"]

    again = [FlowTask(cache, FRAMES, OPENCV)(video) for video in videos]
    assert [(item.skipped, item.rows) for item in again] == [(False, 100), (True, 100)]


class _NoDetector:
    """Finds nobody."""

    name, weights_sha256, least_score = "none", "00" * 32, 0.0

    def __call__(self, images: list[np.ndarray]) -> list[list[object]]:
        return [[] for _ in images]


def _load(name: str, device: str) -> _NoDetector:
    return _NoDetector()


def _flow(video: VideoFile, cache: Path, report: Callable[[float], None]) -> None:
    FlowTask(cache, FRAMES, OPENCV)(video, report)


def _pose(video: VideoFile, cache: Path, report: Callable[[float], None]) -> None:
    task = PoseTask(cache, FRAMES, PoseSettings(), "none", "none", "00" * 32, _load, device="cpu")
    task(video, report, 1)


@pytest.mark.parametrize("extract", [_flow, _pose])
@pytest.mark.parametrize(
    ("change", "message"),
    [("replaced", "changed while it was read"), ("gone", "could not be read to its end")],
)
def test_what_is_kept_was_made_of_the_video_that_it_names(
    extract: Callable[..., None], change: str, message: str, rendered: Path, tmp_path: Path
) -> None:
    video = VideoFile(render(tmp_path / "v.mp4", 30), "v")
    done = 0.0

    def happens(amount: float) -> None:
        nonlocal done
        done += amount
        if done == 5 and change == "replaced":
            shutil.copy(rendered, tmp_path / "other.mp4")
            (tmp_path / "other.mp4").replace(video.path)
        elif done == 5:
            video.path.unlink()

    with pytest.raises(VideoError, match=message):
        extract(video, tmp_path / "cache", happens)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_video_that_is_only_touched_is_still_the_same(tmp_path: Path) -> None:
    video = VideoFile(render(tmp_path / "v.mp4", 20), "v")
    result = FlowTask(tmp_path, FRAMES, OPENCV)(video, lambda _: video.path.touch())
    assert result.rows == 20
