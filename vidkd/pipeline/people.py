"""Whether videos show one person from afar, which decides what students should see."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidkd.errors import VideoError
from vidkd.recipe import ModelCard
from vidkd.streams.person import people_in, squares
from vidkd.video import Frame, open_video, read_frames

VIDEOS, FRAMES = 24, 4
"""How many are looked at, at most, and frames of each."""
_SEEN, _CROWDED, _SMALL, _OUTSIDE = 0.6, 0.3, 0.75, 0.1
"""Shares: of frames with somebody at least and with three or more at most, of the frame's shorter
side that the square around a small person is at most, of frames in which the person stands outside
of the middle. Chosen by judgement, not by measurement."""


@dataclass(frozen=True)
class People:
    """Who was found in some frames.

    Attributes:
        frames: number of the frames looked at.
        seen: share with somebody.
        crowded: share with three or more.
        size: median side of the square around the main person, in shorter sides of the frame.
        outside: share of the frames with somebody in which that one's middle lies outside of the
            square that an encoder sees in the middle.
    """

    frames: int
    seen: float = 0.0
    crowded: float = 0.0
    size: float = 1.0
    outside: float = 0.0

    @property
    def far(self) -> bool:
        """Whether students should see what is around the main person."""
        alone = self.seen >= _SEEN and self.crowded <= _CROWDED
        return alone and (self.size <= _SMALL or self.outside >= _OUTSIDE)

    @property
    def described(self) -> str:
        """What was found, in a sentence."""
        if not self.seen:
            return f"In none of {self.frames} frames was a person found."
        return (
            f"In {100 * self.seen:.0f} % of {self.frames} frames a person was found, in"
            f" {100 * self.crowded:.0f} % three or more; the square around the main one is"
            f" {100 * self.size:.0f} % as high as the frame in the median, and in"
            f" {100 * self.outside:.0f} % the person stands outside of the middle that an encoder"
            " would see."
        )


def look_for_people(videos: Sequence[Path], card: ModelCard) -> People:
    """Look for people in a few frames of some of the videos.

    Args:
        videos: at least one.
        card: of the encoder whose middle crop is meant.
    """
    chosen = [videos[k * len(videos) // VIDEOS] for k in range(VIDEOS)]
    sizes: list[float] = []
    looked = crowded = outside = 0
    for path in dict.fromkeys(chosen):
        for frame in _frames(path, card.frames.short_side):
            looked += 1
            [people] = people_in([frame.image], "cpu")
            around = squares({0: people}, 1)
            if around is None:
                continue
            [(left, top)], side = around
            height, width = frame.image.shape[:2]
            sizes.append(side / min(height, width))
            crowded += len(people) >= 3
            away = np.abs([left + side / 2 - width / 2, top + side / 2 - height / 2]).max()
            outside += bool(away > card.crop / 2)
    if not sizes:
        return People(looked)
    found = len(sizes)
    return People(
        looked, found / looked, crowded / looked, statistics.median(sizes), outside / found
    )


def _frames(path: Path, short_side: int) -> list[Frame]:
    """Return a few frames, evenly spread; fewer where the video breaks off."""
    found: list[Frame] = []
    try:
        with open_video(path) as opened:
            seconds = opened.info.duration or 0.0
            for k in range(FRAMES):
                start = seconds * (k + 0.5) / FRAMES
                frames = read_frames(opened, short_side=short_side, start=start)
                found += itertools.islice(frames, 1)
    except VideoError:
        return found  # the extraction will say what is wrong with it
    return found
