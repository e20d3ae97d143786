"""A project on a server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from pages import Site, make_project

from vidkd.view import application
from vidkd.view.playable import Playable


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A project on a server of its own."""
    project = make_project(tmp_path)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    app = application(project, Playable(tmp_path / "playable"))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield Site(tmp_path, project, f"http://127.0.0.1:{listener.getsockname()[1]}")
    server.should_exit = True
    thread.join()
    listener.close()
