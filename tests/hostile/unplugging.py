"""Disks that fail in the middle of a reading: the kernel itself refuses the next read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vidkd.features import Extraction, FlowTask
from vidkd.video import VideoFile, VideoWriter
from vidkd.workers import Report

_OPEN = Path("/proc/self/fd")
_MEMORY = Path("/proc/self/mem")
POSSIBLE = _OPEN.is_dir() and _MEMORY.exists()


def remux(source: Path, path: Path) -> Path:
    """Put the same stream into another container."""
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    return path


def render(path: Path, frames: int = 100) -> Path:
    """Write 10 s that hardly compress: FFmpeg looks at most 7 s ahead when it opens a file."""
    noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    with VideoWriter(path, 128, 96, Fraction(10)) as writer:
        for number in range(frames):
            writer.write(np.roll(noise, 7 * number, axis=0) ^ np.uint8(number % 256))
    return path


def unplug(path: Path) -> int:
    """Make every further read of a file that is open in this process fail with EIO.

    Its descriptors are made to mean the memory of this process instead, where nothing lies at the
    low addresses that are offsets in a small file: Linux answers such a read with EIO. Returns
    how many descriptors there were.
    """
    dead = os.open(_MEMORY, os.O_RDONLY)
    count = 0
    for item in _OPEN.iterdir():
        try:
            if str(item.readlink()) == str(path):
                descriptor = int(item.name)
                place = os.lseek(descriptor, 0, os.SEEK_CUR)
                os.dup2(dead, descriptor)
                os.lseek(descriptor, place, os.SEEK_SET)
                count += 1
        except OSError:
            continue  # the listing's own descriptor, closed by now
    os.close(dead)
    return count


@dataclass(frozen=True)
class UnpluggedTask(FlowTask):
    """The disk of the video called ``unplugged`` fails in the middle of the work."""

    def __call__(self, video: VideoFile, report: Report, threads: int, /) -> Extraction:
        done = 0.0

        def fail(amount: float) -> None:
            nonlocal done
            done += amount
            if video.key == "unplugged" and done == 20:
                assert unplug(video.path) == 1
            report(amount)

        return super().__call__(video, fail, threads)
