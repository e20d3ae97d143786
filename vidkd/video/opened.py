"""A video file opened for reading: what its container tells, and its packets and frames."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import av.container
import av.sidedata.sidedata
import av.stream
import av.video.stream

from vidkd.errors import VideoError
from vidkd.storage import as_path
from vidkd.video.watched import WatchedFile, unreadable

_FALLBACK_RATE = Fraction(25)
_MOST_THREADS = 8
_SEARCHABLE = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "mpegts"}
"""Containers whose times after a seek are those of a reading from the start; FFmpeg guesses them
in MPEG program streams, for one."""
_NO_VIDEO = {
    "tty": "text",  # which FFmpeg renders as pictures of a terminal
    "concat": "a list of files",
    "hls": "a playlist",
    "dash": "a playlist",
}
_TAGGED_DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
"""Matroska keeps the duration of each stream in a tag, such as 00:01:02.500000000."""
# Tags in any old encoding are no reason to refuse a video; from PyAV 19 on they never are.
LENIENT: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
)


@dataclass(frozen=True)
class VideoInfo:
    """What a container says of its first video stream.

    Attributes:
        path: the file.
        width: pixels as displayed, after rotation and with square pixels.
        height: likewise.
        frame_rate: average frames per second; 25 where the container has none.
        duration: seconds of the stream, or None when unknown.
        frame_count: number of frames the container claims or that follows from duration and
            rate; None when unknown. Decoding alone knows the true number.
        codec: name of the codec, such as ``h264``.
        pixel_format: such as ``yuv420p``.
        rotation: degrees counter-clockwise by which pictures are turned for display, one of 0, 90,
            180 and 270; ``read_frames`` applies it, and a mirroring that may go with it.
        start_time: second of the first frame on the container's clock. All times elsewhere count
            from that frame.
        size: bytes of the file.
    """

    path: Path
    width: int
    height: int
    frame_rate: Fraction
    duration: float | None
    frame_count: int | None
    codec: str
    pixel_format: str
    rotation: int
    start_time: float
    size: int


class OpenVideo:
    """A video file, opened once: what it claims, and its packets and frames from the start.

    Attributes:
        path: the file.
        container: of PyAV.
        stream: the first video stream that is not a cover picture.
        frame_rate: frames per second: the average, else the guessed rate, else 25.
        duration: seconds of the stream, or None when unknown.
    """

    container: av.container.InputContainer
    stream: av.video.stream.VideoStream
    frame_rate: Fraction
    duration: float | None

    def __init__(self, path: Path, file: WatchedFile, threads: int) -> None:
        self.path = path
        self._file = file
        self._threads = threads
        self._begun: dict[av.Packet, list[av.VideoFrame]] = {}
        self._read = False
        self._open()

    def _open(self) -> None:
        self.container = _open(self.path, self._file)
        try:
            self.stream = video_stream(self.container, self.path)
        except VideoError:
            self.container.close()
            raise
        self.stream.thread_type = "AUTO" if self._threads > 1 else "NONE"
        self.stream.codec_context.thread_count = self._threads
        self.frame_rate = stream_rate(self.stream)
        self.duration = stream_duration(self.container, self.stream)

    @functools.cached_property
    def first_frame(self) -> av.VideoFrame:
        """The first frame, as it is decoded.

        Raises:
            VideoError: there is none that can be decoded.
        """
        try:
            for packet in self._demuxed():
                mine = packet.stream.index == self.stream.index
                self._begun[packet] = list(packet.decode()) if mine else []
                if self._begun[packet]:
                    return self._begun[packet][0]
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise damaged(self.path, 0.0, reason(error)) from error
        raise no_frame(self.path)

    @functools.cached_property
    def info(self) -> VideoInfo:
        """What the container claims; decodes the first frame for its rotation and time."""
        first = self.first_frame
        count = self.stream.frames or (
            round(self.duration * self.frame_rate) if self.duration else 0
        )
        rotation = orientation(first)[1] * 90
        aspect = self.stream.sample_aspect_ratio
        width, height = display_size(first.width, first.height, rotation, aspect)
        return VideoInfo(
            path=self.path,
            width=width,
            height=height,
            frame_rate=self.frame_rate,
            duration=self.duration,
            frame_count=count or None,
            codec=self.stream.codec_context.name,
            pixel_format=first.format.name,
            rotation=rotation,
            start_time=frame_time(first) or 0.0,
            size=self._file.size,
        )

    def rewind(self) -> None:
        """Go back to the start, unless nothing but the first frame was read."""
        if self._read:
            self.container.close()
            self._file.seek(0)
            self._begun.clear()
            self._read = False
            self._open()

    def seek(self, second: float) -> bool:
        """Go to the key frame before a second of the container's clock, if that is possible."""
        if self.stream.time_base is None or self.container.format.name not in _SEARCHABLE:
            return False
        self._begun.clear()
        self._read = True
        offset = int(second / self.stream.time_base)
        try:
            self.container.seek(offset, stream=self.stream, backward=True)
        except av.error.FFmpegError:
            return False
        return True

    def packets(self) -> Iterator[av.Packet]:
        """Yield the packets of the video, and an empty one at the end.

        Where a container only promises a length for all its streams, those of the others come too.
        """
        self._read = True
        last = None
        for last in list(self._begun):
            yield last
        if last is None or not is_end(last):
            yield from self._demuxed()

    def begun(self, packet: av.Packet) -> bool:
        """Say whether the decoder has had a packet already, for the first frame."""
        return packet in self._begun

    def decode(self, packet: av.Packet) -> list[av.VideoFrame]:
        """Give a packet of the video to the decoder, and return the frames that come out of it."""
        frames = self._begun.pop(packet, None)
        return self.stream.decode(packet) if frames is None else frames

    def check(self, damage: Callable[[BinaryIO], str | None] | None = None) -> None:
        """Refuse the video if something of the file could not be read, or if it is damaged.

        Args:
            damage: reads the file, from its start, and returns how it is damaged, or None. The
                container is of no use after that.

        Raises:
            VideoError: with what is wrong.
        """
        self._file.check()
        if damage is None:
            return
        self._read = True
        try:
            found = self._file.inspect(damage)
        except OSError as error:
            raise unreadable(self.path, error) from error
        if found is not None:
            raise VideoError(
                f"is damaged ({found})",
                path=self.path,
                remedy="copy or download it again, or re-encode the part that plays with ffmpeg",
            )

    def _demuxed(self) -> Iterator[av.Packet]:
        streams: list[av.stream.Stream] = [self.stream]
        if self.duration is None:
            streams = [item for item in self.container.streams if item.type in ("video", "audio")]
        try:
            yield from self.container.demux(*streams)
        except IndexError:
            # After the last packet PyAV trips over streams that turned up on the way: late sound,
            # or damage that looks like another stream, which the structure will tell.
            return


@contextlib.contextmanager
def open_video(path: str | Path, threads: int | None = None) -> Iterator[OpenVideo]:
    """Open a video file while the block runs.

    Args:
        path: the file, or its address.
        threads: of the decoder; by default as many as serve.

    Raises:
        VideoError: the file is missing, unreadable, not a video, or has no video stream. When the
            block ends: something of the file could not be read, whatever FFmpeg made of that.
    """
    path = as_path(path)
    file = _watch(path)
    try:
        # Every thread of a decoder holds frames; many would only cost memory.
        video = OpenVideo(path, file, threads or min(_MOST_THREADS, os.cpu_count() or 1))
        try:
            yield video
        finally:
            video.container.close()
        file.check()
    except VideoError:
        # What the disk did explains what the demuxer and the decoder say.
        file.check()
        raise
    finally:
        file.close()


def probe(path: str | Path) -> VideoInfo:
    """Read what a video's container claims, decoding one frame for its rotation and start.

    Raises:
        VideoError: the file cannot be opened, or not even its first frame can be decoded.
    """
    # With one thread, because several would decode more than that frame.
    with open_video(path, threads=1) as video:
        return video.info


def is_end(packet: av.Packet) -> bool:
    """Say whether a packet is the sign of the end, which empties the decoder."""
    return not packet.size and packet.pts is None


def video_stream(container: av.container.InputContainer, path: Path) -> av.video.stream.VideoStream:
    """Return the first video stream that is not a cover picture.

    Raises:
        VideoError: there is none.
    """
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if not streams or streams[0].codec_context is None:
        kinds = sorted({stream.type for stream in container.streams})
        found = f" (it has {', '.join(kinds)})" if kinds else ""
        raise VideoError(
            f"has no video stream that can be decoded{found}",
            path=path,
            remedy="give a file that holds video, or copy it again if it ought to",
        )
    return streams[0]


def _watch(path: Path) -> WatchedFile:
    try:
        if path.is_dir():
            raise VideoError("is a folder, not a video", path=path, remedy="give a video file")
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            # Opening a pipe would wait for a writer for ever.
            raise VideoError("is not a regular file", path=path, remedy="give a video file")
        if status.st_size == 0:
            raise VideoError("is empty", path=path, remedy="copy or download the video again")
        return WatchedFile(path)
    except FileNotFoundError as error:
        raise VideoError("does not exist", path=path, remedy="check the path") from error
    except PermissionError as error:
        raise VideoError(
            "may not be read", path=path, remedy="give yourself the right to read it"
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error


def _open(path: Path, watched: WatchedFile) -> av.container.InputContainer:
    try:
        # A playlist under the name of a video must not make FFmpeg wait for the network.
        # PyAV keeps FFmpeg's own log silent unless told otherwise, so an error stays one line.
        container = av.open(watched, options={"protocol_whitelist": "file"}, **LENIENT)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"is not a video that can be opened ({reason(error)})",
            path=path,
            remedy="check that it plays, or copy or download it again",
        ) from error
    kind = _NO_VIDEO.get(container.format.name)
    if kind is not None:
        container.close()
        raise VideoError(f"holds {kind}, not video", path=path, remedy="give a video file")
    return container


def reason(error: Exception) -> str:
    """Return what an exception of FFmpeg or the system says, in a few words."""
    if isinstance(error, EOFError):
        return "it ends too early"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).strip().rstrip(".")


def stream_rate(stream: av.video.stream.VideoStream) -> Fraction:
    """Return a usable frame rate: average, else guessed, else 25 (headers are not trusted)."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate is not None and Fraction(1, 3600) <= rate <= 10_000:
            return Fraction(rate)
    return _FALLBACK_RATE


def stream_duration(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> float | None:
    """Return the seconds of the video stream, or None.

    The container's duration covers its longest stream, so it only counts when there is no other.
    """
    seconds: float | None = None
    tag = _TAGGED_DURATION.fullmatch(stream.metadata.get("DURATION", ""))
    whole = None if container.duration is None else container.duration / av.time_base
    if stream.duration is not None and stream.time_base is not None:
        seconds = float(stream.duration * stream.time_base)
    elif tag is not None and "matroska" in container.format.name:
        hours, minutes, rest = tag.groups()
        seconds = int(hours) * 3600 + int(minutes) * 60 + float(rest)
        # Tags survive cuts by some tools; the shorter of the two is right.
        seconds = seconds if whole is None else min(seconds, whole)
    elif len(container.streams) == 1:
        seconds = whole
    if seconds is not None and stream.duration is None and stream.start_time is not None:
        # These two tell the time of the end, and not every video begins at 0.
        seconds -= max(0.0, float(stream.start_time * (stream.time_base or 0)))
    return seconds if seconds is not None and 0 < seconds < 3e7 else None


def display_size(
    width: int, height: int, rotation: int, aspect: Fraction | None
) -> tuple[int, int]:
    """Return width and height as displayed: square pixels, turned by ``rotation`` degrees."""
    if aspect is not None and Fraction(1, 4) <= aspect <= 4:
        width = max(1, round(width * aspect))
    return (height, width) if rotation in (90, 270) else (width, height)


def no_frame(path: Path) -> VideoError:
    """Build the error for a video without pictures."""
    return VideoError(
        "holds no frame that can be decoded", path=path, remedy="copy or download the video again"
    )


def damaged(path: Path, second: float, why: str) -> VideoError:
    """Build the error for a video that breaks off in the middle."""
    return VideoError(
        f"is damaged at second {second:.2f} ({why})",
        path=path,
        remedy="copy or download it again, or re-encode the part that plays with ffmpeg",
    )


def frame_time(frame: av.VideoFrame) -> float | None:
    """Return the second at which a frame appears on the container's clock, or None."""
    if frame.pts is None or frame.time_base is None:
        return None
    return float(frame.pts * frame.time_base)


def orientation(frame: av.VideoFrame) -> tuple[bool, int]:
    """Return how a frame is displayed upright, from its display matrix.

    Returns:
        Whether it is mirrored left to right first, and the number of quarter turns
        counter-clockwise that follow (0 to 3).
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, av.sidedata.sidedata.SideData) or matrix.buffer_size < 36:
        return False, 0
    # A picture's x axis (to the right) is displayed as (a, b), its y axis (down) as (c, d).
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    return mirrored, round(-math.degrees(math.atan2(b, a)) / 90) % 4
