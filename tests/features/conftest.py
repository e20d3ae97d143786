"""Small rendered videos: a textured square that moves over a gradient."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from vidkd.video import VideoFile, VideoWriter

MakeVideo = Callable[..., VideoFile]


def render(path: Path, frames: int, width: int = 80, height: int = 64) -> Path:
    texture = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    ground = np.stack([rows * 2, columns * 2, rows + columns], axis=2).astype(np.uint8)
    with VideoWriter(path, width, height, Fraction(25)) as writer:
        for number in range(frames):
            image = ground.copy()
            left = 4 + 2 * (number % 20)
            image[20:44, left : left + 24] = texture
            writer.write(image)
    return path


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    def make(name: str = "walk", frames: int = 24, **size: int) -> VideoFile:
        folder = tmp_path / "videos"
        folder.mkdir(exist_ok=True)
        return VideoFile(render(folder / f"{name}.mp4", frames, **size), name)

    return make
