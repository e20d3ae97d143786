"""Parts of videos as files of their own: copied at key frames, or encoded anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vidkd.errors import VideoError, VidkdError
from vidkd.files import atomic_path
from vidkd.video.decode import Frame, read_frames
from vidkd.video.encode import VideoWriter
from vidkd.video.opened import OpenVideo, open_video, probe, reason
from vidkd.video.sound import SoundReader, open_sound

Report = Callable[[float], None]
_ROUNDING = 0.002
"""Seconds; some containers keep times in milliseconds."""


def steady_rate(rate: Fraction | float) -> float:
    """Return the frames per second of a copy that has a constant rate."""
    return min(max(float(rate), 1.0), 60.0)


def encode_part(
    source: str | Path, path: str | Path, start: float, end: float, report: Report | None = None
) -> float:
    """Write a part of a video as H.264 and AAC in MP4, atomically, at a constant frame rate.

    Args:
        source: the video.
        path: the file to write.
        start: second of the first picture shown at it or later.
        end: second before which the last picture begins.
        report: called with the number of frames done since the last call.

    Returns:
        The second of the video at which the file begins.

    Raises:
        VideoError: the video cannot be decoded, or has no picture between the two.
        VidkdError: the file cannot be written.
    """
    with open_video(source) as opened:
        rate = steady_rate(opened.info.frame_rate)
        frames = read_frames(opened, frame_rate=rate, start=start, end=end)
        first = _first(frames, source, start)
        height, width = first.image.shape[:2]
        with open_sound(source, first.start) as sound:
            form = None if sound is None else (sound.rate, sound.layout)
            with VideoWriter(path, width, height, rate, threads=0, sound=form) as writer:
                write_in_time(writer, _chain(first, frames), sound, report)
    return first.start


def write_in_time(
    writer: VideoWriter,
    frames: Iterator[Frame],
    sound: SoundReader | None,
    report: Report | None = None,
    draw: Callable[[np.ndarray], np.ndarray] = lambda image: image,
) -> None:
    """Write frames with the sound that belongs to them; without sound, silence if it is wanted.

    Args:
        writer: to write to; what is there already stays before it.
        frames: at the rate of the writer.
        sound: begins with the first frame.
        report: called with 1 after every frame.
        draw: takes a picture and returns that to write.
    """
    begin = writer.seconds
    for frame in frames:
        writer.write(draw(frame.image))
        if sound is not None:
            for samples in sound.until(writer.seconds - begin):
                writer.write_sound(samples)
        else:
            writer.write_silence()
        if report is not None:
            report(1)


def _first(frames: Iterator[Frame], source: str | Path, start: float) -> Frame:
    frame = next(frames, None)
    if frame is None:
        raise VideoError(
            f"has no picture from {start:g} s on",
            path=source,
            remedy="check that the segments belong to this video",
        )
    return frame


def _chain(first: Frame, frames: Iterator[Frame]) -> Iterator[Frame]:
    yield first
    yield from frames


def copy_part(source: str | Path, path: str | Path, start: float, end: float) -> float:
    """Copy packets of a video into an MP4 file, atomically: quick, and without loss.

    A copy can begin at key frames only, so that it begins at the last one up to ``start``.

    Args:
        source: the video.
        path: the file to write.
        start: second that must be in it.
        end: second at which it may end.

    Returns:
        The second of the video at which the file begins.

    Raises:
        VideoError: the video cannot be read, or gives no times for its packets.
        VidkdError: the file cannot be written, or MP4 cannot hold the codecs.
    """
    origin = probe(source).start_time
    with open_video(source, threads=1) as opened, atomic_path(path) as temporary:
        try:
            with av.open(
                str(temporary), "w", format="mp4", options={"movflags": "+faststart"}
            ) as output:
                return _copied(opened, output, origin, start, end) - origin
        except (av.error.FFmpegError, ValueError) as error:
            raise VidkdError(
                f"cannot be copied into MP4 as it is ({reason(error)})",
                path=source,
                remedy="leave out --copy, so that it is encoded anew",
            ) from error


def _copied(
    opened: OpenVideo,
    output: av.container.OutputContainer,
    origin: float,
    start: float,
    end: float,
) -> float:
    """Copy what lies between two seconds; return that of the first picture on the file's clock."""
    container, video = opened.container, opened.stream
    sounds = [item for item in container.streams.audio if item.codec_context is not None][:1]
    targets = {item.index: output.add_stream_from_template(item) for item in (video, *sounds)}
    assert video.time_base is not None
    # Some demuxers come down after the place that is asked for.
    for earlier in (0.0, 2.0, 10.0, start):
        if start > 0:
            place = max(0.0, start - earlier) + origin
            container.seek(int(place / video.time_base), stream=video)
        pictures, sound = _part(opened, origin, start, end)
        begin = float(pictures[0].pts * video.time_base)
        if start <= 0 or begin <= origin + start + _ROUNDING:
            break
    _number(pictures)
    heard = [item for item in sound if item.pts * item.time_base >= begin - _ROUNDING]
    for packet in sorted((*pictures, *heard), key=lambda item: item.dts * item.time_base):
        shift = round(begin / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        packet.stream = targets[packet.stream.index]
        output.mux(packet)
    return begin


def _part(
    opened: OpenVideo, origin: float, start: float, end: float
) -> tuple[list[Any], list[Any]]:
    """Return the packets of the pictures from a key frame on, and those of the sound."""
    video = opened.stream
    sounds = [item for item in opened.container.streams.audio if item.codec_context is not None]
    pictures: list[Any] = []
    sound: list[Any] = []
    ended: set[int] = set()
    for packet in opened.container.demux(video, *sounds[:1]):
        if not packet.size or packet.stream.index in ended:
            continue
        if packet.pts is None and packet.dts is not None and not video.codec_context.has_b_frames:
            packet.pts = packet.dts
        if packet.pts is None:
            raise VideoError(
                "gives no times for its packets, so that no part can be copied",
                path=opened.path,
                remedy="leave out --copy, so that it is encoded anew",
            )
        time = float(packet.pts * packet.time_base) - origin
        if packet.stream.index != video.index:
            packet.dts = packet.pts
            sound.append(packet)
        elif packet.is_keyframe and (not pictures or time <= start + _ROUNDING):
            # A demuxer may come down at an earlier key frame than the last one.
            pictures = [packet]
        elif pictures:
            pictures.append(packet)
        decoded = time if packet.dts is None else float(packet.dts * packet.time_base) - origin
        if decoded >= end - _ROUNDING:
            (sound if packet.stream.index != video.index else pictures).pop()
            ended.add(packet.stream.index)
            if len(ended) == 1 + len(sounds[:1]):
                break
    if not pictures:
        raise VideoError(
            f"has no key frame around {start:g} s", path=opened.path, remedy="leave out --copy"
        )
    return pictures, sound


def _number(pictures: Sequence[Any]) -> None:
    """Give packets in order of decoding the times at which they are decoded.

    Some containers do not have these times. They are those of display, in their order, moved so
    that no picture is shown before it is decoded.
    """
    shown = sorted(item.pts for item in pictures)
    place = {time: number for number, time in enumerate(shown)}
    delay = max(number - place[item.pts] for number, item in enumerate(pictures))
    step = max(1, shown[1] - shown[0]) if len(shown) > 1 else 1
    for number, item in enumerate(pictures):
        earlier = number - delay
        item.dts = shown[earlier] if earlier >= 0 else shown[0] + step * earlier
