"""The addresses of the server."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Field
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from vidkd import __version__
from vidkd.console import log
from vidkd.errors import VidkdError
from vidkd.recipe.serve import ServeSettings
from vidkd.serve.fetch import FetchError, check_url, fetch, last_part
from vidkd.serve.jobs import (
    DONE,
    FAILED,
    FETCHING,
    PAGE,
    QUEUED,
    RESULT,
    RUNNING,
    FullError,
    Job,
    Store,
    end,
    new_job,
)
from vidkd.serve.metrics import Metrics
from vidkd.serve.pool import Pool
from vidkd.serve.receive import RefusedError, receive, too_large
from vidkd.web import HEADERS, is_foreign, with_headers

TOKEN = "VIDKD_SERVE_TOKEN"
"""Environment variable; with it, every request but ``/healthz`` has to carry it."""
_STATIC = {"page.js": "text/javascript", "style.css": "text/css"}
_FETCHES = 4
_EXPIRY_SECONDS = 30.0
_DRAIN_BYTES, _DRAIN_SECONDS = 4_000_000, 2.0
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_DOCS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; worker-src blob:; frame-ancestors 'none'"
)


class JobState(BaseModel):
    """A video and what becomes of it."""

    id: str = Field(description="Of the job; who knows it sees and removes it.")
    name: str = Field(description="Of the video, without its ending.")
    state: Literal["fetching", "queued", "running", "done", "failed"]
    position: int | None = Field(None, description="How many jobs come before it; while queued.")
    progress: float = Field(description="Share of the work that is done, in [0, 1].")
    problem: str | None = Field(None, description="Why it failed.")
    created: float = Field(description="Seconds since 1970.")
    started: float | None = None
    ended: float | None = None
    duration: float | None = Field(None, description="Of the video in seconds, once it is known.")
    page: bool = Field(description="Whether the page is there.")


class Segment(BaseModel):
    """One action."""

    label: str
    score: float = Field(ge=0, le=1)
    segment: tuple[float, float] = Field(description="First and last second.")


class Result(BaseModel):
    """What `vidkd detect --json` prints."""

    results: dict[str, list[Segment]] = Field(description="By the name of the video.")


class Address(BaseModel):
    """A video to fetch."""

    url: str = Field(max_length=4000, description="http or https.")
    threshold: float | None = Field(None, ge=0, le=1)


class Health(BaseModel):
    """Whether the server works."""

    status: Literal["ok", "loading"]
    workers: int
    model: str


class Problem(BaseModel):
    """Why a request was not served."""

    detail: str


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "video/*": _BINARY,
            "application/octet-stream": _BINARY,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"video": {"type": "string", "format": "binary"}},
                    "required": ["video"],
                }
            },
            "application/json": {"schema": Address.model_json_schema()},
        },
    }
}
_WRONG: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The upload broke off, or is none"},
    408: {"model": Problem, "description": "The upload was too slow"},
    413: {"model": Problem, "description": "The video is too large"},
    503: {
        "model": Problem,
        "description": "The queue is full",
        "headers": {"Retry-After": {"schema": {"type": "integer"}}},
    },
    507: {"model": Problem, "description": "The disk is full"},
}
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such job"}}
_EARLY: dict[int | str, dict[str, Any]] = {
    **_MISSING,
    409: {"model": Problem, "description": "Not done yet, or failed"},
}


def application(
    settings: ServeSettings, store: Store, pool: Pool, metrics: Metrics, token: str | None
) -> ASGIApp:
    """Return the application.

    Args:
        settings: of the server.
        store: its jobs.
        pool: works on them.
        metrics: what it counts.
        token: that every request has to carry; None for none.
    """
    fetching: dict[str, asyncio.Task[None]] = {}
    slots = asyncio.Semaphore(_FETCHES)
    incoming = 0

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        expiry = asyncio.create_task(_expire(store))
        for job in list(store.jobs.values()):
            if job.state == FETCHING:
                begin_fetch(job)
        yield
        for task in [expiry, *fetching.values()]:
            task.cancel()
        await asyncio.gather(expiry, *fetching.values(), return_exceptions=True)

    app: FastAPI = FastAPIOffline(
        title="vidkd",
        version=__version__,
        summary="Finds actions in videos.",
        description=f"The model knows {len(pool.classes)} actions. Send a video to `/jobs`, ask how"
        " far it is, and get its actions.",
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        responses={401: {"model": Problem, "description": "The token is missing"}} if token else {},
    )

    def room() -> None:
        """Refuse a video that would have to wait behind too many."""
        if pool.waiting + len(fetching) + incoming >= settings.queue:
            metrics.refused.labels("queue").inc()
            raise RefusedError(503, "too many videos wait; try again later", pool.pause())

    def find(name: str) -> Job:
        job = store.jobs.get(name)
        if job is None:
            raise HTTPException(404, "there is no such job")
        return job

    def state(job: Job) -> JobState:
        fields = {key: getattr(job, key) for key in JobState.model_fields if hasattr(job, key)}
        position = pool.position(job) if job.state == QUEUED else None
        return JobState(**{**fields, "position": position})

    def begin_fetch(job: Job) -> None:
        task = asyncio.create_task(fetch_video(job))
        fetching[job.id] = task
        task.add_done_callback(lambda _: fetching.pop(job.id, None))

    async def fetch_video(job: Job) -> None:
        def download() -> int:
            with store.video(job).open("wb") as stream:
                return fetch(
                    str(job.url),
                    stream,
                    largest=settings.largest,
                    seconds=settings.max_work * 60,
                    private=settings.private_urls,
                    stopped=lambda: job.id not in store.jobs or closing.is_set(),
                )

        closing = asyncio.Event()
        try:
            async with slots:
                if store.used + settings.largest > settings.max_disk * 1e9:
                    raise FetchError("the disk that this server may use is full")
                job.bytes = await asyncio.to_thread(download)
            metrics.received.inc(job.bytes)
            if job.id in store.jobs:
                pool.add(job)
        except asyncio.CancelledError:
            closing.set()  # the next server begins it anew
            raise
        except (FetchError, OSError, VidkdError) as error:
            if job.id in store.jobs:
                store.video(job).unlink(missing_ok=True)
                end(job, str(error) if isinstance(error, FetchError) else "the disk is full")
                metrics.finished.labels(FAILED).inc()
                with contextlib.suppress(VidkdError):
                    store.save(job)

    async def take_address(request: Request, threshold: float | None) -> Job:
        if not settings.urls:
            raise RefusedError(403, "this server takes no addresses; send the video")
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > 10_000:
                raise RefusedError(413, "this is more than an address")
        try:
            asked = Address.model_validate_json(body)
            check_url(asked.url)
        except ValueError as error:
            raise RefusedError(422, 'the body has to be {"url": "https://..."}') from error
        except FetchError as error:
            raise RefusedError(422, str(error)) from error
        limit = threshold if asked.threshold is None else asked.threshold
        job = new_job(last_part(asked.url), FETCHING, limit, asked.url)
        store.folder(job).mkdir(mode=0o700)
        store.save(job)
        begin_fetch(job)
        return job

    async def take_video(request: Request, name: str, threshold: float | None) -> Job:
        size = int(request.headers.get("content-length") or settings.largest)
        if size > settings.largest + 100_000:
            raise too_large(settings.largest)
        job = new_job(name, QUEUED, threshold)
        called = {"name": name}

        def named(text: str) -> None:
            called.setdefault("form", text)

        with store.incoming(job, min(size, settings.largest)) as stream:
            job.bytes = await receive(request, stream, settings.largest, named)
        if not name and (form := called.get("form")):
            own = new_job(form, QUEUED, threshold)
            store.video(job).rename(store.folder(job) / own.file)
            job.name, job.file = own.name, own.file
        metrics.received.inc(job.bytes)
        pool.add(job)
        return job

    @app.post(
        "/jobs",
        status_code=202,
        response_model=JobState,
        responses={**_WRONG, 403: {"model": Problem, "description": "Addresses are not taken"}},
        openapi_extra=_BODY,
        summary="Send a video",
        tags=["Videos"],
    )
    async def submit(
        request: Request,
        response: Response,
        name: Annotated[
            str, Query(max_length=300, description="What the video is called, with its ending.")
        ] = "",
        threshold: Annotated[
            float | None,
            Query(ge=0, le=1, description="Lowest score of an action. Default: the model's."),
        ] = None,
    ) -> JobState:
        """Take a video as the body, as the first file of a form, or as an address in JSON."""
        nonlocal incoming
        try:
            room()
            incoming += 1
            try:
                if request.headers.get("content-type", "").startswith("application/json"):
                    job = await take_address(request, threshold)
                else:
                    job = await take_video(request, name, threshold)
            finally:
                incoming -= 1
        except FullError as error:
            metrics.refused.labels("disk").inc()
            await _drain(request)
            raise HTTPException(507, str(error), {"Connection": "close"}) from error
        except RefusedError as error:
            if error.status != 503:
                metrics.refused.labels(str(error.status)).inc()
            await _drain(request)
            headers = {"Connection": "close"}
            if error.pause is not None:
                headers["Retry-After"] = str(error.pause)
            raise HTTPException(error.status, error.reason, headers) from error
        response.headers["Location"] = f"/jobs/{job.id}"
        return state(job)

    @app.get(
        "/jobs/{id}",
        response_model=JobState,
        responses=_MISSING,
        summary="See how far it is",
        tags=["Videos"],
    )
    async def look(id: str) -> JobState:
        return state(find(id))

    def finished(job: Job) -> None:
        if job.state == FAILED:
            raise HTTPException(409, f"it failed: {job.problem}")
        if job.state != DONE:
            raise HTTPException(409, "it is not done yet", {"Retry-After": "2"})

    @app.get(
        "/jobs/{id}/result",
        response_model=Result,
        responses=_EARLY,
        summary="Get its actions",
        tags=["Videos"],
    )
    async def result(id: str) -> Response:
        job = find(id)
        finished(job)
        return FileResponse(store.folder(job) / RESULT, media_type="application/json")

    @app.get(
        "/jobs/{id}/page",
        response_class=Response,
        responses={**_EARLY, 200: {"content": {"text/html": {}}}},
        summary="Get the page that plays it above its actions",
        tags=["Videos"],
    )
    async def page(id: str) -> Response:
        job = find(id)
        finished(job)
        if not job.page:
            raise HTTPException(409, "there is no page, or not yet", {"Retry-After": "2"})
        return FileResponse(store.folder(job) / PAGE, media_type="text/html")

    @app.get("/jobs/{id}/{media}", include_in_schema=False)
    async def media(id: str, media: str) -> Response:
        job = find(id)
        path = store.folder(job) / media
        # The name is compared with the two that there can be, and never looked up as a path.
        if media not in {job.file, "page.mp4"} or not path.is_file():
            raise HTTPException(404, "there is no such thing here")
        kind = "video/webm" if media.endswith(".webm") else "video/mp4"
        return FileResponse(path, media_type=kind)

    @app.delete(
        "/jobs/{id}",
        status_code=204,
        responses=_MISSING,
        summary="Stop and remove it",
        tags=["Videos"],
    )
    async def remove(id: str) -> Response:
        job = find(id)
        if (task := fetching.get(id)) is not None:
            store.jobs.pop(id, None)
            await asyncio.wait({task}, timeout=30)
        await pool.remove(job)
        return Response(status_code=204)

    @app.get(
        "/healthz",
        response_model=Health,
        responses={503: {"model": Health, "description": "No worker is ready"}},
        summary="See whether it works",
        tags=["Server"],
    )
    async def health() -> Response:
        status = "ok" if pool.ready else "loading"
        content = {"status": status, "workers": pool.ready, "model": pool.model}
        return JSONResponse(content, 200 if pool.ready else 503)

    @app.get(
        "/metrics",
        response_class=Response,
        summary="Read its counters (Prometheus)",
        tags=["Server"],
    )
    async def counters() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/about", include_in_schema=False)
    async def about() -> dict[str, Any]:
        return {
            "model": pool.model,
            "classes": pool.classes,
            "largest": settings.largest,
            "minutes": settings.max_duration,
            "urls": settings.urls,
            "pages": settings.pages,
        }

    def static(name: str, kind: str) -> Callable[[], Any]:
        async def get() -> Response:
            return Response(_read(name), media_type=kind)

        return get

    for name, kind in {"index.html": "text/html", **_STATIC}.items():
        address = "/" if name == "index.html" else f"/{name}"
        app.get(address, include_in_schema=False)(static(name, kind))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        log(f"error: {request.method} {request.url.path}: {error!r}")
        return JSONResponse({"detail": "an error of the server"}, 500)

    for state_name in (FETCHING, QUEUED, RUNNING):
        metrics.watch(
            f"jobs_{state_name}",
            f"Jobs that are {state_name}.",
            lambda own=state_name: sum(job.state == own for job in store.jobs.values()),  # type: ignore[misc]
        )
    metrics.watch("jobs_incoming", "Videos on their way here.", lambda: incoming)
    metrics.watch("workers_ready", "Workers that are ready.", lambda: pool.ready)
    metrics.watch("disk_bytes", "Bytes of all jobs.", lambda: store.used)
    local = settings.host in {"127.0.0.1", "localhost", "::1"}
    return Guard(app, token, local)


async def _expire(store: Store) -> None:
    while True:
        store.expire(time.time())
        await asyncio.sleep(_EXPIRY_SECONDS)


async def _drain(request: Request) -> None:
    """Read a little of what still comes: some clients listen only when they have sent all."""
    received = 0
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for piece in request.stream():
                received += len(piece)
                if received > _DRAIN_BYTES:
                    return


def _read(name: str) -> str:
    return (files("vidkd.serve") / "static" / name).read_text(encoding="utf-8")


class Guard:
    """Asks for the token, and refuses what pages from elsewhere make a browser send.

    Args:
        app: what is guarded.
        token: None for none.
        local: only names by which this machine calls itself are its own.
    """

    def __init__(self, app: ASGIApp, token: str | None, local: bool) -> None:
        self._app, self._token, self._local = app, token, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        headers, path = request.headers, request.url.path
        if is_foreign(request, local=self._local, linked=True):
            answer = JSONResponse({"detail": "this server answers its own page only"}, 403)
            await answer(scope, receive, send)
            return
        if self._token is not None and path != "/healthz" and not self._known(headers):
            answer = JSONResponse(
                {"detail": "the token is missing or wrong"},
                401,
                {"WWW-Authenticate": 'Basic realm="vidkd"', "Connection": "close"},
            )
            await answer(scope, receive, send)
            return
        docs = path.startswith(("/docs", "/static-offline-docs"))
        result = path.startswith("/jobs/")  # whose page says itself what it may
        policy = {} if result else {"Content-Security-Policy": _DOCS_POLICY if docs else _POLICY}
        kept = {} if docs else {"Cache-Control": "no-store"}
        await self._app(scope, receive, with_headers(send, {**HEADERS, **policy, **kept}))

    def _known(self, headers: Any) -> bool:
        """Return whether the token came, as that of a program or as the password of a browser."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                given = b64decode(given, validate=True).decode().partition(":")[2]
            except ValueError:
                return False
        elif kind.lower() != "bearer":
            return False
        assert self._token is not None
        return hmac.compare_digest(given.strip().encode(), self._token.encode())
