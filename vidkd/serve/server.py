"""Running the server until it is told to end."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vidkd.console import log
from vidkd.errors import UsageError
from vidkd.hub import is_hub_name, resolved
from vidkd.machine import cores
from vidkd.recipe import Precision
from vidkd.recipe.serve import ServeSettings
from vidkd.serve.app import TOKEN, application
from vidkd.serve.jobs import Store
from vidkd.serve.metrics import Metrics
from vidkd.serve.pool import Pool
from vidkd.serve.worker import WorkerSpec, devices
from vidkd.web import address_of, listen

_HEADER_SECONDS = 15.0
"""So long a connection may be without a whole request."""
_STALL_SECONDS = 30.0
"""So long a client may take nothing of an answer."""
_WATCH_SECONDS = 2.0
_CLOSING_SECONDS = 5


class PatientProtocol(H11Protocol):
    """HTTP that closes connections which ask nothing, or take nothing of what they asked for.

    Slow bodies of requests are the business of `vidkd.serve.receive`.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._idle_since: float | None = None
        self._full_since: float | None = None
        self._watch()

    def _watch(self) -> None:
        now = self.loop.time()
        idle = self.cycle is None or self.cycle.response_complete
        self._idle_since = (self._idle_since or now) if idle else None
        if (self._idle_since and now - self._idle_since > _HEADER_SECONDS) or (
            self._full_since and now - self._full_since > _STALL_SECONDS
        ):
            self.transport.abort()
            return
        self._timer = self.loop.call_later(_WATCH_SECONDS, self._watch)

    def pause_writing(self) -> None:
        """Called when the client has taken less than was sent to it."""
        self._full_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Called when it has taken most of that."""
        self._full_since = None
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)


def serve(
    models: Sequence[str | Path],
    settings: ServeSettings,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    batch_size: int | None = None,
) -> None:
    """Serve a model until Ctrl-C or SIGTERM; what was not done then waits for the next start.

    Args:
        models: as for ``vidkd.detection.detector.Detector``.
        settings: of the server.
        device: ``auto`` and ``cuda`` use every GPU.
        precision: of the encoder.
        batch_size: snippets at a time.

    Raises:
        UsageError: there is no such device, or the token cannot be one.
        VidkdError: the model cannot be loaded, nothing can listen there, or the folder is taken.
    """
    token = os.environ.get(TOKEN)
    if token is not None and not (token.isascii() and token.isprintable() and token.strip()):
        raise UsageError(
            f"{TOKEN} holds characters that no header can carry", remedy="give another token"
        )
    folder = settings.data or _cache() / "vidkd" / "serve"
    store = Store(folder, settings.max_disk * 1e9, settings.keep * 3600)
    remedy = "give another --port, or --port 0 for any that is free; check --host"
    listener = listen(settings.host, settings.port, remedy)
    try:
        for model in filter(is_hub_name, models):
            resolved(model)  # once, and not in every worker
        places = _places(device, settings.workers)
        spec = WorkerSpec(
            tuple(map(str, models)),
            precision,
            batch_size,
            max(1, cores() // len(places)),
            settings.pages,
            settings.max_duration * 60,
        )
        asyncio.run(_run(settings, store, spec, places, token, listener))
    finally:
        listener.close()
        store.close()


async def _run(
    settings: ServeSettings,
    store: Store,
    spec: WorkerSpec,
    places: Sequence[str],
    token: str | None,
    listener: socket.socket,
) -> None:
    metrics = Metrics()
    pool = Pool(store, spec, places, settings.max_work * 60, metrics)
    try:
        await pool.start()
        listener.listen(1024)  # so that whoever reads the next line can connect
        log(f"serving {pool.model} ({len(pool.classes)} classes) at {address_of(listener)}")
        host = listener.getsockname()[0]
        if token is None and host not in {"127.0.0.1", "::1"}:
            log(f"warning: whoever reaches {host} may use it; set {TOKEN}")
        server = uvicorn.Server(
            uvicorn.Config(
                application(settings, store, pool, metrics, token),
                http=PatientProtocol,
                ws="none",
                log_level="critical",
                access_log=False,
                server_header=False,
                limit_concurrency=settings.connections,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=_CLOSING_SECONDS,
                h11_max_incomplete_event_size=16_384,
            )
        )
        # When it has ended, uvicorn raises the signal once more, and there is still work to do.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        await server.serve(sockets=[listener])
    finally:
        await pool.stop()
    left = pool.waiting
    log("stopped" + (f"; {left} videos wait for the next start" if left else ""))


def _places(device: str, workers: int | None) -> Sequence[str]:
    """Return the device of each worker, asked in another process: torch takes half a gigabyte."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as asked:
        return asked.submit(devices, device, workers).result()


def _cache() -> Path:
    chosen = os.environ.get("XDG_CACHE_HOME")
    return Path(chosen) if chosen else Path.home() / ".cache"
