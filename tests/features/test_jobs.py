"""Many videos: planned, done in parallel, failures apart."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deadly_task import DeadlyTask, StuckTask
from encoder_double import TinyEncoder, load

import vidkd.features.jobs
from vidkd.cache import CacheFile, verify_cache
from vidkd.errors import UsageError
from vidkd.features import (
    FeatureSettings,
    FlowTask,
    JobResult,
    feature_task,
    plan_jobs,
    run_jobs,
)
from vidkd.features.jobs import silence_allowed
from vidkd.recipe import FlowSettings, FrameSettings, SnippetSettings
from vidkd.streams import STREAMS
from vidkd.video import VideoFile

FRAMES = FrameSettings(short_side=48)
OPENCV = FlowSettings(backend="opencv")
MakeVideo = Callable[..., VideoFile]


def features_all(
    videos: list[VideoFile],
    cache: Path,
    modality: str = "rgb",
    *,
    workers: int = 1,
    overwrite: bool = False,
    **changes: Any,
) -> list[JobResult]:
    settings = FeatureSettings(
        STREAMS[modality], "tiny-rgb", **{"frames": FRAMES, "crop": 32, **changes}
    )
    task = feature_task(cache, settings, load=load, overwrite=overwrite)
    return run_jobs(videos, task, workers=workers)


def flow_all(videos: list[VideoFile], cache: Path, workers: int = 1) -> list[JobResult]:
    return run_jobs(videos, FlowTask(cache, FRAMES, OPENCV), workers=workers)


def test_bad_inputs_fail_alone_and_finished_work_is_skipped(
    make_video: MakeVideo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "videos" / "text.mp4"
    videos = [
        make_video("one", 20),
        VideoFile(text, "text"),
        VideoFile(tmp_path / "none.mp4", "none"),
        make_video("two", 20),
    ]
    text.write_text("text")
    results = flow_all(videos, tmp_path / "cache", workers=2)
    assert [(result.key, result.status, result.rows) for result in results] == [
        ("one", "done", 20),
        ("text", "failed", 0),
        ("none", "failed", 0),
        ("two", "done", 20),
    ]
    printed = capsys.readouterr()
    assert printed.out == ""
    # A slow machine prints its progress too.
    lines = [line for line in printed.err.splitlines() if not line.startswith("extract-flow")]
    assert len(lines) == 2
    assert lines[0].startswith(f"failed: {text}: ")
    assert lines[0].count(str(text)) == 1
    assert f"{lines[0]}\n".endswith(f"{results[1].reason}\n")

    again = flow_all(videos, tmp_path / "cache", workers=2)
    assert [result.status for result in again] == ["skipped", "failed", "failed", "skipped"]
    assert again[0].rows == 20
    assert "done before: 2" in capsys.readouterr().err


@pytest.mark.slow
def test_features_of_many_videos_in_workers(make_video: MakeVideo, tmp_path: Path) -> None:
    videos = [make_video("one", 20), make_video("two", 33)]
    results = features_all(videos, tmp_path, workers=2)
    assert [(result.status, result.rows) for result in results] == [("done", 2), ("done", 3)]
    with CacheFile(results[1].path) as file:
        assert file.data.dtype == np.float16
        assert (
            file.provenance.weights_sha256 == TinyEncoder(load("tiny-rgb", "").card).weights_sha256
        )
    stale = features_all(videos, tmp_path, snippet=SnippetSettings(stride=8))
    assert {result.status for result in stale} == {"failed"}
    assert "snippet.stride is 16 (asked for: 8)" in stale[0].reason
    other = SnippetSettings(stride=8)
    [redone] = features_all(videos[1:], tmp_path, snippet=other, overwrite=True)
    assert (redone.status, redone.rows) == ("done", 4)


def test_an_unknown_encoder_or_modality_is_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tiny-rgb is for rgb, not for flow"):
        features_all([], tmp_path, modality="flow")
    with pytest.raises(UsageError, match="crop of 64"):
        features_all([], tmp_path, crop=64)


@pytest.mark.slow
def test_a_killed_worker_fails_its_video_and_a_rerun_gives_the_same_bytes(
    make_video: MakeVideo, tmp_path: Path
) -> None:
    videos = [make_video(name, 20) for name in ("deadly", "one", "two")]
    cache, undisturbed = tmp_path / "cache", tmp_path / "undisturbed"
    results = run_jobs(videos, DeadlyTask(cache, FRAMES, OPENCV), workers=2)
    assert [result.status for result in results] == ["failed", "done", "done"]
    assert "SIGKILL" in results[0].reason
    assert sorted(item.name for item in (cache / "flow").iterdir()) == ["one.h5", "two.h5"]

    again = flow_all(videos, cache, workers=2)
    assert [result.status for result in again] == ["done", "skipped", "skipped"]
    flow_all(videos[:1], undisturbed)
    assert (cache / "flow/deadly.h5").read_bytes() == (undisturbed / "flow/deadly.h5").read_bytes()
    assert all(problems == [] for _, problems in verify_cache(cache, tmp_path / "videos"))


@pytest.mark.slow
def test_a_video_that_hangs_fails_alone_and_leaves_no_half_file(
    make_video: MakeVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allowed(video: VideoFile, time_limit: float | None) -> float:
        # Once it hangs it cannot recover; until then a busy machine has all the time it needs.
        assert time_limit == 7
        return 0.5 if video.path.with_suffix(".pipe").exists() else 300.0

    monkeypatch.setattr("vidkd.features.jobs.silence_allowed", allowed)
    videos = [make_video(name, 20) for name in ("stuck", "one")]
    task = StuckTask(tmp_path / "cache", FRAMES, OPENCV)
    results = run_jobs(videos, task, time_limit=7)
    assert [result.status for result in results] == ["failed", "done"]
    assert "gave no sign of life" in results[0].reason
    assert [item.name for item in (tmp_path / "cache/flow").iterdir()] == ["one.h5"]


def test_a_file_that_cannot_even_be_looked_at_does_not_hold_up_the_rest(
    make_video: MakeVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = [make_video(name, 3) for name in ("stuck", "one")]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    before = vidkd.features.jobs.probe

    def look(path: Path) -> Any:
        if path.stem == "stuck":
            pipe.read_bytes()
        return before(path)

    def allowed(video: VideoFile, time_limit: float | None) -> float:
        return 0.2 if video.key == "stuck" else 300.0

    monkeypatch.setattr(vidkd.features.jobs, "probe", look)
    monkeypatch.setattr(vidkd.features.jobs, "silence_allowed", allowed)
    plans = plan_jobs(videos, FlowTask(tmp_path, FRAMES, OPENCV))
    with pipe.open("wb"):  # lets the thread go
        pass
    assert [plan.status for plan in plans] == ["failed", "missing"]
    assert "gave no sign of life" in plans[0].reason


def test_silence_is_allowed_by_the_size_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    video = VideoFile(path, "v")
    assert silence_allowed(video, None) == 600
    with path.open("wb") as stream:
        stream.truncate(5 * 10**9)
    assert silence_allowed(video, None) == 1100
    assert silence_allowed(video, 30) == 30


def test_the_plan_tells_without_decoding(
    make_video: MakeVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = [make_video(name, 17) for name in ("fresh", "broken", "missing")]
    flow_all(videos[:2], tmp_path)
    broken = tmp_path / "flow" / "broken.h5"
    broken.write_bytes(broken.read_bytes()[:-1000])
    videos.append(VideoFile(tmp_path / "none.mp4", "none"))

    def decode(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("vidkd.streams.base.read_frames", decode)
    plans = plan_jobs(videos, FlowTask(tmp_path, FRAMES, OPENCV))
    assert [plan.status for plan in plans] == ["fresh", "broken", "missing", "failed"]
    assert [plan.rows for plan in plans] == [17, 0, 0, 0]
    assert plans[2].frames == 17
    stale = plan_jobs(videos[:1], FlowTask(tmp_path, FrameSettings(short_side=64), OPENCV))
    assert stale[0].status == "stale"
    settings = FeatureSettings(STREAMS["flow"], "tiny-flow", FRAMES, crop=32)
    task = feature_task(tmp_path, settings, load=load)
    plans = plan_jobs(videos[:3], task)
    assert [plan.status for plan in plans] == ["missing", "missing", "failed"]
    assert "vidkd extract-flow" in plans[2].reason
