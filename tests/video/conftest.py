"""Videos whose every picture shows its own number, as twelve black and white blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

ROWS, COLUMNS = 3, 4
MILLISECOND = Fraction(1, 1000)


def draw_number(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """Return an (height, width, 3) uint8 picture of 3x4 blocks, the bits of ``number``."""
    bits = [number >> bit & 1 for bit in range(ROWS * COLUMNS)]
    rows = np.arange(height) * ROWS // height
    columns = np.arange(width) * COLUMNS // width
    grid = np.array(bits, np.uint8).reshape(ROWS, COLUMNS) * 200 + 25
    return np.repeat(grid[rows][:, columns][..., None], 3, axis=2)


def read_number(image: np.ndarray) -> int:
    """Read the number back; every block must be clearly black or white."""
    height, width = image.shape[:2]
    number = 0
    for bit in range(ROWS * COLUMNS):
        row, column = divmod(bit, COLUMNS)
        y, x = int((row + 0.5) * height / ROWS), int((column + 0.5) * width / COLUMNS)
        level = float(image[y - 2 : y + 2, x - 2 : x + 2].mean())
        assert level < 80 or level > 175, f"block {bit} is smeared: {level}"
        number |= (level > 128) << bit
    return number


def encode_video(
    path: Path,
    times: Sequence[float | Fraction],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    size: tuple[int, int] = (64, 48),
    rate: int = 25,
    unit: Fraction = MILLISECOND,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    draw: Callable[[int, int, int], np.ndarray] = draw_number,
    audio_seconds: float = 0.0,
    stream_format: str | None = None,
    **attributes: Any,
) -> Path:
    """Encode one picture for each of the ``times`` (seconds) with plain PyAV."""
    output = av.open(str(path), "w", format=stream_format, container_options=container or {})
    stream = output.add_stream(codec, rate=rate, options=options or {})
    stream.width, stream.height = size
    stream.pix_fmt = pixel_format
    stream.codec_context.time_base = unit
    for name, value in attributes.items():
        setattr(stream.codec_context, name, value)
    if audio_seconds:
        sound = output.add_stream("aac", rate=8000, layout="mono")
    for number, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(draw(number, *size), format="rgb24")
        frame = frame.reformat(format=pixel_format, dst_colorspace=frame.colorspace)
        frame.pts = round(Fraction(time) / unit)
        frame.time_base = unit
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))
    if audio_seconds:
        samples = np.zeros((1, int(8000 * audio_seconds)), np.float32)
        for begin in range(0, samples.shape[1], 1024):
            block = av.AudioFrame.from_ndarray(samples[:, begin : begin + 1024], "fltp", "mono")
            block.sample_rate, block.pts = 8000, begin
            output.mux(sound.encode(block))
        output.mux(sound.encode(None))
    output.close()
    return path


def even(count: int, rate: int = 25, start: int = 0) -> list[Fraction]:
    """Return ``count`` times at a constant rate."""
    return [start + Fraction(number, rate) for number in range(count)]


@pytest.fixture
def encode() -> Callable[..., Path]:
    return encode_video


@pytest.fixture
def number() -> Callable[[np.ndarray], int]:
    return read_number


@pytest.fixture
def constant() -> Callable[..., list[Fraction]]:
    return even


@pytest.fixture
def draw() -> Callable[[int, int, int], np.ndarray]:
    return draw_number
