"""A camera for tests: an HTTP server that sends a transport stream at its pace, and cuts it off."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PACKET = 188


class Camera:
    """Sends a recording without saying how long it is.

    Args:
        path: an MPEG transport stream.
        seconds: how long one sending of the whole takes.
        cuts: shares of the recording after which the connection is closed, one a connection; the
            next connection goes on from there, and begins at a packet of its own.

    Attributes:
        connections: how many there were.
    """

    def __init__(self, path: Path, seconds: float, cuts: tuple[float, ...] = ()) -> None:
        self.data = path.read_bytes()
        self.seconds = seconds
        self.ends = [*(int(c * len(self.data)) // PACKET * PACKET for c in cuts), len(self.data)]
        self.begin = 0
        self.connections = 0

    def send(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        if not self.ends:
            handler.send_error(404)
            return
        self.connections += 1
        end = self.ends.pop(0)
        handler.send_response(200)
        handler.send_header("Content-Type", "video/mp2t")
        handler.end_headers()
        position, start = self.begin, time.monotonic()
        self.begin = end
        while position < end:
            handler.wfile.write(self.data[position : position + 7 * PACKET])
            due = self.seconds * (position + 7 * PACKET - self.begin) / len(self.data)
            position += 7 * PACKET
            time.sleep(max(0.0, start + due - time.monotonic()))


@contextmanager
def served(camera: Camera) -> Iterator[str]:
    """Give the address of a camera while the block runs."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):
                camera.send(self)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://me:secret@127.0.0.1:{server.server_port}/live.ts"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
