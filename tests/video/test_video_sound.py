"""Sound in time with the pictures: a beep is found again where the picture turns white."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vidkd.video.redraw import redraw
from vidkd.video.sound import open_sound

RATE, FRAMES, SECONDS = 25, 75, 3.0
FLASH = 1.4
"""Second at which one picture is white and a beep of 80 ms begins."""


def flash_and_beep(
    path: Path, *, rate: int = 16000, codec: str = "aac", late: float = 0.0, start: float = 0.0
) -> Path:
    """Write a video, with plain PyAV; ``start`` moves both streams, ``late`` begins the sound."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=RATE, options={"g": "10"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = output.add_stream(codec, rate=rate, layout="mono")
        for number in range(FRAMES):
            level = 235 if number == round(FLASH * RATE) else 20
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), "rgb24")
            frame.pts, frame.time_base = number + round(start * RATE), Fraction(1, RATE)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        times = np.arange(round(SECONDS * rate)) / rate
        beep = (times >= FLASH) & (times < FLASH + 0.08)
        samples = (0.8 * np.sin(2 * np.pi * 1000 * times) * beep).astype(np.float32)[None]
        first = round(late * rate)
        form = "s16" if codec.startswith("pcm") else "fltp"
        if form == "s16":
            samples = (samples * 32767).astype(np.int16)
        for begin in range(first, samples.shape[1], 1024):
            block = av.AudioFrame.from_ndarray(samples[:, begin : begin + 1024], form, "mono")
            block.sample_rate, block.time_base = rate, Fraction(1, rate)
            block.pts = begin + round(start * rate)
            output.mux(sound.encode(block))
        output.mux(sound.encode(None))
    return path


def seen_and_heard(path: Path) -> tuple[float, float]:
    """Return the seconds of the flash and of the beep's beginning, on the file's own clock."""
    with av.open(str(path)) as file:
        flash = next(
            f.time for f in file.decode(video=0) if f.to_ndarray(format="gray").mean() > 150
        )
    with av.open(str(path)) as file:
        for frame in file.decode(audio=0):
            loud = np.abs(frame.to_ndarray().astype(np.float64)).max(axis=0) > 0.2
            if loud.any():
                return flash, frame.time + int(np.argmax(loud)) / frame.sample_rate
    raise AssertionError("there is no beep")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.mp4", {}),
        ("late.mp4", {"late": 0.7}),
        ("later.mkv", {"start": 2.0, "codec": "pcm_s16le", "rate": 48000}),
        ("stream.ts", {"start": 1.0, "rate": 44100}),
    ],
)
def test_the_drawn_copy_beeps_when_it_flashes(tmp_path: Path, name: str, options: dict) -> None:
    source = flash_and_beep(tmp_path / name, **options)
    redraw(source, tmp_path / "copy.mp4", lambda w, h: ((w, h), lambda image, time: image))
    flash, beep = seen_and_heard(tmp_path / "copy.mp4")
    assert flash == pytest.approx(FLASH, abs=0.5 / RATE)
    assert beep == pytest.approx(FLASH, abs=0.012)
    with av.open(str(tmp_path / "copy.mp4")) as file:
        sound = file.streams.audio[0]
        assert float(sound.duration * sound.time_base) == pytest.approx(SECONDS, abs=0.07)


def test_the_sound_of_a_part(tmp_path: Path) -> None:
    source = flash_and_beep(tmp_path / "a.mp4", rate=48000)
    with open_sound(source, start=1.2, rate=32000, layout="stereo") as sound:
        assert sound is not None
        samples = np.concatenate(list(sound.until(2.5)), axis=1)
    assert samples.shape == (2, 80000)
    loud = np.flatnonzero(np.abs(samples[0]) > 0.2) / 32000
    assert loud[0] == pytest.approx(0.2, abs=0.005)
    assert loud[-1] == pytest.approx(0.28, abs=0.012)


def test_a_silent_video_has_no_sound(tmp_path: Path, encode, constant) -> None:
    source = encode(tmp_path / "a.mp4", constant(10))
    redraw(source, tmp_path / "copy.mp4", lambda w, h: ((w, h), lambda image, time: image))
    with av.open(str(tmp_path / "copy.mp4")) as file:
        assert not file.streams.audio
