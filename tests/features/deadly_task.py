"""Tasks that die or hang; apart, so that workers need not import torch for them."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from vidkd.features import Extraction, FlowTask
from vidkd.video import VideoFile
from vidkd.workers import Report


@dataclass(frozen=True)
class DeadlyTask(FlowTask):
    """Is killed by the video called ``deadly``, in the middle of its work."""

    def __call__(self, video: VideoFile, report: Report, threads: int, /) -> Extraction:
        done = 0.0

        def deadly(amount: float) -> None:
            nonlocal done
            done += amount
            if video.key == "deadly" and done == 12:
                os.kill(os.getpid(), signal.SIGKILL)
            report(amount)

        return super().__call__(video, deadly, threads)


@dataclass(frozen=True)
class StuckTask(FlowTask):
    """Waits for ever on a pipe nobody writes to, in the middle of the video called ``stuck``."""

    def __call__(self, video: VideoFile, report: Report, threads: int, /) -> Extraction:
        done = 0.0

        def stuck(amount: float) -> None:
            nonlocal done
            done += amount
            if video.key == "stuck" and done == 12:
                pipe = video.path.with_suffix(".pipe")
                os.mkfifo(pipe)
                os.open(pipe, os.O_RDONLY)
            report(amount)

        return super().__call__(video, stuck, threads)
