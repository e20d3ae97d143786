"""A proxy between a client and a server that breaks connections, stalls and answers errors.

It speaks HTTP/1.1 just enough for S3 clients: it relays each request on a connection of its own,
and a plan says what to do with it.
"""

from __future__ import annotations

import itertools
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from typing import Any

Plan = Callable[[int, str], str]
"""Takes the number of a request, from 0, and its method; returns what becomes of it: ``""`` (it is
relayed), ``"500"`` (an answer with this status), ``"refuse"`` (the connection ends unanswered),
``"cut"`` (half of the answer comes), ``"slow"`` (it comes in small parts), ``"half"`` (half of
what is sent gets through, then the connection ends) or ``"lost"`` (it is done, but the answer does
not come) or ``"stall"`` (half of what is sent gets through, and no more)."""


class FaultyProxy:
    """Relays requests to a server; see ``Plan``.

    Args:
        port: of the server, on this machine.
        plan: what becomes of each request.

    Attributes:
        address: of the proxy, as ``http://127.0.0.1:PORT``.
        seen: method, target and range of every request.
        head: first line of the last request.
        sent: bytes of answers that were sent to clients, headers included.
    """

    def __init__(self, port: int, plan: Plan = lambda number, method: "") -> None:
        self.port, self.plan = port, plan
        self.seen: list[tuple[str, str, str]] = []
        self.sent = 0
        self._numbers = itertools.count()
        self.head = ""
        proxy = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                try:
                    proxy._relay(self)
                except OSError:
                    return  # the client went away

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads, allow_reuse_address = True, True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> FaultyProxy:
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _relay(self, client: Any) -> None:
        head, headers = _head(client.rfile)
        if not head:
            return
        method, target, _ = head.split(" ", 2)
        self.head = head
        fault = self.plan(next(self._numbers), method)
        self.seen.append((method, target, headers.get("range", "")))
        if fault == "refuse":
            return
        if headers.get("expect"):
            client.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = client.rfile.read(int(headers.get("content-length", 0)))
        if fault.isdigit():
            answer = f"HTTP/1.1 {fault} Fault\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            client.wfile.write(answer.encode())
            return
        headers["connection"] = "close"
        headers.pop("expect", None)
        lines = [head, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        with socket.create_connection(("127.0.0.1", self.port)) as server:
            server.sendall("\r\n".join(lines).encode())
            server.sendall(body[: len(body) // 2] if fault in {"half", "stall"} else body)
            if fault == "half":
                return
            if fault == "stall":
                client.rfile.read(1)  # until the client goes away
                return
            with server.makefile("rb") as stream:
                answer_bytes = stream.read()
        if fault == "lost":
            return
        if fault == "cut":
            answer_bytes = answer_bytes[
                : answer_bytes.index(b"\r\n\r\n") + 4 + len(answer_bytes) // 2
            ]
            answer_bytes = answer_bytes[:-1]
        step = max(1, len(answer_bytes) // 20) if fault == "slow" else 1 << 16
        for start in range(0, len(answer_bytes), step):
            # Before: the client may be done with it at once.
            self.sent += len(answer_bytes[start : start + step])
            client.wfile.write(answer_bytes[start : start + step])
            if fault == "slow":
                time.sleep(0.02)


def _head(stream: Any) -> tuple[str, dict[str, str]]:
    head = stream.readline().decode("latin-1").strip()
    headers: dict[str, str] = {}
    while head and (line := stream.readline().decode("latin-1").strip()):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return head, headers
