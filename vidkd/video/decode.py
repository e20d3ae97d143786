"""Frames at their true times, streamed: memory does not grow with a video's length."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import av.container
import av.video.stream
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from vidkd.errors import UsageError, VideoError
from vidkd.video.probe import (
    damaged,
    display_size,
    first_frame,
    frame_second,
    frame_time,
    open_video,
    quarter_turns,
    stream_duration,
    stream_rate,
)

RESIZE = "swscale-bilinear"
"""Name of the resize for provenance; other libraries' bilinear resize differs by a grey level."""

_LARGEST_SIDE = 16384
# Durations in headers are rounded, and edit lists may hide a few frames; a truncated copy lacks
# more than that.
_MISSING_SHARE = 0.05
_MISSING_SECONDS = 1.0


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


@dataclass(frozen=True)
class _Picture:
    frame: av.VideoFrame
    aspect: Fraction | None
    start: float
    end: float


def read_frames(
    path: str | Path,
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

    Args:
        path: the video.
        short_side: pixels of the shorter side; the longer one keeps the aspect ratio, rounded to
            an even number. None keeps the displayed size.
        frame_rate: ticks per second; None yields the video's own frames.
        start: first second wanted; pictures displayed before it are not yielded.
        end: second before which pictures must appear; None reads to the end.

    Raises:
        VideoError: the video cannot be opened, is damaged, or ends much earlier than its
            container promises (more than 1 s and 5 %). Frames before the damage have been
            yielded by then.
        UsageError: a setting that makes no sense.
    """
    path = Path(path)
    if frame_rate is not None and not (0 < frame_rate <= 1000):
        raise UsageError(f"a frame rate of {frame_rate} makes no sense", remedy="give 0 to 1000")
    if short_side is not None and not (1 <= short_side <= _LARGEST_SIDE):
        raise UsageError(f"a short side of {short_side} makes no sense")
    if start < 0 or (end is not None and end <= start):
        raise UsageError("the part to read must begin at 0 or later and end after its start")
    pictures = _pictures(path, start, end)
    convert = _Converter(path, short_side)
    timed = _own(pictures) if frame_rate is None else _ticks(pictures, frame_rate, start, end)
    previous: _Picture | None = None
    image = np.zeros((0, 0, 3), np.uint8)
    for index, (picture, begin, stop) in enumerate(timed):
        if picture is not previous:
            image, previous = convert(picture), picture
        yield Frame(image, begin, stop, index)


def _own(pictures: Iterator[_Picture]) -> Iterator[tuple[_Picture, float, float]]:
    for picture in pictures:
        yield picture, picture.start, picture.end


def _ticks(
    pictures: Iterator[_Picture], rate: float, start: float, end: float | None
) -> Iterator[tuple[_Picture, float, float]]:
    # A hair of tolerance, so that a tick that falls on a frame's start takes that frame although
    # k / rate and the timestamp are rounded differently.
    hair = 1e-6
    tick = math.ceil((start - hair) * rate)
    waiting: tuple[_Picture, float, float] | None = None
    for picture in pictures:
        while tick / rate < picture.end - hair:
            if end is not None and tick / rate >= end - hair:
                break
            if waiting is not None:
                yield waiting
            waiting = picture, tick / rate, (tick + 1) / rate
            tick += 1
    if waiting is not None:
        # The last tick ends with the video.
        yield waiting[0], waiting[1], min(waiting[2], picture.end)


class _Converter:
    """Resizes, converts and turns pictures; keeps libswscale's tables between calls."""

    def __init__(self, path: Path, short_side: int | None) -> None:
        self._path = path
        self._short_side = short_side
        self._reformatter = VideoReformatter()

    def __call__(self, picture: _Picture) -> np.ndarray:
        frame = picture.frame
        turns = quarter_turns(frame)
        width, height = display_size(frame.width, frame.height, turns * 90, picture.aspect)
        if max(width, height) > _LARGEST_SIDE:
            raise damaged(self._path, picture.start, f"a picture of {width}x{height} pixels")
        width, height = _fit(width, height, self._short_side)
        if turns % 2:
            width, height = height, width
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
            raise damaged(self._path, picture.start, str(error)) from error
        image = converted.to_ndarray()
        return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _fit(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    if short_side is None:
        return width, height
    if width <= height:
        return short_side, max(2, 2 * round(height * short_side / width / 2))
    return max(2, 2 * round(width * short_side / height / 2)), short_side


def _pictures(path: Path, start: float, end: float | None) -> Iterator[_Picture]:
    origin: float | None = None
    if start > 0:
        with open_video(path) as (container, stream):
            origin = frame_second(first_frame(container, stream, path))
    # Some containers land after the second asked for; reading from the start never does.
    for seek in (True, False) if origin is not None else (False,):
        with open_video(path) as (container, stream):
            stream.thread_type = "AUTO"
            if seek and origin is not None:
                if stream.time_base is None:
                    continue
                try:
                    target = int((origin + start) / stream.time_base)
                    container.seek(target, stream=stream, backward=True)
                except av.error.FFmpegError:
                    continue
            pictures = _timed(container, stream, path, start, end, origin, whole=not seek)
            first = next(pictures, None)
            if seek and (first is None or first.start > start):
                continue
            if first is not None:
                yield first
                yield from pictures
            return


def _timed(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    path: Path,
    start: float,
    end: float | None,
    origin: float | None,
    *,
    whole: bool,
) -> Iterator[_Picture]:
    step = 1 / float(stream_rate(stream))
    waiting: _Picture | None = None
    count = 0
    reached = [start]
    for frame in _decoded(container, stream, path, reached):
        time = frame_time(frame)
        if origin is None:
            origin = time or 0.0
        time = None if time is None else time - origin
        if waiting is not None and (time is None or time <= waiting.start):
            # Streams without timestamps, and timestamps that go back.
            time = waiting.start + (step if time is None else step / 100)
        begin = time or 0.0
        count += 1
        if waiting is not None:
            if begin > start:
                yield replace(waiting, end=begin)
            if end is not None and begin >= end:
                return
        own = (
            float(frame.duration * frame.time_base) if frame.duration and frame.time_base else step
        )
        # A last frame of several seconds is real in slide shows; longer is a broken header.
        own = own if 0 < own <= 60 else step
        waiting = _Picture(frame, stream.sample_aspect_ratio, begin, begin + own)
        reached[0] = waiting.end
    if waiting is None:
        raise VideoError(
            "holds no frame that can be decoded",
            path=path,
            remedy="copy or download the video again",
        )
    _check_complete(container, stream, path, count if whole else None, waiting.end)
    if waiting.end > start:
        yield waiting


def _decoded(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    path: Path,
    reached: list[float],
) -> Iterator[av.VideoFrame]:
    """Yield frames in order of display; ``reached`` holds the second up to which they came."""
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise damaged(path, reached[0], "the file breaks off or its data is corrupt")
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise damaged(path, reached[0], "corrupt data")
                yield frame
    except (av.error.FFmpegError, OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise damaged(path, reached[0], reason) from error


def _check_complete(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    path: Path,
    count: int | None,
    end: float,
) -> None:
    """Refuse a video that ends long before what its container promises."""
    step = 1 / float(stream_rate(stream))
    promised = stream_duration(container, stream)
    missing = 0.0 if promised is None else promised - end
    if count is not None and stream.frames:
        # Long still pictures make durations large and counts small, and the other way round;
        # so both have to tell that something is missing.
        short = (stream.frames - count) * step
        missing = short if promised is None else min(missing, short)
        promised = promised or stream.frames * step
    if promised and missing > max(_MISSING_SECONDS, _MISSING_SHARE * promised):
        raise damaged(path, end, f"its container promises {promised:.2f} s")
