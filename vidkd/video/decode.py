"""Frames at their true times, streamed: memory does not grow with a video's length."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from vidkd.errors import UsageError, VideoError
from vidkd.video.opened import (
    OpenVideo,
    damaged,
    display_size,
    open_video,
    orientation,
    reason,
)
from vidkd.video.pictures import Picture, read_pictures
from vidkd.video.sparse import TOLERANCE, sample_pictures

RESIZE = "swscale-bilinear"
"""Name of the resize for provenance; other libraries' bilinear resize differs by a grey level."""

_LARGEST_SIDE = 16384


@dataclass(frozen=True)
class Frame:
    """One picture and the time it is displayed.

    Attributes:
        image: (H, W, C) array; RGB uint8 as it comes from a video.
        start: second at which it appears, counted from the video's first frame.
        end: second at which the next one appears, or at which the video ends.
        index: number within this reading, from 0.
    """

    image: np.ndarray
    start: float
    end: float
    index: int


def read_frames(
    source: str | Path | OpenVideo,
    *,
    short_side: int | None = None,
    frame_rate: float | None = None,
    start: float = 0.0,
    end: float | None = None,
) -> Iterator[Frame]:
    """Decode a video frame by frame, upright, in RGB.

    Times come from the container's timestamps, never from a frame number and an assumed rate.
    With ``frame_rate``, tick k takes the picture that is displayed at second k / rate, so slow
    video repeats pictures, fast video skips them, and there are ceil(duration x rate) ticks.
    The resize is libswscale's bilinear one, in the same pass as the conversion to RGB, which
    follows the stream's own colour matrix and range.

    Missing pictures are found where the format allows it: by the index of MP4, MOV and AVI, and by
    the structure of Matroska, WebM, AVI, FLV and MPEG transport streams. Raw streams promise
    nothing and may lose pictures to damage without notice; so does a transport stream that was cut
    between two of its packets. At a low ``frame_rate``, what no picture taken needs is not decoded
    in H.264 and HEVC of MP4, MOV and Matroska, so that damage to its content is not seen.

    Args:
        source: the video; an open one is read from the start again.
        short_side: pixels of the shorter side; the longer one keeps the aspect ratio, rounded to
            an even number. None keeps the displayed size.
        frame_rate: ticks per second; None yields the video's own frames.
        start: first second wanted; pictures displayed before it are not yielded.
        end: second before which pictures must appear; None reads to the end.

    Raises:
        VideoError: the video cannot be opened, is damaged, or ends much earlier than its
            container promises (see ``vidkd.video.pictures.MISSING_SECONDS``). Frames before the
            damage have been yielded by then.
        UsageError: a setting that makes no sense.
    """
    sizes = read_sizes(source, (short_side,), frame_rate=frame_rate, start=start, end=end)
    for (frame,) in sizes:
        yield frame


def read_sizes(
    source: str | Path | OpenVideo,
    short_sides: Sequence[int | None],
    *,
    frame_rate: float | None = None,
    start: float = 0.0,
    end: float | None = None,
) -> Iterator[tuple[Frame, ...]]:
    """Decode a video once and yield every frame in several sizes; see :func:`read_frames`.

    Raises:
        VideoError: see there.
        UsageError: see there.
    """
    if frame_rate is not None and not (0 < frame_rate <= 1000):
        raise UsageError(f"a frame rate of {frame_rate} makes no sense", remedy="give 0 to 1000")
    for short_side in short_sides:
        if short_side is not None and not (1 <= short_side <= _LARGEST_SIDE):
            raise UsageError(f"a short side of {short_side} makes no sense")
    if start < 0 or (end is not None and end <= start):
        raise UsageError("the part to read must begin at 0 or later and end after its start")
    with contextlib.ExitStack() as stack:
        if not isinstance(source, OpenVideo):
            source = stack.enter_context(open_video(source))
        if frame_rate is not None and start == 0 and end is None:
            pictures = sample_pictures(source, frame_rate)
        else:
            pictures = read_pictures(source, start, end)
        timed = _own(pictures) if frame_rate is None else ticks(pictures, frame_rate, start, end)
        converters = [Converter(source.path, short_side) for short_side in short_sides]
        previous: Picture | None = None
        images: list[np.ndarray] = []
        for index, (picture, begin, stop) in enumerate(timed):
            if picture is not previous:
                images, previous = [convert(picture) for convert in converters], picture
            yield tuple(Frame(image, begin, stop, index) for image in images)


def _own(pictures: Iterator[Picture]) -> Iterator[tuple[Picture, float, float]]:
    for picture in pictures:
        yield picture, picture.start, picture.end


def ticks(
    pictures: Iterator[Picture], rate: float, start: float, end: float | None
) -> Iterator[tuple[Picture, float, float]]:
    """Yield the pictures that are shown at the seconds k / rate, and the times of these ticks."""
    tick = math.ceil((start - TOLERANCE) * rate)
    waiting: tuple[Picture, float, float] | None = None
    for picture in pictures:
        while tick / rate < picture.end - TOLERANCE:
            if end is not None and tick / rate >= end - TOLERANCE:
                break
            if waiting is not None:
                yield waiting
            waiting = picture, tick / rate, (tick + 1) / rate
            tick += 1
    if waiting is not None:
        # The last tick ends with the video.
        yield waiting[0], waiting[1], min(waiting[2], picture.end)


class Converter:
    """Resizes, converts and turns pictures; keeps libswscale's tables between calls.

    Args:
        path: of the video, for errors.
        short_side: see `read_frames`.
    """

    def __init__(self, path: Path, short_side: int | None) -> None:
        self._path = path
        self._short_side = short_side
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None
        self._rotation: float | None = None
        self._orientation = (False, 0)

    def __call__(self, picture: Picture) -> np.ndarray:
        """Return the picture upright, (H, W, 3) uint8 RGB."""
        frame = picture.frame
        if frame.rotation != self._rotation:
            # Only then, because a frame whose side data was looked at is part of a cycle, and
            # hundreds of large frames stay until Python's collector comes by.
            self._rotation, self._orientation = frame.rotation, orientation(frame)
        mirrored, turns = self._orientation
        if self._size is None:
            # Later pictures of another size are scaled to the first: one video, one shape.
            self._size = self._first_size(picture, turns)
        width, height = self._size if turns % 2 == 0 else self._size[::-1]
        # An unspecified range means limited for YUV, which is also libswscale's assumption.
        known = frame.color_range in (ColorRange.MPEG, ColorRange.JPEG)
        try:
            converted = self._reformatter.reformat(
                frame,
                width,
                height,
                format="rgb24",
                interpolation=Interpolation.BILINEAR,
                src_color_range=frame.color_range if known else None,
                dst_color_range=ColorRange.JPEG if known else None,
                threads=1,
            )
        except (av.error.FFmpegError, ValueError, MemoryError) as error:
            raise damaged(self._path, picture.start, reason(error)) from error
        image = converted.to_ndarray()
        if mirrored:
            image = image[:, ::-1]
        return np.ascontiguousarray(np.rot90(image, turns))

    def _first_size(self, picture: Picture, turns: int) -> tuple[int, int]:
        frame = picture.frame
        width, height = display_size(frame.width, frame.height, turns * 90, picture.aspect)
        width, height = _fit(width, height, self._short_side)
        if max(width, height) > _LARGEST_SIDE:
            raise VideoError(
                f"would have pictures of {width}x{height} pixels",
                path=self._path,
                remedy="re-encode it with square pixels, or ask for a smaller short side",
            )
        return width, height


def _fit(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    if short_side is None:
        return width, height
    long_side = max(width, height) * short_side / min(width, height)
    # The nearest even number, halves up: Python's round would send 33 to 32 and 35 to 36.
    long_side = max(2, 2 * math.floor(long_side / 2 + 0.5))
    return (short_side, long_side) if width <= height else (long_side, short_side)
