"""A clip of every event, with some seconds before and after, in a folder of limited size."""

from __future__ import annotations

import contextlib
import io
import math
import re
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType

from vidkd.errors import VidkdError
from vidkd.files import atomic_path, write_json
from vidkd.live.events import Event, LiveFrame
from vidkd.live.outputs.beside import Beside, Counts
from vidkd.report.clips import safe_name
from vidkd.video.encode import add_h264

LONGEST = 600.0
"""Seconds after which the clip of an event that lasts goes on in another file."""
_LATE = 20.0
"""Seconds kept beyond what is wanted before an event: it is told that long after it began."""
_KEY_SECONDS = 1.0
"""A clip begins at a key frame."""
_FASTEST = 1 / 31
_SHORT_SIDE = 720
_MEMORY = 32 << 20
"""Bytes of encoded video that are kept of a source at most."""
_CLOCK = Fraction(1, 90_000)
_NAMES = re.compile(r"\d{8}T\d{6}\.\d{3}Z_.+_\d+(-\d+)?")


@dataclass
class _Packet:
    """A picture as H.264, and the stream that it is of."""

    content: bytes
    time: float
    wall: datetime
    key: bool
    stream: av.VideoStream


class Clips(Beside):
    """Keeps the last seconds of every source as H.264, and copies those of events into files.

    Pictures are encoded once, with at most 720 pixels on the short side and 30 a second. A file
    ``STARTED_SOURCE_CLASS_NUMBER.mp4`` appears when it is complete, and then ``.json`` beside it.
    Events that end before they are certain leave no file.

    Args:
        folder: of the clips.
        margin: seconds before and after each event.
        limit: bytes; beyond them the oldest clips are deleted, and never other files.

    Raises:
        VidkdError: the folder cannot be made.
    """

    def __init__(self, folder: Path, margin: float = 5.0, limit: int = 10_000_000_000) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise VidkdError(
                f"cannot be made ({error.strerror})", path=folder, remedy="name another --clips"
            ) from error
        self._folder, self._margin, self._limit = folder, margin, limit
        self._cameras: dict[str, _Camera] = {}
        for path in folder.glob(".*.partial.mp4"):
            # Of a watch that was killed; another one that runs writes to its own all the time.
            stem, age = path.name[1:].rsplit(".", 3)[0], time.time() - path.stat().st_mtime
            if _NAMES.fullmatch(stem) and age > 3600:
                path.unlink(missing_ok=True)
        super().__init__(Counts("clips"), self._take_event, self._take_frame, self._finish)

    def _take_frame(self, source: str, frame: LiveFrame) -> None:
        camera = self._cameras.setdefault(source, _Camera(self._margin))
        for packet in camera.encode(frame):
            for clip in list(camera.clips.values()):
                with self._or_given_up(camera, clip):
                    if clip.is_over(packet):
                        self._save(clip)
                        clip = camera.clips[clip.event.number] = clip.next_part()
                        clip.open(self._folder)
                    clip.write(packet)
                    if packet.time >= clip.until:
                        self._save(camera.clips.pop(clip.event.number))

    def _take_event(self, event: Event) -> None:
        camera = self._cameras.setdefault(event.source, _Camera(self._margin))
        clip = camera.clips.get(event.number)
        if event.state == "begin":
            clip = camera.clips[event.number] = _Clip(event)
            with self._or_given_up(camera, clip):
                clip.open(self._folder)
                for packet in camera.since(event.start - self._margin):
                    clip.write(packet)
        elif clip is not None:
            clip.event = event
            clip.certain |= event.state == "certain"
            if event.end is None:
                return
            clip.until = event.end + self._margin
            if not clip.certain:
                camera.clips.pop(event.number).discard()
            elif clip.last is not None and clip.last.time >= clip.until:
                with self._or_given_up(camera, clip):
                    self._save(camera.clips.pop(event.number))

    @contextlib.contextmanager
    def _or_given_up(self, camera: _Camera, clip: _Clip) -> Iterator[None]:
        try:
            yield
        except (av.error.FFmpegError, OSError, VidkdError) as error:
            camera.clips.pop(clip.event.number, None)
            clip.discard()
            self.counts.failed += 1
            why = error.problem if isinstance(error, VidkdError) else error.strerror
            self.counts.trouble(f"a clip in {self._folder} was not written: {why}")

    def _finish(self) -> None:
        """Write what is open: the watch has ended."""
        for camera in self._cameras.values():
            while camera.clips:
                _, clip = camera.clips.popitem()
                with self._or_given_up(camera, clip):
                    if clip.certain and clip.last is not None:
                        self._save(clip)
                    else:
                        clip.discard()

    def _save(self, clip: _Clip) -> None:
        clip.save()
        write_json(clip.path.with_suffix(".json"), clip.to_json())
        self.counts.success()
        self._trim(clip.path)

    def _trim(self, newest: Path) -> None:
        """Delete the oldest clips until the rest is small enough; the newest stays."""
        clips = sorted(p for p in self._folder.glob("*.mp4") if _NAMES.fullmatch(p.stem))
        sizes = {path: path.stat().st_size for path in clips}
        total = sum(sizes.values())
        for path in clips:
            if total <= self._limit:
                break
            if path != newest:
                path.unlink(missing_ok=True)
                path.with_suffix(".json").unlink(missing_ok=True)
                total -= sizes[path]


class _Camera:
    """The encoder of a source, its last packets, and the clips that are open."""

    def __init__(self, margin: float) -> None:
        self.clips: dict[int, _Clip] = {}
        self._kept = margin + _LATE
        self._packets: deque[_Packet] = deque()
        self._bytes = 0
        self._size: tuple[int, int] = (0, 0)
        self._newest = self._key = -1e9

    def encode(self, frame: LiveFrame) -> Iterator[_Packet]:
        """Yield the packet of a picture, which is kept for the clips of later events, too."""
        assert frame.image is not None
        if frame.time - self._newest < _FASTEST:
            return
        if frame.image.shape[:2] != self._size:
            self._begin(*frame.image.shape[:2])
        self._newest = frame.time
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.image), format="rgb24")
        picture = picture.reformat(self.stream.width, self.stream.height, "yuv420p")
        picture.pts, picture.time_base = round(frame.time / _CLOCK), _CLOCK
        if frame.time >= self._key + _KEY_SECONDS:
            picture.pict_type, self._key = PictureType.I, frame.time
        # Without pictures that refer to later ones, each comes out at once.
        for item in self.stream.encode(picture):
            packet = _Packet(bytes(item), frame.time, frame.wall, item.is_keyframe, self.stream)
            self._packets.append(packet)
            self._bytes += len(packet.content)
            yield packet
        while self._bytes > _MEMORY or self._packets[0].time < frame.time - self._kept:
            self._bytes -= len(self._packets.popleft().content)

    def since(self, time: float) -> list[_Packet]:
        """Return the packets from the last key frame up to a second on."""
        found: list[_Packet] = []
        for packet in self._packets:
            if packet.stream is not self.stream:
                continue  # of another size
            if packet.key and packet.time <= time:
                found = []
            if packet.key or found:
                found.append(packet)
        return found

    def _begin(self, height: int, width: int) -> None:
        """Begin with pictures of another size."""
        self._size = height, width
        scale = min(1.0, _SHORT_SIDE / min(height, width))
        height, width = (max(2, round(side * scale / 2) * 2) for side in (height, width))
        # Nothing is read from this file; a stream in a file is what other files can be made after.
        holder = av.open(io.BytesIO(), "w", format="mp4")
        options = {"crf": "23", "tune": "zerolatency", "forced-idr": "1"}
        self.stream = add_h264(holder, Fraction(25), width, height, options)
        self.stream.codec_context.time_base = _CLOCK
        self.stream.codec_context.thread_count = 1
        holder.start_encoding()
        self._key = -1e9


class _Clip:
    """A file that is being written about an event."""

    def __init__(self, event: Event) -> None:
        self.event = event
        self.certain = False
        self.until = math.inf
        self.part = 1
        self._files = contextlib.ExitStack()
        self.first: _Packet | None = None
        self.last: _Packet | None = None

    def is_over(self, packet: _Packet) -> bool:
        """Say whether another file has to begin with a packet."""
        if self.first is None or not packet.key:
            return False
        return packet.stream is not self.first.stream or packet.time >= self.first.time + LONGEST

    def next_part(self) -> _Clip:
        """Return the clip that goes on where this one is over."""
        clip = _Clip(self.event)
        clip.certain, clip.until, clip.part = self.certain, self.until, self.part + 1
        return clip

    def open(self, folder: Path) -> None:
        """Begin the file."""
        event = self.event
        moment = event.started.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3]
        name = f"{moment}Z_{safe_name(event.source)}_{safe_name(event.label)}_{event.number}"
        self.path = folder / (name + (f"-{self.part}" if self.part > 1 else "") + ".mp4")
        with contextlib.ExitStack() as files:
            temporary = files.enter_context(atomic_path(self.path))
            self._file = av.open(
                str(temporary), "w", format="mp4", options={"movflags": "+faststart"}
            )
            files.callback(self._file.close)
            self._files = files.pop_all()

    def write(self, packet: _Packet) -> None:
        """Append a picture."""
        if self.first is None:
            if not packet.key:
                return
            self.first = packet
            self._stream = self._file.add_stream_from_template(packet.stream)
        item = av.Packet(packet.content)
        item.stream, item.time_base, item.is_keyframe = self._stream, _CLOCK, packet.key
        item.pts = item.dts = round((packet.time - self.first.time) / _CLOCK)
        item.duration = round((packet.time - self.last.time if self.last else 0.04) / _CLOCK)
        self._file.mux(item)
        self.last = packet

    def save(self) -> None:
        """Let the file appear."""
        self._file.close()
        self._files.close()

    def discard(self) -> None:
        """Leave no file behind."""
        nothing = ValueError("nobody wants it")
        with contextlib.suppress(av.error.FFmpegError, OSError, ValueError, VidkdError):
            self._files.__exit__(type(nothing), nothing, None)

    def to_json(self) -> dict[str, Any]:
        """Return what the file shows."""
        assert self.first is not None
        assert self.last is not None
        return {
            **self.event.to_json(),
            "file": self.path.name,
            "part": self.part,
            "clip": [round(self.first.time, 3), round(self.last.time, 3)],
            "filmed": self.first.wall.isoformat(timespec="milliseconds"),
        }
