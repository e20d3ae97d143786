"""One video to one cache file."""

from __future__ import annotations

import gc
import os
import resource
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from encoder_double import FLOW, RGB, TinyEncoder

import vidkd.streams.base
from vidkd.cache import CacheFile, cache_path, verify_cache
from vidkd.errors import CacheError, UsageError, VideoError, VidkdError
from vidkd.features import Extraction, FeatureSettings, FlowTask, feature_task
from vidkd.files import sha256
from vidkd.flow import flow_rows
from vidkd.recipe import FlowSettings, FrameSettings, SnippetSettings
from vidkd.streams import STREAMS
from vidkd.streams.base import ignore
from vidkd.video import Frame, VideoFile, read_frames, snippet_pts
from vidkd.workers import Report

FRAMES = FrameSettings(short_side=48)
OPENCV = FlowSettings(backend="opencv")
MakeVideo = Callable[..., VideoFile]


def features(
    video: VideoFile,
    cache: Path,
    modality: str = "rgb",
    *,
    encoder: TinyEncoder | None = None,
    flow: FlowSettings | None = None,
    flow_cache: bool = True,
    overwrite: bool = False,
    report: Report = ignore,
    **changes: Any,
) -> Extraction:
    chosen = encoder or TinyEncoder(FLOW if modality == "flow" else RGB)
    settings = FeatureSettings(
        STREAMS[modality].configured(flow, flow_cache),
        chosen.card.name,
        **{"frames": FRAMES, "crop": 32, "batch_size": 2, "dtype": "float32", **changes},
    )
    task = feature_task(cache, settings, overwrite=overwrite, load=lambda name, device: chosen)
    return task(video, report)


def extract_flow(
    video: VideoFile, cache: Path, report: Report = ignore, *, overwrite: bool = False
) -> Extraction:
    return FlowTask(cache, FRAMES, OPENCV, overwrite=overwrite)(video, report)


def test_flow_holds_a_row_for_each_frame(make_video: MakeVideo, tmp_path: Path) -> None:
    video = make_video(frames=9)
    reported: list[float] = []
    result = extract_flow(video, tmp_path, reported.append)
    assert result.path == tmp_path / "flow" / "walk.h5"
    assert (result.rows, result.skipped, sum(reported)) == (9, False, 9)
    frames = list(read_frames(video.path, short_side=48))
    expected = np.stack([row.image for row in flow_rows(frames, OPENCV)])
    with CacheFile(result.path) as file:
        np.testing.assert_array_equal(file.rows(), expected)
        np.testing.assert_array_equal(file.pts, [(frame.start, frame.end) for frame in frames])
        found = file.provenance
    assert found.source.name == "walk.mp4"
    assert found.source.sha256 == sha256(video.path)
    assert found.source.frame_count == 9
    assert found.settings["frames"] == FrameSettings(short_side=48).model_dump()
    assert found.settings["flow"]["backend"] == "opencv"
    assert {"av", "numpy", "h5py", "vidkd"} <= set(found.versions)
    assert extract_flow(video, tmp_path).skipped


def test_rgb_features_are_those_of_the_frames(make_video: MakeVideo, tmp_path: Path) -> None:
    video = make_video(frames=24)
    result = features(video, tmp_path)
    assert result.path == tmp_path / "features" / "tiny-rgb" / "walk.h5"
    images = np.stack([frame.image for frame in read_frames(video.path, short_side=48)])
    top, left = (images.shape[1] - 32) // 2, (images.shape[2] - 32) // 2
    cut = images[:, top : top + 32, left : left + 32].astype(np.float64) / 127.5 - 1
    second = np.concatenate([cut[16:], np.repeat(cut[-1:], 8, axis=0)])
    expected = [
        np.concatenate([part.mean((0, 1, 2)), part.min((0, 1, 2)), part.max((0, 1, 2))])
        for part in (cut[:16], second)
    ]
    with CacheFile(result.path) as file:
        np.testing.assert_allclose(file.rows(), expected, atol=1e-5)
        assert file.provenance.encoder == "tiny-rgb"
        assert file.provenance.source.frame_count == 24


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("stride", [8, 16])
def test_rgb_and_flow_have_the_same_times(
    make_video: MakeVideo, tmp_path: Path, count: int, stride: int
) -> None:
    video = make_video(frames=count)
    snippet = SnippetSettings(stride=stride)
    extract_flow(video, tmp_path)
    paths = [features(video, tmp_path, name, snippet=snippet).path for name in ("rgb", "flow")]
    pts = []
    for path in paths:
        with CacheFile(path) as file:
            pts.append(file.pts)
    np.testing.assert_array_equal(pts[0], pts[1])
    times = np.array([(f.start, f.end) for f in read_frames(video.path, short_side=48)])
    np.testing.assert_array_equal(pts[0], snippet_pts(times, snippet))


def test_flow_features_follow_the_motion(make_video: MakeVideo, tmp_path: Path) -> None:
    video = make_video(frames=16)
    extract_flow(video, tmp_path)
    with CacheFile(features(video, tmp_path, "flow").path) as file:
        mean_x, mean_y = file.rows()[0, :2] * 20
    # A square of 18 of the 32 pixels moves 1.5 pixels to the right in a frame, most of the time
    # inside the crop; the rest is at rest.
    assert 0.2 < mean_x < 1.5 * (18 / 32) ** 2 + 0.3
    assert abs(mean_y) < mean_x / 4


def test_stale_work_is_refused_and_recomputed_when_told(
    make_video: MakeVideo, tmp_path: Path
) -> None:
    video = make_video()
    path = features(video, tmp_path).path
    before = path.read_bytes()
    assert features(video, tmp_path).skipped
    other = SnippetSettings(stride=8)
    with pytest.raises(CacheError, match=r"snippet.stride is 16 \(asked for: 8\).*--overwrite"):
        features(video, tmp_path, snippet=other)
    with pytest.raises(CacheError, match="weights of tiny-rgb were others"):
        features(video, tmp_path, encoder=TinyEncoder(RGB, "ff" * 32))
    with pytest.raises(CacheError, match="dtype"):
        features(video, tmp_path, dtype="float16")
    assert path.read_bytes() == before
    assert not features(video, tmp_path, snippet=other, overwrite=True).skipped
    assert features(video, tmp_path, snippet=other).skipped


def test_another_video_of_the_same_name_is_stale(make_video: MakeVideo, tmp_path: Path) -> None:
    features(make_video(frames=20), tmp_path)
    with pytest.raises(CacheError, match="the video's content has changed"):
        features(make_video(frames=21), tmp_path)


def test_broken_and_damaged_files_are_repaired_by_overwrite(
    make_video: MakeVideo, tmp_path: Path
) -> None:
    video = make_video()
    path = features(video, tmp_path).path
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(CacheError, match="--overwrite"):
        features(video, tmp_path)
    assert not features(video, tmp_path, overwrite=True).skipped
    assert path.read_bytes() == good
    # Sound work is not done twice; damage that only reading the rows shows is repaired.
    assert features(video, tmp_path, overwrite=True).skipped
    with CacheFile(path) as file:
        place = file.data.id.get_chunk_info(0).byte_offset + 40
    path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
    [(damaged, problems)] = verify_cache(tmp_path)
    assert (damaged, len(problems)) == (path, 1)
    assert not features(video, tmp_path, overwrite=True).skipped
    assert path.read_bytes() == good
    assert [problems for _, problems in verify_cache(tmp_path)] == [[]]


def test_flow_must_be_there_and_be_what_is_asked_for(make_video: MakeVideo, tmp_path: Path) -> None:
    video = make_video()
    with pytest.raises(CacheError, match="missing; run `vidkd extract-flow"):
        features(video, tmp_path, "flow")
    extract_flow(video, tmp_path)
    with pytest.raises(CacheError, match=r"frames.short_side is 48 .*vidkd extract-flow"):
        features(video, tmp_path, "flow", frames=FrameSettings(short_side=64))
    with pytest.raises(CacheError, match=r"flow.bound is 20.0 \(asked for: 10.0\)"):
        features(video, tmp_path, "flow", flow=FlowSettings(backend="opencv", bound=10.0))
    features(video, tmp_path, "flow", flow=OPENCV)
    # Flow is large: once its features are made it may go, and they stay fresh.
    cache_path(tmp_path, "flow", "walk").unlink()
    assert features(video, tmp_path, "flow").skipped
    assert features(video, tmp_path, "flow", flow=OPENCV).skipped
    with pytest.raises(CacheError, match=r"flow.bound is 20.0 \(asked for: 10.0\)"):
        features(video, tmp_path, "flow", flow=FlowSettings(backend="opencv", bound=10.0))


def test_flow_need_not_be_kept(make_video: MakeVideo, tmp_path: Path) -> None:
    """In one pass or through the cache: the same bits, and either call accepts the other's."""
    video = make_video(frames=21)
    kept, passed = tmp_path / "kept", tmp_path / "passed"
    extract_flow(video, kept)
    one_pass: dict[str, Any] = {"flow": OPENCV, "flow_cache": False}
    results = [features(video, kept, "flow"), features(video, passed, "flow", **one_pass)]
    assert not (passed / "flow").exists()
    with CacheFile(results[0].path) as first, CacheFile(results[1].path) as second:
        assert first.rows().tobytes() == second.rows().tobytes()
        np.testing.assert_array_equal(first.pts, second.pts)
        assert first.provenance.settings == second.provenance.settings
        assert second.provenance.source.frame_count == 21
    assert features(video, kept, "flow", **one_pass).skipped
    assert features(video, passed, "flow").skipped
    other = FlowSettings(backend="opencv", bound=10.0)
    with pytest.raises(CacheError, match=r"flow.bound is 20.0 \(asked for: 10.0\)"):
        features(video, kept, "flow", flow=other, flow_cache=False)


def test_flow_as_jpeg_is_refused_in_one_line(make_video: MakeVideo, tmp_path: Path) -> None:
    """As earlier versions wrote it: the dataset ``jpeg`` in place of ``data``."""
    video = make_video(frames=18)
    path = extract_flow(video, tmp_path).path
    with h5py.File(path, "r+") as plain:
        plain.move("data", "jpeg")
    for extract in (lambda: extract_flow(video, tmp_path),
                    lambda: features(video, tmp_path, "flow")):  # fmt: skip
        with pytest.raises(CacheError, match=r"holds flow as JPEG.*--overwrite"):
            extract()
    assert not extract_flow(video, tmp_path, overwrite=True).skipped
    assert features(video, tmp_path, "flow").rows == 2


def test_a_source_that_shrinks_while_it_is_read_leaves_nothing(
    make_video: MakeVideo, tmp_path: Path
) -> None:
    video = make_video(frames=400, width=320, height=240)
    cut = False

    def unplug(amount: float) -> None:
        nonlocal cut
        if not cut:
            os.truncate(video.path, video.path.stat().st_size // 3)
            cut = True

    with pytest.raises(VideoError, match="became shorter while it was read"):
        features(video, tmp_path / "cache", report=unplug)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_disk_that_takes_no_more_leaves_nothing_and_a_rerun_completes(
    make_video: MakeVideo, tmp_path: Path
) -> None:
    """The system itself refuses to write on, here for a limit on the size of files."""
    video = make_video(frames=24)
    whole = extract_flow(video, tmp_path / "whole").path
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole.stat().st_size // 2, old[1]))
    try:
        with pytest.raises(VidkdError, match=r"cannot be written \(File too large\); free some"):
            extract_flow(video, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    again = extract_flow(video, tmp_path / "cache")
    assert again.path.read_bytes() == whole.read_bytes()


def test_what_cannot_fit_is_a_usage_error(make_video: MakeVideo, tmp_path: Path) -> None:
    video = make_video()
    with pytest.raises(UsageError, match="tiny-rgb is for rgb, not for flow"):
        features(video, tmp_path, "flow", encoder=TinyEncoder(RGB))
    with pytest.raises(UsageError, match="smaller than the crop of 64"):
        features(video, tmp_path, crop=64)


def test_features_that_overflow_are_refused(make_video: MakeVideo, tmp_path: Path) -> None:
    class Loud(TinyEncoder):
        def features(self, x: Any) -> Any:
            return super().features(x) * 1e6

    with pytest.raises(VidkdError, match="does not fit float16; use --dtype float32"):
        features(make_video(), tmp_path, encoder=Loud(RGB), dtype="float16")
    assert not any(path.is_file() for path in (tmp_path / "features").rglob("*"))
    assert features(make_video(), tmp_path, encoder=Loud(RGB), dtype="float32").rows == 2


def test_a_bad_video_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("this is text")
    for extract in (features, extract_flow):
        with pytest.raises(VideoError):
            extract(VideoFile(path, "text"), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_memory_does_not_grow_with_the_video(
    make_video: MakeVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive, most, made = 0, 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def many(*_: object, **__: object) -> Iterator[Frame]:
        nonlocal alive, most, made
        for number in range(400):
            image = np.zeros((48, 60, 3), np.uint8)
            weakref.finalize(image, gone)
            alive, made = alive + 1, made + 1
            most = max(most, alive)
            yield Frame(image, number / 25, (number + 1) / 25, number)

    monkeypatch.setattr(vidkd.streams.base, "read_frames", many)
    video = make_video(frames=2)
    assert features(video, tmp_path, batch_size=2).rows == 25
    assert made == 400
    assert most <= 4 * 16
    most = 0
    assert extract_flow(video, tmp_path).rows == 400
    assert most <= 8
    gc.collect()
    assert alive <= 2
