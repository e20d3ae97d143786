"""Sparse sampling: the pictures that a low rate takes are decoded, and those that they refer to.

Packets tell when every picture is displayed, so that it is known before decoding which of them a
rate takes. Decoding begins at the key frame before such a picture, what follows the last one before
the next key frame is left out, and in H.264 the pictures between that no other refers to. What is
decoded is decoded as ever: the pictures are the same to the bit. At one picture a second this takes
a fraction of the processor time of decoding everything (docs/performance.md).
"""

from __future__ import annotations

import heapq
import itertools
import statistics
from collections import deque
from collections.abc import Iterator

import av

from vidkd.errors import VideoError
from vidkd.video.opened import OpenVideo, is_end
from vidkd.video.pictures import (
    Picture,
    Progress,
    check_complete,
    check_structure,
    last_end,
    next_start,
    read_pictures,
)

TOLERANCE = 1e-6
"""Seconds of tolerance, so that a tick that falls on a picture's start takes that picture although
k / rate and the timestamp are rounded differently."""

_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
"""Those whose key frames and times are in the container, not guessed by FFmpeg."""
_CODECS = {"h264", "hevc"}
_HELD_BYTES = 64 << 20
"""What is held back from the decoder, at most; a key frame a minute in large video is more."""


class _IrregularError(Exception):
    """The video is not one of which packets tell enough."""


def sample_pictures(video: OpenVideo, rate: float) -> Iterator[Picture]:
    """Yield, in order, at least the pictures that are displayed at the seconds k / rate.

    Raises:
        VideoError: as ``read_pictures``, but damage in what is not decoded may stay unseen.
    """
    video.rewind()
    reached: float | None = None
    if _is_regular(video, rate):
        try:
            for picture in _Sampler(video, rate).pictures():
                reached = picture.start
                yield picture
            return
        except (_IrregularError, VideoError, av.error.FFmpegError, OSError, MemoryError):
            # Reading everything serves always, and says what is wrong.
            pass
    for picture in read_pictures(video):
        if reached is None or picture.start > reached:
            yield picture


def _is_regular(video: OpenVideo, rate: float) -> bool:
    """Say whether packets can be expected to tell enough, and something can be left out."""
    return (
        video.container.format.name in _CONTAINERS
        and video.stream.codec_context.name in _CODECS
        and 2 * rate <= video.frame_rate
        and video.stream.time_base is not None
        and video.duration is not None
    )


class _Schedule:
    """Tells from the times of packets, in any order, which pictures a rate takes, in order."""

    def __init__(self, video: OpenVideo, rate: float) -> None:
        self._path = video.path
        self._rate = rate
        self._tick = 0
        self._unit = video.stream.time_base
        self._nominal = 1 / float(video.frame_rate)
        self._waiting: list[int] = []
        self._origin: float | None = None
        self._begin = 0.0
        self._steps: deque[float] = deque(maxlen=31)
        self.longest_step = 0.0
        self.final: int | None = None
        """Up to this time it is decided which pictures are taken."""

    def add(self, time: int) -> None:
        if self.final is not None and time <= self.final:
            raise _IrregularError
        heapq.heappush(self._waiting, time)

    def decide(self, horizon: int | None) -> Iterator[tuple[int, float, float]]:
        """Yield time, start and end of those taken; later packets are not before ``horizon``.

        None stands for the end of the video: of the last picture only the start is known, which
        ``last`` returns.
        """
        while len(self._waiting) > 1:
            if horizon is not None and min(self._waiting[1:3]) > horizon:
                return
            time = heapq.heappop(self._waiting)
            if self._origin is None:
                self._origin = self._seconds(time)
            second = self._seconds(self._waiting[0])
            end = next_start(self._path, self._begin, second, self._origin, self._nominal)
            begin, self._begin = self._begin, end
            self._steps.append(end - begin)
            self.longest_step = max(self.longest_step, end - begin)
            self.final = time
            if self._takes(end):
                yield time, begin, end

    def last(self) -> tuple[int, float, float, float]:
        """Return time and start of the last picture, the usual step and the second of the first."""
        time = self._waiting[0]
        usual = statistics.median(self._steps) if self._steps else self._nominal
        self.final = time
        return time, self._begin, usual, self._origin or self._seconds(time)

    def _takes(self, end: float) -> bool:
        before = self._tick
        while self._tick / self._rate < end - TOLERANCE:
            self._tick += 1
        return self._tick > before

    def _seconds(self, time: int) -> float:
        assert self._unit is not None
        return float(time * self._unit)


class _Sampler:
    """One reading of one video."""

    def __init__(self, video: OpenVideo, rate: float) -> None:
        self._video, self._stream = video, video.stream
        self._schedule = _Schedule(video, rate)
        # H.264 says of a picture that none refers to it; HEVC only that none of its layer does.
        self._skips = self._stream.codec_context.name == "h264"
        self._held: deque[av.Packet] = deque()
        self._held_bytes = 0
        self._gap = False
        self._taken: deque[tuple[int, float, float]] = deque()
        self._wanted: set[int] = set()
        self._frames: dict[int, av.VideoFrame] = {}

    def pictures(self) -> Iterator[Picture]:
        """Yield the pictures that are taken, and the last one."""
        progress = Progress(0.0)
        for packet in self._video.packets():
            if is_end(packet):
                if self._video.begun(packet):
                    raise _IrregularError  # it was as short as that
                continue
            if not packet.size or packet.is_corrupt or packet.is_discard or packet.pts is None:
                raise _IrregularError
            if progress.first is None:
                progress.first = packet.pts
                if not packet.is_keyframe:
                    raise _IrregularError
            elif packet.pts < progress.first:
                raise _IrregularError
            progress.count += 1
            self._schedule.add(packet.pts)
            if self._video.begun(packet):
                self._receive(self._video.decode(packet))
            else:
                self._held.append(packet)
                self._held_bytes += packet.size
            if packet.dts is not None:
                self._take(self._schedule.decide(packet.dts))
            self._forget()
            if self._held_bytes > _HELD_BYTES:
                self._send(len(self._held))
            yield from self._ready()
        if progress.first is None:
            raise _IrregularError
        self._take(self._schedule.decide(None))
        time, begin, usual, origin = self._schedule.last()
        self._take(iter([(time, begin, begin)]))
        self._drain()
        pictures = list(self._ready())
        if self._taken or not pictures:
            raise _IrregularError
        last = pictures.pop()
        yield from pictures
        end = last_end(last, usual, self._video.duration)
        progress.longest_step = self._schedule.longest_step
        check_complete(self._video, progress, end, origin, sought=False)
        check_structure(self._video, progress)
        yield Picture(last.frame, last.aspect, begin, end)

    def _take(self, decided: Iterator[tuple[int, float, float]]) -> None:
        for item in decided:
            self._taken.append(item)
            self._wanted.add(item[0])
            # It may have been sent already, before others that are displayed earlier.
            place = next((n for n, held in enumerate(self._held) if held.pts == item[0]), None)
            if place is not None:
                self._send(place + 1 - self._leave_out(place + 1, item[0]))

    def _forget(self) -> None:
        """Drop what lies before a key frame up to which everything is decided."""
        if not self._held or (not self._held[-1].is_keyframe and len(self._held) % 16):
            return
        if self._schedule.final is not None:
            self._leave_out(len(self._held), self._schedule.final)

    def _leave_out(self, count: int, time: int) -> int:
        """Drop, of the first packets held, those before the last key frame; return how many.

        A picture that is displayed before the key frame it follows refers to some before that, so
        the key frame is the last one that is displayed at ``time`` or earlier.
        """
        first = enumerate(itertools.islice(self._held, count))
        keys = (n for n, held in first if held.is_keyframe and held.pts <= time)  # type: ignore[operator]
        dropped = max(keys, default=0)
        for _ in range(dropped):
            packet = self._held.popleft()
            self._held_bytes -= packet.size
            if self._schedule.final is None or packet.pts > self._schedule.final:  # type: ignore[operator]
                raise _IrregularError
            self._gap = True
        return dropped

    def _send(self, count: int) -> None:
        """Give the decoder the first packets of those held."""
        context = self._stream.codec_context
        if self._gap:
            self._drain()
            context.flush_buffers()
            self._gap = False
        for _ in range(count):
            packet = self._held.popleft()
            self._held_bytes -= packet.size
            final = self._schedule.final
            decided = final is not None and packet.pts is not None and packet.pts <= final
            if self._skips:
                unseen = decided and packet.pts not in self._wanted
                context.skip_frame = "NONREF" if unseen else "DEFAULT"
            self._receive(self._stream.decode(packet))

    def _drain(self) -> None:
        self._receive(self._stream.decode(None))

    def _receive(self, frames: list[av.VideoFrame]) -> None:
        for frame in frames:
            if frame.interlaced_frame or frame.pts is None:
                raise _IrregularError
            final = self._schedule.final
            if final is None or frame.pts > final or frame.pts in self._wanted:
                if frame.is_corrupt:
                    raise _IrregularError
                if frame.time_base is None and self._stream.time_base is not None:
                    frame.time_base = self._stream.time_base  # it came out when the decoder drained
                self._frames[frame.pts] = frame

    def _ready(self) -> Iterator[Picture]:
        while self._taken and (frame := self._frames.get(self._taken[0][0])) is not None:
            time, begin, end = self._taken.popleft()
            self._wanted.discard(time)
            yield Picture(frame, self._stream.sample_aspect_ratio, begin, end)
            self._frames = {key: item for key, item in self._frames.items() if key > time}
