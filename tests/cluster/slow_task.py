"""Extraction that waits for the test in the middle of every video."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from vidkd.features import Extraction, FlowTask
from vidkd.video import VideoFile
from vidkd.workers import Report


@dataclass(frozen=True)
class WaitingTask(FlowTask):
    """Says who begins a video (``KEY.PID.begun``), and waits at frame 5 for the file ``go``."""

    def __call__(self, video: VideoFile, report: Report, threads: int = 1, /) -> Extraction:
        folder, done = video.path.parent, 0.0

        def waiting(amount: float) -> None:
            nonlocal done
            done += amount
            if done == 5:
                (folder / f"{video.key}.{os.getpid()}.begun").touch()
                while not (folder / "go").exists():
                    report(0)
                    time.sleep(0.05)
            report(amount)

        return super().__call__(video, waiting, threads)
