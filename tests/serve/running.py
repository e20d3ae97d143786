"""A server of the tests, in a process of its own, and requests to it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Running:
    """A server until it is stopped.

    Args:
        data: its folder.
        arguments: of ``vidkd serve``.
        kind: of its workers; see ``light_server``.
        environment: beside that of the tests.
    """

    def __init__(self, data: Path, *arguments: object, kind: str = "light", **environment: str):
        self.data, self.token = data, environment.get("VIDKD_SERVE_TOKEN")
        given = [str(item) for item in ("--port", 0, "--data", data, *arguments)]
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("light_server.py"), kind, "serve", *given],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.said: list[str] = []
        assert self.process.stderr is not None
        self.port = 0
        for line in self.process.stderr:
            self.said.append(line.rstrip())
            if line.startswith("serving "):
                self.port = int(line.rstrip().rstrip("/").rpartition(":")[2])
                break

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Make one request."""
        given = {**({"Authorization": f"Bearer {self.token}"} if self.token else {})}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, given | (headers or {}))
            answer = connection.getresponse()
            found = {key.lower(): value for key, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def send(self, content: bytes, name: str = "clip.mp4") -> str:
        """Send a video and return the id of its job."""
        answer = self.ask("POST", f"/jobs?name={name}", content)
        assert answer.status == 202, answer
        assert answer.headers["location"] == f"/jobs/{answer.json['id']}"
        return str(answer.json["id"])

    def state(self, job: str) -> dict[str, Any]:
        """Return the state of a job."""
        found: dict[str, Any] = self.ask("GET", f"/jobs/{job}").json
        return found

    def until(self, job: str, *states: str) -> dict[str, Any]:
        """Wait until a job is in one of some states; by default until it is finished."""
        wanted = states or ("done", "failed")
        return eventually(lambda: (s := self.state(job))["state"] in wanted and s)

    def workers(self) -> list[int]:
        """Return the processes that the server has started."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        children = [int(item) for item in path.read_text().split()]
        return [
            child
            for child in children
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the server and return its exit code."""
        self.process.send_signal(how)
        code = self.process.wait(30)
        assert self.process.stderr is not None
        self.said += self.process.stderr.read().splitlines()
        return code

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.stop(signal.SIGKILL)


def eventually(found: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Return what a function returns as soon as that is true."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def is_alive(pid: int) -> bool:
    """Return whether a process runs."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
