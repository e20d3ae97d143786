"""Sources of live video: what the user names, and how it is opened."""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import av.container
import av.video.stream

from vidkd.errors import UsageError, VideoError
from vidkd.recipe import LiveSettings
from vidkd.video.opened import (
    LENIENT,
    open_video,
    reason,
    stream_duration,
    stream_rate,
    video_stream,
)

Kind = Literal["camera", "network", "pipe", "growing", "paced", "file"]

_OPEN_SECONDS = 10.0
_POLL_SECONDS = 0.05
_NETWORK = {"http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "tcp"}
_OPTIONS = {
    # A playlist of a server must not make FFmpeg read files of this machine.
    "protocol_whitelist": "http,https,tcp,tls,crypto,httpproxy,rtsp,rtsps,rtmp,rtmps,rtp,udp,hls",
    # FFmpeg would look at five seconds of a stream before it gives the first frame.
    "analyzeduration": "1000000",
    "rtsp_transport": "tcp",
}
_SECRET = re.compile(r"(\w*(?:pass|pwd|token|secret|key|auth|sig|user)\w*)=[^&/?#]*", re.I)
_NAMED = re.compile(r"([\w.-]+)=(?=.)")


@dataclass(frozen=True)
class Source:
    """A source as the user named it.

    Attributes:
        name: in events and messages; without passwords.
        kind: how it is read.
        address: a URL, a path, or ``-``; may hold a password, and is never shown.
    """

    name: str
    kind: Kind
    address: str = field(repr=False)


@dataclass(frozen=True)
class OpenSource:
    """A source that has been opened.

    Attributes:
        container: of PyAV.
        stream: its video.
        frame_rate: that the stream claims; 25 where it claims none.
        duration: seconds until its end; None for one without an end.
    """

    container: av.container.InputContainer
    stream: av.video.stream.VideoStream
    frame_rate: Fraction
    duration: float | None


def find_sources(given: Sequence[str], listed: Path | None, settings: LiveSettings) -> list[Source]:
    """Return the sources that the user named, each with a name of its own.

    Args:
        given: addresses, each with ``NAME=`` before it if it is to be called so.
        listed: a text file with one a line; empty lines and lines that begin with # are passed
            over.
        settings: say how files are read.

    Raises:
        UsageError: there is none, or one that makes no sense.
    """
    lines: list[str] = []
    if listed is not None:
        try:
            lines = [line.strip() for line in listed.read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not a text file"
            raise UsageError(
                f"cannot be read as a list of sources ({why})", path=listed, remedy="check the path"
            ) from error
    texts = [*given, *(line for line in lines if line and not line.startswith("#"))]
    if not texts:
        raise UsageError(
            "there is no source",
            path=listed,
            remedy="name a camera, a URL, a file or - for standard input",
        )
    found: dict[str, Source] = {}
    for text in texts:
        match = None if Path(text).exists() else _NAMED.match(text)
        address = text[match.end() :] if match else text
        address = f"/dev/video{address}" if address.isdigit() else address
        kind = _kind(address, settings)
        name = base = match[1] if match else shown_address(address)
        for number in range(2, len(texts) + 2):
            if name not in found:
                break
            if match:
                raise UsageError(f"two sources are called {name}", remedy="rename one of them")
            name = f"{base}#{number}"
        found[name] = Source(name, kind, address)
    if sum(source.address == "-" for source in found.values()) > 1:
        raise UsageError("standard input is one source only", remedy="name - once")
    if sys.stdin.isatty() and any(source.address == "-" for source in found.values()):
        raise UsageError(
            "standard input is this terminal, and no video comes from there",
            remedy="send some into it: ffmpeg -i CAMERA -c copy -f mpegts - | vidkd watch - ...",
        )
    return list(found.values())


def _kind(address: str, settings: LiveSettings) -> Kind:
    scheme = address.partition("://")[0].lower()
    if "://" in address:
        if scheme not in _NETWORK:
            raise UsageError(
                f"{shown_address(address)} is of no kind that can be read",
                remedy=f"give a URL of {', '.join(sorted(_NETWORK))}, a file or a camera",
            )
        return "network"
    if address == "-":
        return "pipe"
    with contextlib.suppress(OSError):
        mode = os.stat(address).st_mode  # noqa: PTH116
        if stat.S_ISCHR(mode):
            return "camera"
        if stat.S_ISFIFO(mode):
            return "pipe"
    if address.startswith("/dev/"):
        return "camera"
    if settings.realtime and settings.follow:
        raise UsageError("--realtime and --follow exclude each other", remedy="leave one out")
    return "growing" if settings.follow else "paced" if settings.realtime else "file"


def shown_address(address: str) -> str:
    """Return what a source is called: a file's name, or a URL without what it keeps secret.

    >>> shown_address("rtsp://me:secret@10.0.0.7:554/cam?channel=1&token=abc")
    'rtsp://***@10.0.0.7:554/cam?channel=1&token=***'
    """
    if "://" not in address:
        return "stdin" if address == "-" else Path(address).name or address
    # Up to the last @: passwords hold all signs, and too much hidden is better than too little.
    shown = re.sub(r"(?<=://).*@", "***@", address)
    return _SECRET.sub(r"\1=***", shown)


@contextlib.contextmanager
def open_source(
    source: Source, settings: LiveSettings, stop: threading.Event
) -> Iterator[OpenSource]:
    """Open a source while the block runs.

    Args:
        source: what to open.
        settings: for how long a connection may be silent.
        stop: ends the waiting for a file to grow.

    Raises:
        VideoError: it cannot be opened, or holds no video.
    """
    if source.kind in {"file", "paced"}:
        with open_video(source.address, threads=1) as video:
            yield OpenSource(video.container, video.stream, video.frame_rate, video.duration)
        return
    with contextlib.ExitStack() as stack:
        try:
            container = _container(source, settings, stop, stack)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(
                f"cannot be opened ({reason(error)})",
                path=source.name,
                remedy="check the address, and that it plays",
            ) from error
        stack.callback(container.close)
        stream = video_stream(container, Path(source.name))
        # A decoder with several threads gives a frame only when it has got as many.
        stream.thread_type = "NONE"
        # RTSP says how long a recording is, and plays it at its pace all the same.
        on_server = source.address.lower().startswith("http")
        duration = stream_duration(container, stream) if on_server else None
        yield OpenSource(container, stream, stream_rate(stream), duration)


def _container(
    source: Source, settings: LiveSettings, stop: threading.Event, stack: contextlib.ExitStack
) -> av.container.InputContainer:
    if source.kind == "network":
        silence = max(1.0, settings.gap / settings.speed)
        # The scheme decides which of the options mean something.
        return av.open(
            source.address, options=dict(_OPTIONS), timeout=(_OPEN_SECONDS, silence), **LENIENT
        )
    if source.kind == "camera":
        return av.open(source.address, format="v4l2", **LENIENT)
    if source.kind == "pipe":
        return av.open(stack.enter_context(_Pipe(source.address)), **LENIENT)
    growing = stack.enter_context(_GrowingFile(Path(source.address), stop))
    return av.open(growing, options={"protocol_whitelist": "file"}, **LENIENT)


class _Pipe(contextlib.AbstractContextManager["_Pipe"]):
    """Standard input or a named pipe, read as it comes and without a way back."""

    def __init__(self, address: str) -> None:
        self._own = address != "-"
        self._file = os.open(address, os.O_RDONLY) if self._own else sys.stdin.fileno()
        self.name = ""

    def read(self, count: int) -> bytes:
        """Return what there is, at most ``count`` bytes; none at the end."""
        return os.read(self._file, count)

    def __exit__(self, *_: object) -> None:
        """Close a named pipe."""
        if self._own:
            os.close(self._file)


class _GrowingFile(contextlib.AbstractContextManager["_GrowingFile"]):
    """A file that another program writes to; it ends when it is removed, replaced or cut."""

    def __init__(self, path: Path, stop: threading.Event) -> None:
        self._path = path
        self._stop = stop
        self._file = io.FileIO(path)
        self._number = os.fstat(self._file.fileno()).st_ino
        self.name = path.name

    def read(self, count: int) -> bytes:
        """Return at most ``count`` bytes, as soon as there are some; none at the end."""
        while not self._stop.is_set():
            data = self._file.read(count)
            if data:
                return data
            try:
                status = self._path.stat()
            except OSError:
                break
            if status.st_ino != self._number or status.st_size < self._file.tell():
                break
            self._stop.wait(_POLL_SECONDS)
        return b""

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._file.close()
