"""Video made playable keeps its times."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from pages import write_video

from vidkd.video import read_frames
from vidkd.view.playable import COPY, DIRECT, ENCODE, Playable, make, still, way

TIMES = (0.0, 0.1, 0.5, 0.6, 1.4, 2.0, 2.1)


def write(path: Path, codec: str, begin: float = 0.0, times: tuple[float, ...] = TIMES) -> None:
    """Write frames of rising brightness at given times after ``begin``."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        noise = np.random.default_rng(0)
        for n, second in enumerate(times):
            image = noise.integers(20, 60, (48, 64, 3), np.uint8) + np.uint8(25 * (n % 7))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round((second + begin) * 1000), Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "codec", "begin", "kind"),
    [
        ("plain.mp4", "libx264", 0.0, DIRECT),
        ("other.mkv", "libx264", 0.0, COPY),
        ("late.mkv", "libx264", 7.0, COPY),
        ("part2.mp4", "mpeg4", 0.0, ENCODE),
        ("late part2.mkv", "mpeg4", 5.0, ENCODE),
        ("plain.webm", "libvpx", 0.0, DIRECT),
    ],
)
def test_each_frame_keeps_its_second(
    tmp_path: Path, name: str, codec: str, begin: float, kind: str
) -> None:
    source = tmp_path / name
    write(source, codec, begin)
    assert way(source) == kind
    if kind == DIRECT:
        return
    target = tmp_path / "copy" / "playable.mp4"
    make(source, target, kind, lambda share: None)
    assert way(target) == DIRECT
    with av.open(str(target)) as file:
        assert file.streams.video[0].codec_context.name == "h264"
        frames = list(file.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx(TIMES, abs=1e-3)
    bright = [frame.image.mean() for frame in read_frames(source)]
    found = [frame.to_ndarray(format="rgb24").mean() for frame in frames]
    assert found == pytest.approx(bright, abs=4)


def test_a_copy_is_made_once_and_the_folder_stays_small(tmp_path: Path) -> None:
    playable = Playable(tmp_path / "copies", limit=1)
    for name in ("a.avi", "b.avi"):
        write(tmp_path / name, "mpeg4", times=tuple(n / 10 for n in range(20)))
        while not (state := playable.state(tmp_path / name))["ready"]:
            assert "problem" not in state
        assert playable.state(tmp_path / name)["path"] == state["path"]
    while len(kept := list((tmp_path / "copies").iterdir())) > 1:
        time.sleep(0.01)
    assert kept == [state["path"]]


def test_a_still_is_the_picture_of_its_second(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    for second in (0.0, 3.5, 9.99, 10.4):
        (tmp_path / "still.jpg").write_bytes(still(tmp_path / "a.mp4", second, 48))
        with av.open(str(tmp_path / "still.jpg")) as picture:
            value = next(picture.decode(video=0)).to_ndarray(format="rgb24").mean()
        assert value == pytest.approx(20 * min(int(second), 9) + 20, abs=4)


def test_an_encoded_copy_beeps_when_it_flashes(tmp_path: Path) -> None:
    source, rate = tmp_path / "sound.avi", 16000
    with av.open(str(source), "w") as output:
        video = output.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = output.add_stream("pcm_s16le", rate=rate, layout="mono")
        for number in range(30):
            level = 235 if number == 12 else 20
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        times = np.arange(3 * rate) / rate
        wave = np.sin(2 * np.pi * 880 * times) * (abs(times - 1.25) < 0.05) * 20000
        samples = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
        samples.sample_rate, samples.pts = rate, 0
        output.mux(sound.encode(samples))
        output.mux(sound.encode(None))
    assert way(source) == ENCODE
    make(source, tmp_path / "copy.mp4", ENCODE, lambda share: None)
    with av.open(str(tmp_path / "copy.mp4")) as file:
        flash = next(
            f.time for f in file.decode(video=0) if f.to_ndarray(format="gray").mean() > 150
        )
    with av.open(str(tmp_path / "copy.mp4")) as file:
        heard = next(
            frame.time + int(np.argmax(loud)) / frame.sample_rate
            for frame in file.decode(audio=0)
            if (loud := np.abs(frame.to_ndarray()).max(axis=0) > 0.2).any()
        )
    assert flash == pytest.approx(1.2, abs=0.01)
    assert heard == pytest.approx(1.2, abs=0.02)
