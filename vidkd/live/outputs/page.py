"""A page with the live pictures, the events as they happen, and metrics, over HTTP."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Sequence
from importlib.resources import files
from typing import Any

import cv2
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from vidkd.console import log, without_nan
from vidkd.errors import UsageError
from vidkd.live.events import Event, LiveFrame
from vidkd.live.outputs.beside import Counts
from vidkd.live.outputs.metrics import Metrics
from vidkd.live.outputs.present import Painter, Present
from vidkd.live.statistics import Statistics
from vidkd.report.segments import colour_of
from vidkd.view.server import OnlyThisPage
from vidkd.web import address_of, listen

_STATIC = {
    "/": ("watch.html", "text/html"),
    "/watch.css": ("watch.css", "text/css"),
    "/watch.js": ("watch.js", "text/javascript"),
}
_PICTURE = 1280, 720
_PICTURE_SECONDS = 0.1
_VIEWERS = 32
_SCORES = 10
_SILENT_SECONDS = 30.0
_LOOKING_SECONDS = 5.0
_PATIENCE = 40
"""Times 50 ms: so long one who asks for a picture waits for the next."""
_BOUNDARY = "vidkd-picture"


class Page:
    """Serves ``/`` (for people), ``/events``, ``/metrics`` and ``/healthz``.

    Pictures are drawn and compressed when somebody looks at them, once for all who do, ten times a
    second at most.

    Args:
        address: where to listen: ``PORT`` or ``ADDRESS:PORT``; without an address on this machine
            only.
        statistics: of the engine.
        outputs: counts of the other outputs.

    Raises:
        UsageError: it is no such address.
        VidkdError: nothing can listen there.
    """

    def __init__(
        self, address: str, statistics: Statistics, outputs: Sequence[Counts] = ()
    ) -> None:
        self._statistics = statistics
        self._metrics = Metrics(statistics, outputs)
        self._present = Present()
        self._pictures: dict[str, _Picture] = {}
        self._colours: dict[str, str] = {}
        self._closing = False
        self._viewers = 0
        self._started = time.monotonic()
        self._looked = -math.inf
        self._run = secrets.token_hex(8)
        self._seen: dict[str, float] = {}
        self._listener = _listener(address)
        host, port = self._listener.getsockname()[:2]
        self.url = address_of(self._listener)
        log(f"http: the page is at {self.url}, metrics at {self.url}metrics")
        private = ipaddress.ip_address(host).is_loopback
        if not private:
            log(
                f"http: whoever reaches {host}:{port} sees the pictures and the events; there is no"
                " password and no encryption"
            )
        config = uvicorn.Config(
            self._application(private), log_level="warning", server_header=False, lifespan="off",
            timeout_graceful_shutdown=2, limit_concurrency=4 * _VIEWERS,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        sockets = [self._listener]
        self._thread = threading.Thread(
            target=self._server.run, args=(sockets,), name="http", daemon=True
        )
        self._thread.start()

    @property
    def wants_frames(self) -> bool:
        """Whether somebody has looked at a picture of late."""
        return time.monotonic() - self._looked < _LOOKING_SECONDS

    def frame(self, source: str, frame: LiveFrame) -> None:
        """Take a frame of a source."""
        self._seen[source] = time.monotonic()
        self._present.frame(source, frame)

    def event(self, event: Event) -> None:
        """Take an event."""
        self._metrics.event(event)
        self._present.event(event)

    def close(self) -> None:
        """End all connections."""
        self._closing = self._server.should_exit = True
        self._thread.join(5.0)
        self._listener.close()

    def _picture(self, request: Request) -> _Picture:
        number = request.path_params["number"]
        self._looked = time.monotonic()
        names = list(self._statistics.sources)
        if number >= len(names):
            raise LookupError
        return self._pictures.setdefault(names[number], _Picture(self._present, names[number]))

    def _application(self, private: bool) -> ASGIApp:
        async def static(request: Request) -> Response:
            name, kind = _STATIC[request.url.path]
            text = (files("vidkd.live.outputs") / "static" / name).read_text(encoding="utf-8")
            return Response(text, media_type=kind, headers={"Cache-Control": "no-cache"})

        async def now(request: Request) -> Response:
            try:
                since = int(request.query_params.get("since", "0"))
            except ValueError:
                since = 0
            told = self._present.since(since)
            events = [{"id": n, "colour": self._colour(x.label), **x.to_json()} for n, x in told]
            state = {"sources": self._state(), "events": events, "run": self._run}
            return _json(without_nan(state))

        async def events(request: Request) -> Response:
            last = request.headers.get("last-event-id", "0")
            told = int(last) if last.isdecimal() and len(last) < 16 else 0
            return self._stream(self._tell(told), "text/event-stream")

        async def film(request: Request) -> Response:
            kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
            return self._stream(self._show(self._picture(request)), kind)

        async def picture(request: Request) -> Response:
            wanted = self._picture(request)
            for _ in range(_PATIENCE):
                _, content = await run_in_threadpool(wanted.newest)
                if wanted.fresh:
                    break
                await asyncio.sleep(0.05)
            if not content:
                raise LookupError
            return Response(content, media_type="image/jpeg", headers={"Cache-Control": "no-store"})

        async def metrics(request: Request) -> Response:
            return Response(self._metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

        async def health(request: Request) -> Response:
            silent = {name: self._silence(name) for name in self._statistics.sources}
            healthy = all(seconds < _SILENT_SECONDS for seconds in silent.values())
            return _json(
                {"healthy": healthy, "seconds_without_frame": silent}, 200 if healthy else 503
            )

        async def missing(request: Request, error: Exception) -> Response:
            return _json({"error": "there is no such thing here"}, 404)

        routes = [
            *(Route(path, static) for path in _STATIC),
            Route("/api/now", now),
            Route("/events", events),
            Route("/live/{number:int}.mjpg", film),
            Route("/live/{number:int}.jpg", picture),
            Route("/metrics", metrics),
            Route("/healthz", health),
        ]
        app = Starlette(routes=routes, exception_handlers={LookupError: missing})
        return OnlyThisPage(app, any_host=not private)

    def _colour(self, label: str) -> str:
        """Return the colour of a class, which is that of the overlay."""
        if not self._colours:
            frames = list(self._present.frames.values())
            self._colours = colour_of(
                max((list(frame.scores) for frame in frames), key=len, default=[])
            )
        return self._colours.get(label, "#8c93a0")

    def _silence(self, source: str) -> float:
        return round(time.monotonic() - self._seen.get(source, self._started), 1)

    def _state(self) -> list[dict[str, Any]]:
        found = []
        for number, name in enumerate(self._statistics.sources):
            frame = self._present.frames.get(name)
            scores = {} if frame is None else frame.scores
            best = set(sorted(scores, key=lambda label: -scores[label])[:_SCORES])
            counts = self._statistics.sources[name]
            found.append(
                {
                    "number": number,
                    "source": name,
                    "time": None if frame is None else frame.time,
                    "silent": self._silence(name),
                    "scores": [[x, float(scores[x]), self._colour(x)] for x in scores if x in best],
                    "open": [event.to_json() for event in self._present.open(name)],
                    **counts.to_json(),
                }
            )
        return found

    def _stream(self, content: AsyncIterator[bytes], kind: str) -> Response:
        if self._viewers >= _VIEWERS:
            return _json({"error": "too many are looking"}, 503)

        async def counted() -> AsyncIterator[bytes]:
            self._viewers += 1
            try:
                async for part in content:
                    yield part
            finally:
                self._viewers -= 1

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(counted(), headers={**headers, "Content-Type": kind})

    async def _tell(self, told: int) -> AsyncIterator[bytes]:
        """Yield server-sent events: those that are kept, then what comes."""
        yield b"retry: 2000\n\n"
        spoken = time.monotonic()
        while not self._closing:
            if new := self._present.since(told):
                told, spoken = new[-1][0], time.monotonic()
                lines = (f"id: {n}\ndata: {json.dumps(event.to_json())}\n\n" for n, event in new)
                yield "".join(lines).encode()
            if time.monotonic() - spoken > 15:
                spoken = time.monotonic()
                yield b": nothing new\n\n"
            await asyncio.sleep(0.05)

    async def _show(self, picture: _Picture) -> AsyncIterator[bytes]:
        """Yield the parts of a film of JPEG pictures; one who is slow misses some."""
        shown = 0
        while not self._closing:
            self._looked = time.monotonic()
            number, content = await run_in_threadpool(picture.newest)
            if number != shown:
                shown = number
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\n"
                yield f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content + b"\r\n"
            await asyncio.sleep(0.04)


class _Picture:
    """The last picture of a source as JPEG."""

    def __init__(self, present: Present, source: str) -> None:
        self._present, self._source = present, source
        self._painter = Painter(present, source, 0, fill=False)
        self._lock = threading.Lock()
        self._number = 0
        self._content = b""
        self._made = 0.0

    @property
    def fresh(self) -> bool:
        """Whether the source's last frame came with a picture, since somebody looks."""
        frame = self._present.frames.get(self._source)
        return frame is not None and frame.image is not None

    def newest(self) -> tuple[int, bytes]:
        """Return the number and the content of the last picture; 0 if there is none yet."""
        with self._lock:
            if time.monotonic() - self._made >= _PICTURE_SECONDS:
                drawn = self._painter.draw(*_PICTURE)
                if drawn is not None:
                    quality = [cv2.IMWRITE_JPEG_QUALITY, 80]
                    content = cv2.imencode(".jpg", drawn[..., ::-1], quality)[1]
                    self._number, self._content = self._number + 1, content.tobytes()
                    self._made = time.monotonic()
            return self._number, self._content


def _json(content: Any, status: int = 200) -> Response:
    return JSONResponse(content, status, headers={"Cache-Control": "no-store"})


def _listener(address: str) -> socket.socket:
    """Return a socket that listens at ``PORT`` or ``ADDRESS:PORT``."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal() or int(port) > 65535:
        raise UsageError(
            f"--http {address} is not where a server can listen",
            remedy="give a port such as 8080, or ADDRESS:PORT such as 0.0.0.0:8080",
        )
    remedy = "give --http an address of this machine and a free port; 0 takes any"
    listener = listen(host, int(port), remedy)
    listener.listen(128)
    return listener
