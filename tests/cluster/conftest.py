"""Small videos, and what their flow is when nothing disturbs the work."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from small_flow import FLOW, FRAMES, contents

from vidkd.features import FlowTask, run_jobs
from vidkd.video import VideoFile, VideoWriter


@pytest.fixture
def videos(tmp_path: Path) -> list[VideoFile]:
    random = np.random.default_rng(0)
    found = []
    for number in range(8):
        path = tmp_path / "videos" / f"v{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        with VideoWriter(path, 48, 32, Fraction(25)) as writer:
            for _ in range(12):
                writer.write(random.integers(0, 255, (32, 48, 3), dtype=np.uint8))
        found.append(VideoFile(path, path.stem))
    return found


@pytest.fixture
def undisturbed(videos: list[VideoFile], tmp_path: Path) -> dict[str, bytes]:
    run_jobs(videos, FlowTask(tmp_path / "undisturbed", FRAMES, FLOW), workers=2)
    return contents(tmp_path / "undisturbed")
