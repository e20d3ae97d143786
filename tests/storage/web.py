"""A web server of a folder, with or without ranges, lengths, a password and a signature."""

from __future__ import annotations

import base64
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


class Web:
    """Serves a folder on this machine.

    Args:
        folder: what is served; folders are pages of links.
        ranges: give parts of files that are asked for.
        lengths: say how long files are.
        user: ``USER:PASSWORD`` that is asked for.
        query: what must follow the question mark.

    Attributes:
        address: ``http://127.0.0.1:PORT``.
        sent: bytes of files sent.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ranges: bool = True,
        lengths: bool = True,
        user: str = "",
        query: str = "",
    ) -> None:
        self.sent = 0
        web = self
        password = "Basic " + base64.b64encode(user.encode()).decode()

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=str(folder))

            def log_message(self, *args: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, body: bool) -> None:
                if user and self.headers["Authorization"] != password:
                    self.send_error(401)
                    return
                if query and urlsplit(self.path).query != query:
                    self.send_error(403)
                    return
                path = Path(self.translate_path(self.path))
                if not path.is_file():
                    super().do_GET() if body else super().do_HEAD()
                    return
                data, found = path.read_bytes(), None
                if ranges:
                    found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "")
                if found:
                    start, end = int(found[1]), min(int(found[2]) + 1, len(data))
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
                    data = data[start:end]
                else:
                    self.send_response(200)
                if lengths:
                    self.send_header("Content-Length", str(len(data)))
                self.send_header("Content-Type", "application/octet-stream")
                self.end_headers()
                if body:
                    web.sent += len(data)
                    self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
