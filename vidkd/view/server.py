"""The server of the page: on this machine only, for this page only, and only the named files."""

from __future__ import annotations

import json
import webbrowser
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from vidkd.console import log
from vidkd.errors import VidkdError
from vidkd.view.labels import StaleError
from vidkd.view.playable import Playable, Stills
from vidkd.view.project import Project
from vidkd.web import HEADERS, address_of, is_foreign, listen, with_headers

STATIC = {
    "": ("index.html", "text/html"),
    "style.css": ("style.css", "text/css"),
    "app.js": ("app.js", "text/javascript"),
    "timeline.js": ("timeline.js", "text/javascript"),
    "regroup.js": ("regroup.js", "text/javascript"),
    "edits.js": ("edits.js", "text/javascript"),
    "source.js": ("source.js", "text/javascript"),
}
"""Addresses of the page's own files, and their types."""
_LARGEST_CHANGE = 16 << 20
_HEADERS = HEADERS | {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; media-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def read_static(name: str) -> str:
    """Return one of the page's own files."""
    return (files("vidkd.view") / "static" / name).read_text(encoding="utf-8")


class OnlyThisPage:
    """Refuses requests that other pages make, and names of this machine that are not its own.

    Args:
        app: what answers the others.
        any_host: whether it may be asked for by any name; for a server that others may see.
    """

    def __init__(self, app: ASGIApp, any_host: bool = False) -> None:
        self._app = app
        self._any_host = any_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if is_foreign(request, local=not self._any_host, linked=request.url.path == "/"):
            await _refused(403, "this server answers its own page only")(scope, receive, send)
        else:
            await self._app(scope, receive, with_headers(send, _HEADERS))


def application(project: Project, playable: Playable | None = None) -> ASGIApp:
    """Return the application that serves a project.

    Every video is asked for by its number, so that no address holds a path.
    """
    playable = playable or Playable()
    stills = Stills()

    async def static(request: Request) -> Response:
        name, kind = STATIC[request.path_params.get("name", "")]
        return Response(read_static(name), media_type=kind, headers={"Cache-Control": "no-cache"})

    async def index(request: Request) -> Response:
        return _json(await run_in_threadpool(project.index))

    async def video(request: Request) -> Response:
        return _json(await run_in_threadpool(project.video, _number(request)))

    async def scores(request: Request) -> Response:
        model = request.path_params["model"]
        if model >= len(project.models):
            raise LookupError
        content = await run_in_threadpool(project.scores, _number(request), model)
        if content is None:
            raise LookupError
        return Response(content, media_type="application/octet-stream")

    async def change(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return _refused(415, "a change is JSON")
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _LARGEST_CHANGE:
                return _refused(413, "a change is too large")
        number = _number(request)
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            return _refused(400, "a change is JSON")
        duration = content.get("duration") if isinstance(content, dict) else None
        duration = float(duration) if isinstance(duration, (int, float)) and duration > 0 else None
        revision = await run_in_threadpool(
            project.labels.change, project.ids[number], duration, content
        )
        return _json({"revision": revision})

    def _state(request: Request) -> dict[str, Any]:
        path = project.path(_number(request))
        if path is None:
            raise LookupError
        return playable.state(path)

    async def state(request: Request) -> Response:
        found = await run_in_threadpool(_state, request)
        return _json({key: value for key, value in found.items() if key != "path"})

    async def media(request: Request) -> Response:
        found = await run_in_threadpool(_state, request)
        if not found["ready"]:
            return _refused(409, "this video is being prepared")
        path = found["path"]
        kind = "video/webm" if path.suffix.lower() == ".webm" else "video/mp4"
        return FileResponse(path, media_type=kind, headers={"Cache-Control": "no-cache"})

    async def picture(request: Request) -> Response:
        path = project.path(_number(request))
        if path is None:
            raise LookupError
        try:
            second = max(0.0, float(request.query_params.get("t", "0")))
        except ValueError:
            second = float("nan")
        if not second < 1e7:
            return _refused(400, "t is a second")
        side = 480 if request.query_params.get("size") == "large" else 96
        content = await run_in_threadpool(stills.get, path, second, side)
        return Response(
            content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"}
        )

    def _number(request: Request) -> int:
        number: int = request.path_params["number"]
        if number >= len(project.ids):
            raise LookupError
        return number

    async def missing(request: Request, error: Exception) -> Response:
        return _refused(404, "there is no such thing here")

    async def failed(request: Request, error: Exception) -> Response:
        return _refused(409 if isinstance(error, StaleError) else 400, str(error))

    app = Starlette(
        routes=[
            Route("/", static),
            *(Route(f"/{name}", _named(static, name)) for name in STATIC if name),
            Route("/api/index", index),
            Route("/api/video/{number:int}", video),
            Route("/api/video/{number:int}/scores/{model:int}", scores),
            Route("/api/video/{number:int}/labels", change, methods=["PUT"]),
            Route("/api/video/{number:int}/state", state),
            Route("/api/video/{number:int}/media", media),
            Route("/api/video/{number:int}/picture", picture),
        ],
        exception_handlers={LookupError: missing, KeyError: missing, VidkdError: failed},
    )
    return OnlyThisPage(app)


def _named(handler: Any, name: str) -> Any:
    async def static(request: Request) -> Response:
        request.path_params["name"] = name
        response: Response = await handler(request)
        return response

    return static


def _json(content: Any) -> Response:
    return JSONResponse(content, headers={"Cache-Control": "no-store"})


def _refused(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status_code=status)


def serve(project: Project, port: int, *, browser: bool) -> None:
    """Serve a project at ``http://127.0.0.1:PORT`` until Ctrl-C.

    Args:
        project: what to show.
        port: 0 takes any that is free.
        browser: whether to open the page.

    Raises:
        VidkdError: the port is taken.
    """
    import uvicorn

    listener = listen("127.0.0.1", port, "give another --port, or --port 0 for any that is free")
    address = address_of(listener)
    log(f"the page is at {address}; corrections go to {project.labels.target}; Ctrl-C ends")
    if browser:
        webbrowser.open(address)
    server = uvicorn.Server(
        uvicorn.Config(
            application(project), log_level="warning", server_header=False, lifespan="off"
        )
    )
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        listener.close()
