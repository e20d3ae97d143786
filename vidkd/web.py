"""What the servers have in common: where they listen, and whom they do not answer."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.types import Send

from vidkd.errors import VidkdError

HOSTS = {"127.0.0.1", "localhost", "[::1]"}
"""Names by which a machine calls itself."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer."""


def listen(host: str, port: int, remedy: str) -> socket.socket:
    """Return a socket that is bound to a port of this machine; port 0 takes any that is free.

    Raises:
        VidkdError: there is no such address, or the port is taken; ``remedy`` says what to do.
    """
    try:
        family, kind, _, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise VidkdError(
            f"nothing can listen at {host}, port {port} ({error.strerror})", remedy=remedy
        ) from error
    return listener


def address_of(listener: socket.socket) -> str:
    """Return what a browser is given to reach a socket, such as ``http://127.0.0.1:8765/``."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def is_foreign(request: Request, *, local: bool, linked: bool) -> bool:
    """Say whether a page from elsewhere makes a browser send a request.

    Such a page cannot send another ``Host`` than the one it was loaded from, even where that name
    was made to point to this machine (DNS rebinding).

    Args:
        request: in question.
        local: whether only names by which this machine calls itself are the server's own.
        linked: whether pages from elsewhere may link to what is asked for.
    """
    headers = request.headers
    host, origin = headers.get("host", "").lower(), headers.get("origin")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    navigates = headers.get("sec-fetch-mode") == "navigate" and request.method == "GET"
    return (
        (local and name not in HOSTS)
        or (origin is not None and origin.partition("://")[2].lower() != host)
        or (
            headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}
            and not (linked and navigates)
        )
    )


def with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    """Return what sends an answer with more headers."""
    extra = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def send_more(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await send(message)

    return send_more
