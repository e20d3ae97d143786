"""Video as browsers play it, with second 0 at the first frame; and single pictures of it.

What a browser plays is served as it is. H.264 in another container, or whose clock does not start
at 0, is copied packet by packet into MP4. Anything else is encoded as H.264, each frame at its own
time, so that a second in the page is a second in the results.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from vidkd.errors import VidkdError
from vidkd.files import atomic_path
from vidkd.video import OpenVideo, open_video, probe, read_frames
from vidkd.video.sound import open_sound

DIRECT, COPY, ENCODE = "direct", "copy", "encode"
_CODECS = {"mov,mp4,m4a,3gp,3g2,mj2": {"h264", "vp9", "av1"}, "matroska,webm": {"vp8", "vp9"}}
_PIXELS = {"yuv420p", "yuvj420p"}
_SOUND = {"aac", "mp3", "opus", "vorbis", "flac"}
_START_TOLERANCE = 0.002
_PREROLL = 0.06
"""Seconds of sound before the first frame that players skip: the delay of encoders."""
_CLOCK = Fraction(1, 90_000)
_SHORT_SIDE = 720
_VERSION = "2"


def way(path: Path) -> str:
    """Return how a video gets to the browser: ``direct``, ``copy`` or ``encode``.

    Raises:
        VideoError: it cannot be opened.
    """
    with open_video(path, threads=1) as video:
        info, container = video.info, video.container
        sound = [item.codec_context.name for item in container.streams.audio if item.codec_context]
        early = [
            float(item.start_time * item.time_base)
            for item in container.streams
            if item.type in ("audio", "video") and item.start_time is not None and item.time_base
        ]
        plain = info.pixel_format in _PIXELS and all(name in _SOUND for name in sound)
        starts = abs(info.start_time) <= _START_TOLERANCE
        starts = starts and min(early, default=0.0) >= -_PREROLL
        family = container.format.name
        browser = info.codec in _CODECS.get(family, ()) and (
            family.startswith("mov") or path.suffix.lower() == ".webm"
        )
        if browser and plain and starts:
            return DIRECT
        return COPY if info.codec == "h264" and info.pixel_format in _PIXELS else ENCODE


def cache_folder() -> Path:
    """Return the private folder of videos that were made playable."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vidkd" / "view"


class Playable:
    """Makes videos playable in the background, one at a time, and keeps them in a folder.

    Args:
        folder: of the copies.
        limit: bytes; the copies that were not used for longest go first.
    """

    def __init__(self, folder: Path | None = None, limit: int = 8 << 30) -> None:
        self.folder = folder or cache_folder()
        self._limit = limit
        self._lock = threading.Lock()
        self._slot = threading.Lock()
        self._progress: dict[Path, float] = {}
        self._failed: dict[Path, str] = {}

    def state(self, path: Path) -> dict[str, Any]:
        """Return ``ready`` with the ``path`` to serve, or start the work and say how far it is."""
        kind = way(path)
        if kind == DIRECT:
            return {"ready": True, "way": kind, "path": path}
        target = self._target(path)
        with self._lock:
            if target.is_file():
                os.utime(target)
                return {"ready": True, "way": kind, "path": target}
            if target in self._failed:
                return {"ready": False, "way": kind, "problem": self._failed[target]}
            if target not in self._progress:
                self._progress[target] = 0.0
                threading.Thread(target=self._make, args=(path, target, kind), daemon=True).start()
            return {"ready": False, "way": kind, "progress": self._progress[target]}

    def _target(self, path: Path) -> Path:
        status = path.stat()
        name = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0{_VERSION}"
        return self.folder / f"{hashlib.sha256(name.encode(errors='replace')).hexdigest()}.mp4"

    def _make(self, path: Path, target: Path, kind: str) -> None:
        def report(share: float) -> None:
            self._progress[target] = share

        try:
            with self._slot:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                make(path, target, kind, report)
                self._trim(target)
        except (VidkdError, OSError, ValueError) as error:
            self._failed[target] = str(error)
        finally:
            self._progress.pop(target, None)

    def _trim(self, newest: Path) -> None:
        files = sorted(self.folder.glob("*.mp4"), key=lambda item: item.stat().st_mtime)
        total = sum(item.stat().st_size for item in files)
        for file in files:
            if total <= self._limit or file == newest:
                continue
            total -= file.stat().st_size
            file.unlink(missing_ok=True)


def make(path: Path, target: Path, kind: str, report: Callable[[float], None]) -> None:
    """Write a copy that browsers play: MP4 whose second 0 is the first frame.

    Args:
        path: the video.
        target: the file, which appears when it is complete.
        kind: ``copy`` or ``encode``.
        report: is told the share that is done.

    Raises:
        VidkdError: the video cannot be read, or the file not be written.
    """
    try:
        with atomic_path(target) as temporary:
            (_copy if kind == COPY else _encode)(path, temporary, report)
    except av.error.FFmpegError as error:
        reason = error.strerror or str(error)
        raise VidkdError(
            f"cannot be made playable ({reason})", path=path, remedy="re-encode it with ffmpeg"
        ) from error


def _copy(path: Path, target: Path, report: Callable[[float], None]) -> None:
    start = probe(path).start_time
    with (
        open_video(path) as video,
        av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as out,
    ):
        duration = video.duration or 0.0
        streams: dict[int, Any] = {video.stream.index: out.add_stream_from_template(video.stream)}
        for sound in video.container.streams.audio[:1]:
            if sound.codec_context is not None and sound.codec_context.name in {"aac", "mp3"}:
                streams[sound.index] = out.add_stream_from_template(sound)
        sources = [video.container.streams[index] for index in streams]
        for packet in _with_dts(video.container.demux(*sources), video):
            shift = round(start / packet.time_base)
            is_video = packet.stream.index == video.stream.index
            if not is_video and packet.pts < shift:
                continue  # sound before the first frame
            packet.pts -= shift
            packet.dts -= shift
            if is_video and duration:
                report(min(1.0, float(packet.pts * packet.time_base) / duration))
            packet.stream = streams[packet.stream.index]
            out.mux(packet)


def _with_dts(packets: Iterator[Any], video: OpenVideo) -> Iterator[Any]:
    """Yield packets with decoding times, which the first of Matroska lack."""
    waiting: list[Any] = []
    for packet in packets:
        if packet.pts is None or packet.time_base is None:
            continue
        if packet.stream.index != video.stream.index or (packet.dts is not None and not waiting):
            packet.dts = packet.pts if packet.dts is None else packet.dts
            yield packet
        elif packet.dts is None:
            waiting.append(packet)
        else:
            step = max(1, round(1 / video.frame_rate / packet.time_base))
            for place, early in enumerate(waiting):
                early.dts = packet.dts - step * (len(waiting) - place)
                yield early
            waiting = []
            yield packet
    for packet in waiting:  # a video of very few frames, which is in order
        packet.dts = packet.pts
        yield packet


def _encode(path: Path, target: Path, report: Callable[[float], None]) -> None:
    with open_video(path) as video, open_sound(path) as sound:
        duration, rate = video.duration or 0.0, video.frame_rate
        short = min(video.info.width, video.info.height)
        size = _SHORT_SIDE if short > _SHORT_SIDE else short
        with av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as out:
            stream: Any = None
            heard: Any = None
            given = 0
            for frame in read_frames(video, short_side=size if size % 2 == 0 else size + 1):
                height, width = frame.image.shape[:2]
                if stream is None:
                    stream = out.add_stream("libx264", rate=rate.limit_denominator(100_000))
                    stream.width, stream.height = width + width % 2, height + height % 2
                    stream.pix_fmt = "yuv420p"
                    # A key frame every few pictures makes seeking fluid.
                    stream.options = {"crf": "21", "preset": "veryfast", "g": "24", "bf": "0"}
                    stream.codec_context.time_base = _CLOCK
                    stream.codec_context.colorspace = Colorspace.SMPTE170M
                    stream.codec_context.color_range = ColorRange.MPEG
                    if sound is not None:
                        heard = out.add_stream("aac", rate=sound.rate, layout=sound.layout)
                picture = av.VideoFrame.from_ndarray(frame.image, format="rgb24")
                if (picture.width, picture.height) != (stream.width, stream.height):
                    picture = picture.reformat(stream.width, stream.height)
                picture.pts, picture.time_base = round(frame.start / _CLOCK), _CLOCK
                out.mux(stream.encode(picture))
                if sound is not None:
                    for block in sound.until(frame.end):
                        samples = av.AudioFrame.from_ndarray(
                            np.ascontiguousarray(block), "fltp", sound.layout
                        )
                        samples.sample_rate, samples.time_base = sound.rate, Fraction(1, sound.rate)
                        samples.pts, given = given, given + block.shape[1]
                        out.mux(heard.encode(samples))
                if duration:
                    report(min(1.0, frame.start / duration))
            if stream is not None:
                out.mux(stream.encode())
                if sound is not None:
                    out.mux(heard.encode())


def still(path: Path, second: float, short_side: int) -> bytes:
    """Return the picture that a video shows at a second, as JPEG.

    Raises:
        VidkdError: there is none.
    """
    # With one thread, because a decoder of many reads far beyond the one picture.
    with open_video(path, threads=1) as video:
        # An end that is only promised still has a last picture.
        last = max(0.0, (video.duration or second) - 1.0)
        frame = None
        for start in (second, last, 0.0):
            if frame is None and start <= second:
                frame = next(read_frames(video, short_side=short_side, start=start), None)
    if frame is None:
        raise VidkdError(f"shows nothing at {second:.2f} s", path=path)
    stream = io.BytesIO()
    Image.fromarray(frame.image).save(stream, "JPEG", quality=80)
    return stream.getvalue()


class Stills:
    """Pictures of videos, kept in memory; the ones that were not used for longest go first."""

    limit = 64 << 20
    """Bytes."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Path, float, int], bytes] = {}
        self._size = 0
        self._lock = threading.Lock()
        self._decoders = threading.BoundedSemaphore(2)

    def get(self, path: Path, second: float, short_side: int) -> bytes:
        """Return the picture as ``still`` does."""
        key = (path, round(second, 3), short_side)
        with self._lock:
            if key in self._kept:
                self._kept[key] = picture = self._kept.pop(key)
                return picture
        with self._decoders:
            picture = still(path, second, short_side)
        with self._lock:
            self._kept[key] = picture
            self._size += len(picture)
            while self._size > self.limit and len(self._kept) > 1:
                self._size -= len(self._kept.pop(next(iter(self._kept))))
        return picture
