"""``vidkd serve`` with workers that cost nothing, or with a small encoder in the place of I3D.

The content of an upload says what a light worker does with it: ``sleep SECONDS``, ``crash``,
``crash-once``, ``fail``; whatever else is done at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

from vidkd.files import write_json
from vidkd.serve import worker
from vidkd.serve.worker import WorkerSpec

REAL = worker.work


def tell(connection: Connection, **message: object) -> None:
    connection.send_bytes(json.dumps(message).encode())


def light(connection: Connection, spec: WorkerSpec, device: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=worker._end_with_parent, daemon=True).start()
    tell(connection, event="ready", classes=["walk", "run"], name="light")
    while True:
        asked = json.loads(connection.recv_bytes())
        if "job" not in asked:
            continue
        path = Path(asked["video"])
        action, *rest = path.read_bytes()[:100].decode("ascii", "replace").split()
        marker = path.with_name("crashed")
        if action == "crash" or (action == "crash-once" and not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "fail":
            tell(connection, event="failed", problem="the video is none")
            continue
        until = time.monotonic() + (float(rest[0]) if action == "sleep" else 0)
        cancelled = False
        while time.monotonic() < until and not cancelled:
            time.sleep(0.02)
            cancelled = connection.poll() and "cancel" in json.loads(connection.recv_bytes())
        if cancelled:
            tell(connection, event="cancelled")
            continue
        found = [{"label": "walk", "score": 0.5, "segment": [0.0, 1.0]}]
        write_json(path.with_name("result.json"), {"results": {asked["name"]: found}})
        tell(connection, event="found", duration=1.0)
        tell(connection, event="done", page=False)


def small(connection: Connection, spec: WorkerSpec, device: str) -> None:
    """The real worker, with an encoder that sees how bright a picture is."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "detection"))
    from brightness import BrightnessEncoder

    from vidkd.detection import scorers
    from vidkd.streams import Stream

    card = BrightnessEncoder().card
    with (
        mock.patch.object(scorers, "zoo_card", return_value=card),
        mock.patch.object(Stream, "fetch_encoder"),
        mock.patch.object(Stream, "load_encoder", return_value=BrightnessEncoder()),
    ):
        REAL(connection, spec, device)


if __name__ == "__main__":
    from vidkd.cli import main
    from vidkd.serve import pool, receive, server

    kind = sys.argv.pop(1)
    pool.work = {"light": light, "small": small}[kind]
    server._places = lambda device, workers: ["cpu"] * (workers or 1)
    server._HEADER_SECONDS = server._STALL_SECONDS = receive.SILENCE_SECONDS = 1.0
    server._WATCH_SECONDS = 0.1
    sys.argv[0] = "vidkd"
    main()
