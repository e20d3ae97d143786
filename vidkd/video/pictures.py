"""Decoded pictures in order of display, with the times at which they appear and disappear."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import BinaryIO

import av

from vidkd.errors import VideoError
from vidkd.video.damage import avi_damage, flv_damage, matroska_damage, transport_damage
from vidkd.video.opened import OpenVideo, damaged, frame_time, no_frame, reason

MISSING_SECONDS = 0.5
MISSING_SHARE = 0.05
MISSING_AT_MOST = 15.0
"""A video may end this much before its container's promise: 0.5 s, or 5 % but at most 15 s, and
in any case its longest frame. Durations in headers are rounded, belong to edit lists or take no
account of a long last frame; a file that was cut off lacks more."""

# A pause of hours can be true in surveillance video; more is a broken or wrapped clock.
_LONGEST_STEP = 6 * 3600.0
_LONGEST_LAST = 60.0
_LARGEST_JUMP_BACK = 1.0
_ONE_PACKET_ONE_PICTURE = {"h264", "hevc"}
"""Codecs whose decoders drop pictures without a word, for want of a lost key frame for one. The
packets of others may hold nothing to display."""
_ONE_UNIT_ONE_PICTURE = {"h264", "hevc", "mpeg2video", "mpeg1video"}
"""Codecs of which every unit of a transport stream begins a picture."""


@dataclass(frozen=True)
class Picture:
    """A decoded frame, not yet converted, and the seconds from the first frame it is shown."""

    frame: av.VideoFrame
    aspect: Fraction | None
    start: float
    end: float


@dataclass
class Progress:
    """How far reading came: for error messages, and to compare with the container's promise."""

    second: float
    count: int = 0
    longest_step: float = 0.0
    other_streams: float | None = None
    first: int | None = None
    interlaced: bool = False


class _Pending:
    """Packets whose pictures have not come out of the decoder yet; holds about a second's."""

    def __init__(self) -> None:
        self._times: set[int] = set()
        self._first: int | None = None
        self._last: int | None = None
        self._untimed = 0
        self._key_seen = False

    def sent(self, packet: av.Packet) -> None:
        self._key_seen = self._key_seen or packet.is_keyframe
        if packet.size and self._key_seen and not packet.is_discard:
            if packet.pts is None:
                self._untimed += 1
            elif self._last is None or packet.pts > self._last:
                self._times.add(packet.pts)

    def came(self, frame: av.VideoFrame) -> None:
        self._untimed -= frame.pts is None
        if frame.pts is not None:
            # Pictures that are displayed before the first one cannot be decoded: recordings
            # and readings begin between key frames.
            self._first = frame.pts if self._first is None else self._first
            self._last = frame.pts
            self._times.discard(frame.pts)

    def lost(self, before: int | None = None) -> int:
        """Return how many pictures will not come, displayed before ``before`` or at all."""
        if self._first is None:
            return max(0, self._untimed) if before is None else 0
        late = {time for time in self._times if before is None or time < before}
        self._times -= late
        return sum(time > self._first for time in late)


def read_pictures(
    video: OpenVideo, start: float = 0.0, end: float | None = None
) -> Iterator[Picture]:
    """Decode the pictures displayed in [start, end), in seconds from the first frame.

    Every picture ends where the next begins. The last one lasts as long as its packet says, if
    the container's promise agrees, or else the median of the steps before it.

    Raises:
        VideoError: the video is damaged, or ends before its promise.
    """
    video.rewind()
    origin: float | None = None
    if start > 0:
        origin = frame_time(video.first_frame)
        # Some indexes point past the second asked for, and some containers cannot be searched at
        # all; reading from the start always serves.
        if origin is not None and video.seek(origin + start):
            pictures = _timed(video, start, end, origin, sought=True)
            first = next(pictures, None)
            if first is not None and first.start <= start:
                yield first
                yield from pictures
                return
        video.rewind()
    yield from _timed(video, start, end, origin, sought=False)


def _timed(
    video: OpenVideo, start: float, end: float | None, origin: float | None, *, sought: bool
) -> Iterator[Picture]:
    nominal = 1 / float(video.frame_rate)
    steps: deque[float] = deque(maxlen=31)
    progress = Progress(start if sought else 0.0)
    waiting: Picture | None = None
    for frame in _decoded(video, progress, sought=sought):
        time = frame_time(frame)
        if origin is None:
            origin = time or 0.0
        progress.count += 1
        if waiting is None:
            begin = 0.0 if time is None else time - origin
        else:
            begin = next_start(video.path, waiting.start, time, origin, nominal)
            steps.append(begin - waiting.start)
            progress.longest_step = max(progress.longest_step, steps[-1])
            if begin > start:
                yield replace(waiting, end=begin)
        if end is not None and begin >= end:
            return
        waiting = Picture(frame, video.stream.sample_aspect_ratio, begin, begin)
        progress.second = begin
    if waiting is None:
        if sought:
            return
        raise no_frame(video.path)
    usual = statistics.median(steps) if steps else nominal
    waiting = replace(waiting, end=last_end(waiting, usual, video.duration))
    check_complete(video, progress, waiting.end, origin or 0.0, sought=sought)
    if not sought:
        check_structure(video, progress)
    if waiting.end > start:
        yield waiting


def next_start(
    path: Path, previous: float, time: float | None, origin: float, nominal: float
) -> float:
    """Return when the next picture begins; later than the previous one, whatever the file says."""
    if time is None:
        return previous + nominal  # raw streams have no times
    step = time - origin - previous
    if not -_LARGEST_JUMP_BACK <= step <= _LONGEST_STEP:
        raise VideoError(
            f"has timestamps that jump by {step:+.0f} s at second {previous:.2f}",
            path=path,
            remedy="re-encode it with ffmpeg, or cut it there",
        )
    return previous + (step if step > 0 else nominal / 100)


def last_end(picture: Picture, usual: float, promised: float | None) -> float:
    """Return when the last picture disappears; ``usual`` is the median of the steps before it."""
    frame = picture.frame
    if not frame.duration or frame.time_base is None:
        return picture.start + usual
    own = float(frame.duration * frame.time_base)
    # Durations of packets are not to be trusted beyond the container's own end: in MP4 with
    # B-frames and a variable rate they belong to decoding times.
    limit = _LONGEST_LAST if promised is None else max(usual, promised + usual - picture.start)
    return picture.start + (own if 0 < own <= limit else usual)


def _decoded(video: OpenVideo, progress: Progress, *, sought: bool) -> Iterator[av.VideoFrame]:
    """Yield frames in order of display; after a seek from the first key frame on."""
    path, stream = video.path, video.stream
    pending = _Pending() if stream.codec_context.name in _ONE_PACKET_ONE_PICTURE else None
    jump = int(_LARGEST_JUMP_BACK / (stream.time_base or 1))
    try:
        for packet in video.packets():
            if packet.stream.index != stream.index:
                if packet.pts is not None and packet.time_base is not None:
                    passed = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    progress.other_streams = max(passed, progress.other_streams or passed)
                continue
            if packet.is_corrupt and not sought:
                raise damaged(path, progress.second, "the file breaks off or its data is corrupt")
            if pending is not None:
                pending.sent(packet)
            for frame in video.decode(packet):
                # Pictures that precede the key frame in display refer to some before it.
                sought = sought and not frame.key_frame
                if sought:
                    continue
                if frame.is_corrupt:
                    raise damaged(path, progress.second, "corrupt data")
                if progress.first is None:
                    progress.first = frame.pts
                if frame.interlaced_frame:
                    progress.interlaced = True
                    pending = None  # a packet may hold a field, half a picture
                if pending is not None:
                    pending.came(frame)
                    if frame.pts is not None and pending.lost(frame.pts - jump):
                        raise damaged(path, progress.second, "a picture cannot be decoded")
                yield frame
        if pending is not None and (lost := pending.lost()):
            raise damaged(path, progress.second, f"{lost} pictures cannot be decoded")
    except (av.error.FFmpegError, OSError, MemoryError) as error:
        raise damaged(path, progress.second, reason(error)) from error


def check_structure(video: OpenVideo, progress: Progress) -> None:
    """Refuse a video in whose file parts are missing that FFmpeg passes over."""
    name, codec = video.container.format.name, video.stream.codec_context.name
    check: Callable[[BinaryIO], str | None] | None = None
    if "matroska" in name:
        check = matroska_damage
    elif name == "avi":
        check = avi_damage
    elif name == "flv":
        count = progress.count if codec == "h264" else None
        check = partial(flv_damage, first=progress.first, pictures=count)
    elif name == "mpegts":
        # A unit of an interlaced stream may hold a field, half a picture.
        countable = codec in _ONE_UNIT_ONE_PICTURE and not progress.interlaced
        count = progress.count if countable else None
        check = partial(
            transport_damage, stream=video.stream.id, first=progress.first, pictures=count
        )
    video.check(check)


def check_complete(
    video: OpenVideo, progress: Progress, end: float, origin: float, *, sought: bool
) -> None:
    """Refuse a video that ends long before what its container promises."""
    container, stream, promised = video.container, video.stream, video.duration
    reached = end
    if promised is None and container.duration is not None:
        # The end of the longest stream, on the container's clock.
        promised = container.duration / av.time_base
        reached = max(origin + end, progress.other_streams or 0.0)
    missing = 0.0 if promised is None else promised - reached
    if stream.frames and not sought:
        # Long still pictures make durations large and counts small, and the other way round;
        # so both have to tell that something is missing.
        nominal = 1 / float(video.frame_rate)
        short = (stream.frames - progress.count) * nominal
        missing = short if promised is None else min(missing, short)
        promised = promised or stream.frames * nominal
    if promised is None:
        return
    allowed = max(MISSING_SECONDS, min(MISSING_SHARE * promised, MISSING_AT_MOST))
    if missing > max(allowed, progress.longest_step):
        raise damaged(
            video.path, end, f"it ends there, but its container promises {promised:.2f} s"
        )
