"""The server under load, and under clients that break off, lie, are slow, or kill it.

    python benchmarks/serve_load.py --model RUN [--clients 24] [--data DIR]

Everything is on loopback and takes about two minutes. The server is a real ``vidkd serve`` with a
short queue; the videos are two seconds of moving noise. One line is printed for each trial.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from vidkd.video import VideoWriter

QUEUE = 8


class Server:
    """One server, which can be killed and started again."""

    def __init__(self, data: Path, model: str | None) -> None:
        self.data = data
        self._command = [sys.executable, "-m", "vidkd", "serve", "--port", "0", "--data", str(data)]
        self._command += ["--queue", str(QUEUE), *(["--model", model] if model else [])]
        self.start()

    def start(self) -> None:
        """Start it, and return when it listens."""
        self.process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = next((own for own in self.process.stderr if own.startswith("serving ")), None)
        if line is None:
            raise SystemExit("the server did not start; run the command by hand")
        self.port = int(line.strip().rstrip("/").rpartition(":")[2])
        # Whatever it says has to be read, or it waits for us.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any, str | None]:
        """Return status, JSON and Retry-After of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            connection.request(method, path, body)
            answer = connection.getresponse()
            content = answer.read()
            found = json.loads(content) if content[:1] in {b"{", b"["} else None
            return answer.status, found, answer.getheader("Retry-After")

    def finish(self, job: str) -> str:
        """Wait for a job, whatever happens to the server, and return how it ended."""
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                state = str(self.ask("GET", f"/jobs/{job}")[1]["state"])
                if state in {"done", "failed"}:
                    return state
            time.sleep(0.3)

    def worker(self) -> int:
        """Return the process that works."""
        while True:
            path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            for child in path.read_text().split():
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
            time.sleep(0.1)

    def open(self, text: str, body: bytes = b"") -> socket.socket:
        """Open a connection and send the beginning of a request."""
        own = socket.create_connection(("127.0.0.1", self.port), timeout=120)
        own.sendall(text.replace("\n", "\r\n").encode() + body)
        return own

    def files(self) -> int:
        """Return how many files and connections it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def memory(self) -> float:
        """Return the megabytes of the server itself, without its workers."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1000

    def folders(self) -> set[str]:
        """Return the jobs that are on disk."""
        return {item.name for item in (self.data / "jobs").iterdir()}


def make_video(path: Path) -> bytes:
    """Write two seconds of moving noise and return the file."""
    picture = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    with VideoWriter(path, 160, 120, 16) as writer:
        for shift in range(32):
            writer.write(np.roll(picture, shift, axis=1))
    return path.read_bytes()


def many_clients(server: Server, video: bytes, clients: int) -> str:
    """All send at once; who is refused comes again when it was told to."""
    answers: Counter[int] = Counter()
    delays: list[float] = []
    ended = threading.Event()

    def client(number: int) -> str:
        while True:
            status, found, pause = server.ask("POST", f"/jobs?name={number}.mp4", video)
            answers[status] += 1
            if status == 202:
                return server.finish(found["id"])
            time.sleep(float(pause or 1))

    def watch() -> None:
        while not ended.wait(0.1):
            begun = time.perf_counter()
            server.ask("GET", "/healthz")
            delays.append(time.perf_counter() - begun)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        states = Counter(pool.map(client, range(clients)))
    seconds = time.perf_counter() - begun
    ended.set()
    watcher.join()
    middle, last = np.quantile(delays, (0.5, 0.99)) * 1000
    return (
        f"{dict(states)} in {seconds:.0f} s; answered 202: {answers[202]}, 503: {answers[503]}; "
        f"/healthz meanwhile: median {middle:.0f} ms, 99 % {last:.0f} ms"
    )


def broken_uploads(server: Server, video: bytes, count: int) -> str:
    """Connections that are reset in the middle of a body, or promised more than came."""
    before = server.folders()
    head = "POST /jobs HTTP/1.1\nHost: localhost\nContent-Length: {}\n\n"

    def client(number: int) -> None:
        own = server.open(head.format(len(video) * (1 + number % 3)), video[: len(video) // 2])
        if number % 2:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        own.close()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(client, range(count)))
    time.sleep(2)
    return f"{count} of them left {len(server.folders() - before)} folders behind"


def slow_clients(server: Server, video: bytes, count: int) -> str:
    """Connections that send nothing, a header for ever, or take nothing of an answer."""
    job = server.ask("POST", "/jobs?name=clip.mp4", video)[1]["id"]
    server.finish(job)
    os.truncate(server.data / "jobs" / job / "video.mp4", 100_000_000)
    texts = ("", "GET / HTTP/1.1\nX: ", f"GET /jobs/{job}/video.mp4 HTTP/1.1\nHost: localhost\n\n")
    before = server.files()
    held = [server.open(texts[number % 3]) for number in range(count)]
    time.sleep(1)
    most = server.files() - before
    begun = time.perf_counter()
    state = server.finish(server.ask("POST", "/jobs", video)[1]["id"])
    useful = time.perf_counter() - begun
    while server.files() > before + 3 and time.perf_counter() - begun < 90:
        time.sleep(0.5)
    for own in held:
        own.close()
    return (
        f"{count} held {most} files; a video beside them is {state} in {useful:.1f} s; all were "
        f"closed after {time.perf_counter() - begun:.0f} s"
    )


def no_videos(server: Server, video: bytes, count: int) -> str:
    """Noise, texts, and a video that was cut off."""
    junk = (
        os.urandom(50_000),
        b"text\n" * 1000,
        video[: len(video) // 3],
        b"#EXTM3U\n/etc/passwd\n",
    )
    states: Counter[str] = Counter()
    for number in range(count):
        states[server.finish(server.ask("POST", "/jobs", junk[number % 4])[1]["id"])] += 1
    return f"{dict(states)}; the worker is {'the same' if server.worker() else 'gone'}"


def killed_workers(server: Server, video: bytes, count: int) -> str:
    """The worker is killed while videos wait."""
    jobs = [server.ask("POST", "/jobs", video)[1]["id"] for _ in range(count + 1)]
    for _ in range(count):
        while not any(server.ask("GET", f"/jobs/{j}")[1]["state"] == "running" for j in jobs):
            time.sleep(0.02)
        os.kill(server.worker(), signal.SIGKILL)
        time.sleep(1)
    return f"{count} kills, {len(jobs)} videos: {dict(Counter(map(server.finish, jobs)))}"


def killed_server(server: Server, video: bytes, count: int) -> str:
    """The server is killed while videos wait, and started again."""
    jobs = [server.ask("POST", "/jobs", video)[1]["id"] for _ in range(count)]
    server.process.kill()
    server.process.wait()
    begun = time.perf_counter()
    server.start()
    started = time.perf_counter() - begun
    states = dict(Counter(map(server.finish, jobs)))
    return f"back after {started:.0f} s; {count} videos: {states}"


def main() -> None:
    """Run all trials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="run folder or weights; default: the classes of Kinetics")
    parser.add_argument("--clients", type=int, default=24, help="that send at once")
    parser.add_argument("--data", type=Path, help="folder of the jobs; default: a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = make_video(Path(folder) / "noise.mp4")
        server = Server(arguments.data or Path(folder) / "data", arguments.model)
        trials: dict[str, Callable[[], str]] = {
            "clients at once": lambda: many_clients(server, video, arguments.clients),
            "broken uploads": lambda: broken_uploads(server, video, 200),
            "slow clients": lambda: slow_clients(server, video, 90),
            "no videos": lambda: no_videos(server, video, 12),
            "kill -9 of the worker": lambda: killed_workers(server, video, 2),
            "kill -9 of the server": lambda: killed_server(server, video, 4),
        }
        try:
            for name, trial in trials.items():
                print(f"{name}: {trial()} ({server.memory():.0f} MB, {server.files()} files)")
        finally:
            server.process.terminate()
            print(f"terminated: exit code {server.process.wait(30)}")


if __name__ == "__main__":
    main()
