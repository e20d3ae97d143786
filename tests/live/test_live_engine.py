"""The live engine against `detect`, and sources that break: real streams, small encoder."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "detection"))
sys.path.insert(0, str(Path(__file__).parent))

from brightness import BrightnessEncoder, write_student, write_video
from serving import Camera, served

from vidkd.detection.detector import detect
from vidkd.errors import UsageError
from vidkd.live.engine import Engine
from vidkd.live.events import Event, LiveFrame
from vidkd.live.sources import find_sources
from vidkd.live.student import LiveStudent
from vidkd.recipe import FilterSettings, FrameSettings, LiveSettings, SegmentSettings
from vidkd.video import read_frames

# Scores of random weights hardly vary; with a release of 1 there are events all the same.
RELEASE = SegmentSettings(release=1.0)
CAUSAL = FilterSettings(kind="causal-ss-tcn", channels=8, layers=3, levels=0)


class Recorder:
    """Keeps what it is told."""

    def __init__(self, wants_frames: bool = False) -> None:
        self.wants_frames = wants_frames
        self.frames: list[tuple[str, LiveFrame]] = []
        self.events: list[Event] = []
        self.closed = False

    def frame(self, source: str, frame: LiveFrame) -> None:
        self.frames.append((source, frame))

    def event(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed = True

    def ended(self) -> list[tuple[float, float, str, float]]:
        return [(e.start, e.end or 0, e.label, e.score) for e in self.events if e.state == "end"]


class RecordingStudent(LiveStudent):
    """Keeps the scores of every snippet."""

    def __init__(self, *args: object, slow: float = 0.0, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.all: list[np.ndarray] = []
        self.batches: list[int] = []
        self.slow = slow

    def rows(self, images):
        self.batches.append(len(images))
        time.sleep(self.slow)
        return super().rows(images)

    def scores(self, row, state):
        scores, state = super().scores(row, state)
        self.all.append(scores)
        return scores, state


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    names = np.random.default_rng(0).choice(["dark", "red", "bright"], 30)
    path = tmp_path_factory.mktemp("videos") / "grounds.mp4"
    return write_video(path, [(str(name), 0.7) for name in names])


@pytest.fixture(scope="module")
def stream(video):
    """The video as a transport stream that one can come into anywhere."""
    path = video.with_suffix(".ts")
    with av.open(str(path), "w") as output:
        target = output.add_stream("mpeg2video", rate=25, options={"g": "5"})
        target.width, target.height, target.pix_fmt = 64, 48, "yuv420p"
        for frame in read_frames(video):
            output.mux(target.encode(av.VideoFrame.from_ndarray(frame.image, "rgb24")))
        output.mux(target.encode(None))
    return path


def run(folder, sources, outputs=(), threshold=None, slow=0.0, **settings):
    """Watch until the end; return the engine, a recorder and the student."""
    student = RecordingStudent(folder, "cpu", encoder=BrightnessEncoder(), slow=slow)
    chosen = LiveSettings(**settings)
    recorder = Recorder()
    found = find_sources([str(source) for source in sources], None, chosen)
    engine = Engine(student, found, chosen, [recorder, *outputs], threshold=threshold)
    engine.run()
    return engine, recorder, student


@pytest.mark.parametrize(
    "changes",
    [{}, {"frames": FrameSettings(short_side=48, frame_rate=10)}, {"modality": "rgb-difference"}],
    ids=["own frames", "sampled frames", "differences"],
)
def test_a_whole_file_gives_what_detect_gives(video, tmp_path, changes):
    write_student(tmp_path / "weights.safetensors", filter=CAUSAL, segments=RELEASE, **changes)
    wanted = detect(video, tmp_path, "cpu", encoder=BrightnessEncoder())
    threshold = float(np.quantile(wanted.scores, 0.7))
    wanted = detect(video, tmp_path, "cpu", encoder=BrightnessEncoder(), threshold=threshold)
    engine, recorder, student = run(tmp_path, [video], threshold=threshold)
    np.testing.assert_allclose(np.stack(student.all), wanted.scores, atol=1e-5)
    assert len(wanted.segments) > 3
    found = sorted(recorder.ended())
    assert [item[2] for item in found] == [item.label for item in wanted.segments]
    for (start, end, _, score), item in zip(found, wanted.segments, strict=True):
        assert (start, end, score) == pytest.approx((item.start, item.end, item.score), abs=1e-5)
    counts = engine.statistics.sources["grounds.mp4"]
    assert (counts.frames, counts.snippets) == (540, len(wanted.scores))
    assert counts.events == len(found)
    assert len(recorder.frames) == 540
    assert recorder.closed


def test_frames_have_their_pictures_and_come_before_what_they_decide(video, tmp_path):
    write_student(tmp_path / "weights.safetensors", filter=CAUSAL, segments=RELEASE)
    order: list[float] = []

    class Watcher(Recorder):
        def frame(self, source, frame):
            order.append(frame.time)
            super().frame(source, frame)

        def event(self, event):
            order.append(-(event.end or event.start))

    watcher = Watcher(wants_frames=True)
    run(tmp_path, [f"front={video}"], [watcher], threshold=0.52)
    assert {source for source, _ in watcher.frames} == {"front"}
    assert {frame.image.shape for _, frame in watcher.frames} == {(48, 64, 3)}
    assert set(watcher.frames[-1][1].scores) == {"sit", "stand"}
    reached = 0.0
    for value in order:
        reached = max(reached, value)
        assert -value <= reached + 0.05


@pytest.mark.parametrize("kind", ["pipe", "growing file"])
def test_what_is_written_while_it_is_watched(stream, tmp_path, kind):
    write_student(tmp_path / "weights.safetensors", filter=CAUSAL, segments=RELEASE)
    wanted = detect(stream, tmp_path, "cpu", encoder=BrightnessEncoder())
    path = tmp_path / "live.ts"
    data = stream.read_bytes()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.touch()

    def write():
        with path.open("wb") as file:
            for part in range(0, len(data), 5000):
                file.write(data[part : part + 5000])
                file.flush()
                time.sleep(0.002)
        time.sleep(0.3)
        path.unlink()

    writer = threading.Thread(target=write)
    writer.start()
    _, _, student = run(tmp_path, [path], follow=kind != "pipe")
    writer.join()
    np.testing.assert_allclose(np.stack(student.all), wanted.scores, atol=1e-5)


def test_a_stream_that_is_cut_comes_back_every_time(stream, tmp_path, capfd):
    write_student(tmp_path / "weights.safetensors", filter=CAUSAL, segments=RELEASE)
    camera = Camera(stream, 2.0, (0.12, 0.25, 0.44, 0.53, 0.7, 0.86))
    with served(camera) as address:
        engine, recorder, _ = run(
            tmp_path, [address], threshold=0.52, speed=10, gap=60, retries=2, retry_seconds=0.1
        )
    assert camera.connections == 7
    (counts,) = engine.statistics.sources.values()
    assert counts.reconnects == 6
    assert counts.resets == 0
    assert counts.frames > 300
    times = [frame.time for _, frame in recorder.frames]
    assert times == sorted(times)
    (error,) = engine.errors
    assert "404" in str(error)
    states = [(event.number, event.state) for event in recorder.events]
    assert states
    assert len(set(states)) == len(states)
    assert {n for n, s in states if s == "begin"} == {n for n, s in states if s == "end"}
    shown = capfd.readouterr().err
    assert "frames come again" in shown
    assert "secret" not in shown + str([*engine.statistics.sources, error, recorder.events])


def test_after_a_long_pause_events_end_and_the_filter_begins_anew(stream, tmp_path):
    write_student(tmp_path / "weights.safetensors", filter=CAUSAL, segments=RELEASE)
    with served(Camera(stream, 1.0, (0.5,))) as address:
        engine, recorder, student = run(
            tmp_path, [address], threshold=0.0, speed=20, gap=1.0, retries=1, retry_seconds=0.2
        )
    (counts,) = engine.statistics.sources.values()
    assert (counts.reconnects, counts.resets) == (1, 2)
    # A threshold of 0 makes each stretch one event of every class.
    assert len(recorder.ended()) == 4
    first, second = sorted({item[:2] for item in recorder.ended()})
    assert second[0] > first[1] + 1
    again = student.start()
    assert all(not part.any() for part in again)


def test_one_broken_source_stops_no_other(video, tmp_path):
    write_student(tmp_path / "weights.safetensors", filter=CAUSAL, segments=RELEASE)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(video.read_bytes()[:3000])
    missing = tmp_path / "missing.mp4"
    engine, recorder, _ = run(tmp_path, [broken, video, missing], threshold=0.52)
    assert len(engine.errors) == 2
    nothing, _, _ = run(tmp_path, [missing], follow=True)
    assert "No such file" in str(nothing.errors)
    assert engine.statistics.sources["grounds.mp4"].snippets == 67
    assert recorder.ended()


def test_a_slow_machine_skips_and_serves_all(video, tmp_path):
    write_student(tmp_path / "weights.safetensors", filter=CAUSAL, segments=RELEASE)
    copies = [shutil.copy(video, tmp_path / f"{name}.mp4") for name in "abc"]
    engine, _, student = run(tmp_path, copies, slow=0.3, realtime=True, speed=20, lag=60)
    encoded = []
    for counts in engine.statistics.sources.values():
        assert counts.skipped_snippets > 0
        assert counts.frames == 540
        encoded.append(67 - counts.skipped_snippets)
        # Those that were skipped are scored by what came before, but for the first ones.
        assert encoded[-1] < counts.snippets <= 67
    assert min(encoded) >= 4
    assert sum(student.batches) == sum(encoded)


def test_stopping_ends_what_is_open(stream, tmp_path):
    write_student(tmp_path / "weights.safetensors", filter=CAUSAL, segments=RELEASE)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    student = LiveStudent(tmp_path, "cpu", encoder=BrightnessEncoder())
    recorder = Recorder()
    sources = find_sources([str(path)], None, LiveSettings())
    engine = Engine(student, sources, LiveSettings(), [recorder], threshold=0.0)
    thread = threading.Thread(target=engine.run)
    thread.start()
    with path.open("wb") as file:
        file.write(stream.read_bytes())
        file.flush()
        while len(recorder.events) < 4:
            time.sleep(0.01)
        engine.stop()
        thread.join(10)
    assert not thread.is_alive()
    assert len(recorder.ended()) == 2
    assert recorder.closed


def test_an_output_that_fails_is_left_out(video, tmp_path, capfd):
    write_student(tmp_path / "weights.safetensors", filter=CAUSAL, segments=RELEASE)

    class Failing(Recorder):
        def event(self, event):
            super().event(event)
            raise OSError("no route")

    failing = Failing()
    _, recorder, _ = run(tmp_path, [video], [failing], threshold=0.52)
    assert len(failing.events) == 1
    assert len(recorder.events) > 1
    assert "Failing failed and is left out" in capfd.readouterr().err


def test_when_nobody_reads_the_lines_the_other_outputs_are_closed(video, tmp_path):
    write_student(tmp_path / "weights.safetensors", filter=CAUSAL, segments=RELEASE)

    class Unread(Recorder):
        def event(self, event):
            raise BrokenPipeError

    other = Recorder()
    student = LiveStudent(tmp_path, "cpu", encoder=BrightnessEncoder())
    sources = find_sources([str(video)], None, LiveSettings())
    engine = Engine(student, sources, LiveSettings(), [Unread(), other], threshold=0.52)
    with pytest.raises(BrokenPipeError):
        engine.run()
    assert other.closed
    begun = {event.number for event in other.events}
    assert begun == {event.number for event in other.events if event.state == "end"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "later snippets"),
        ({"filter": CAUSAL, "modality": "flow"}, "sees flow"),
    ],
)
def test_students_that_cannot_run_live_are_refused(tmp_path, changes, message):
    write_student(tmp_path / "weights.safetensors", **changes)
    with pytest.raises(UsageError, match=message):
        LiveStudent(tmp_path, "cpu", encoder=BrightnessEncoder())
