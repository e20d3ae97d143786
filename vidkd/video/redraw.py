"""A copy of a video with something drawn over every frame."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vidkd.video.decode import read_frames
from vidkd.video.encode import VideoWriter
from vidkd.video.opened import open_video
from vidkd.video.sound import open_sound

SMALLEST_HEIGHT, LARGEST_HEIGHT = 360, 1080
"""Smaller videos are enlarged, or else text over them could not be read."""

Draw = Callable[[np.ndarray, float], np.ndarray]
"""Takes a frame (H, W, 3) uint8 RGB and its second, and returns the picture to write."""


def redraw(
    video: str | Path,
    path: str | Path,
    begin: Callable[[int, int], tuple[tuple[int, int], Draw]],
    report: Callable[[float], None] | None = None,
) -> None:
    """Write an annotated copy of a video as H.264 in MP4, with its sound as AAC, atomically.

    Args:
        video: the original; it is decoded again, and shown at a constant frame rate.
        path: the file to write.
        begin: takes width and height of the frames; returns those of the copy, and what draws it.
        report: called with the number of frames done since the last call.

    Raises:
        VideoError: the video cannot be decoded.
        VidkdError: the file cannot be written.
    """
    with open_video(video) as opened, open_sound(video) as sound:
        info = opened.info
        rate = min(max(float(info.frame_rate), 1.0), 60.0)
        side = min(max(min(info.width, info.height), SMALLEST_HEIGHT), LARGEST_HEIGHT)
        frames = read_frames(opened, short_side=side, frame_rate=rate)
        first = next(frames)
        size, draw = begin(first.image.shape[1], first.image.shape[0])
        format = None if sound is None else (sound.rate, sound.layout)
        with VideoWriter(path, *size, rate, quality=21, threads=0, sound=format) as writer:
            for frame in itertools.chain([first], frames):
                writer.write(draw(frame.image, frame.start))
                if sound is not None:
                    for samples in sound.until(writer.seconds):
                        writer.write_sound(samples)
                if report is not None:
                    report(1)
