"""The server as its clients see it: real processes, real connections, really killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from running import Running, eventually, is_alive


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with small limits."""
    data = tmp_path_factory.mktemp("data")
    with Running(data, "--queue", 3, "--max-upload", 2, "--max-work", 0.05) as running:
        yield running


def leftovers(running: Running) -> set[str]:
    """Return the folders of jobs that are on disk."""
    return {item.name for item in (running.data / "jobs").iterdir()}


def raw(running: Running, head: str, body: bytes = b"") -> socket.socket:
    """Open a connection and send what is no whole request."""
    own = socket.create_connection(("127.0.0.1", running.port), timeout=20)
    own.sendall(head.replace("\n", "\r\n").encode() + body)
    return own


def received(connection: socket.socket) -> int:
    """Return how many bytes come until the connection is closed or reset."""
    found = 0
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            found += len(piece)
    return found


def test_a_video_comes_as_body_in_pieces_or_in_a_form(server: Running) -> None:
    form = (
        b'--x\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
        b'--x\r\nContent-Disposition: form-data; name="video"; filename="../a b.webm"\r\n'
        b"Content-Type: video/webm\r\n\r\nsleep 0\r\n--y\r\n--x--\r\n"
    )
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    sent = [
        server.ask("POST", "/jobs?name=plain.mp4", b"sleep 0"),
        server.ask("POST", "/jobs?name=a%2Fb%5Cin-pieces", iter([b"sl", b"eep 0"])),
        server.ask("POST", "/jobs", form, kind),
    ]
    for answer, name, file in zip(
        sent, ("plain", "in-pieces", "a b"), ("video.mp4", "video.bin", "video.webm"), strict=True
    ):
        assert answer.status == 202, answer
        job = answer.json["id"]
        assert server.until(job)["state"] == "done"
        assert list(server.ask("GET", f"/jobs/{job}/result").json["results"]) == [name]
        content = b"sleep 0\r\n--y" if file.endswith("webm") else b"sleep 0"
        assert (server.data / "jobs" / job / file).read_bytes() == content


def test_what_is_no_upload_leaves_nothing(server: Running) -> None:
    before = leftovers(server)
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    large = b"x" * 2_100_001
    for arguments, status in (
        (("/jobs", b""), 400),
        (("/jobs", b"--x\r\nnothing", kind), 400),
        (("/jobs", b"text", {"Content-Type": "multipart/form-data"}), 400),
        (
            ("/jobs", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--', kind),
            400,
        ),
        (("/jobs", large), 413),
        (("/jobs", iter([large])), 413),
        (("/jobs?threshold=2", b"x"), 422),
        (("/jobs", b'{"url": "http://example.org/"}', {"Content-Type": "application/json"}), 403),
    ):
        answer = server.ask("POST", *arguments)
        assert answer.status == status, answer
        assert str(server.data) not in answer.body.decode()
    assert leftovers(server) == before


def test_broken_and_lying_uploads_leave_nothing(server: Running) -> None:
    before = leftovers(server)
    for head in (
        "POST /jobs HTTP/1.1\nHost: localhost\nContent-Length: 1000\n\n",
        "POST /jobs HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked\n\n3e8\n",
    ):
        own = raw(server, head, b"sleep 0")
        eventually(lambda: leftovers(server) != before)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset
        own.close()
        eventually(lambda: leftovers(server) == before)
    # A shorter length than what comes: the rest is no request.
    with raw(
        server,
        "POST /jobs HTTP/1.1\nHost: localhost\nContent-Length: 7\n\n",
        b"sleep 0" + b"junk\r\n",
    ) as own:
        assert b" 202 " in own.recv(100)
    assert server.ask("GET", "/healthz").json["status"] == "ok"


def test_slow_clients_are_sent_away(server: Running) -> None:
    """The server of the tests waits one second for what others wait 15 or 30 seconds for."""
    before = leftovers(server)
    silent = raw(server, "")
    header = raw(server, "GET / HTTP/1.1\nHost: localhost\nX-A: ")
    body = raw(server, "POST /jobs HTTP/1.1\nHost: localhost\nContent-Length: 1000\n\n", b"sl")
    drip = raw(server, "POST /jobs HTTP/1.1\nHost: localhost\nContent-Length: 90000\n\n", b"sl")
    ended = threading.Event()

    def dripping() -> None:
        while not ended.wait(0.1):
            try:
                drip.sendall(b"x")
            except OSError:
                return

    thread = threading.Thread(target=dripping)
    thread.start()
    try:
        for own in (silent, header):
            assert received(own) == 0
        assert b" 408 " in body.recv(100)
        assert b" 408 " in drip.recv(100)
    finally:
        ended.set()
        thread.join()
        for own in (silent, header, body, drip):
            own.close()
    eventually(lambda: leftovers(server) == before)


def test_a_reader_that_takes_nothing_is_sent_away(server: Running) -> None:
    job = server.send(b"sleep 0")
    server.until(job)
    os.truncate(server.data / "jobs" / job / "video.mp4", 100_000_000)  # more than systems buffer
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    own.connect(("127.0.0.1", server.port))
    lines = f"GET /jobs/{job}/video.mp4 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    own.sendall(lines.encode())

    def reads() -> bool:
        files = Path(f"/proc/{server.process.pid}/fd")
        return any("video.mp4" in str(item.resolve()) for item in files.iterdir())

    eventually(reads)
    eventually(lambda: not reads())
    assert received(own) < 100_000_000
    own.close()


def test_a_full_queue_is_said_and_goes_on(server: Running) -> None:
    first = server.send(b"sleep 2")
    server.until(first, "running")
    waiting = [server.send(b"sleep 0") for _ in range(3)]
    assert [server.state(job)["position"] for job in waiting] == [0, 1, 2]
    refused = server.ask("POST", "/jobs", b"sleep 0")
    assert refused.status == 503
    assert 1 <= int(refused.headers["retry-after"]) <= 600
    # Who reads is served all the same.
    assert server.ask("GET", "/").status == 200
    assert server.ask("DELETE", f"/jobs/{waiting[0]}").status == 204
    last = server.send(b"sleep 0")
    for job in (first, *waiting[1:], last):
        assert server.until(job)["state"] == "done"
    assert server.ask("GET", f"/jobs/{waiting[0]}").status == 404
    text = server.ask("GET", "/metrics").body.decode()
    assert 'vidkd_serve_refused_total{reason="queue"} 1.0' in text


def test_removing_stops_the_work(server: Running) -> None:
    job = server.send(b"sleep 2.5")
    server.until(job, "running")
    assert server.ask("DELETE", f"/jobs/{job}").status == 204
    assert job not in leftovers(server)
    assert server.until(server.send(b"sleep 0"))["state"] == "done"


def test_a_killed_worker_is_replaced_and_its_video_tried_once_more(server: Running) -> None:
    (worker,) = eventually(server.workers)
    job = server.send(b"sleep 1")
    server.until(job, "running")
    os.kill(worker, signal.SIGKILL)
    assert server.until(job)["state"] == "done"
    assert worker not in server.workers()
    failed = server.until(server.send(b"crash"))
    assert failed["state"] == "failed"
    assert failed["problem"] == "its process ended by itself (signal 9), twice"
    assert server.until(server.send(b"crash-once"))["state"] == "done"
    # One that has nothing to do, too.
    (worker,) = eventually(server.workers)
    os.kill(worker, signal.SIGKILL)
    assert server.until(server.send(b"sleep 0"))["state"] == "done"


def test_a_video_that_takes_too_long_fails(server: Running) -> None:
    job = server.until(server.send(b"sleep 60"))
    assert job["problem"] == "took longer than 0.05 minutes"
    assert server.until(server.send(b"sleep 0"))["state"] == "done"


def test_no_path_of_the_machine_is_reachable(server: Running) -> None:
    job = server.send(b"fail", "..%2F..%2Fetc%2Fpasswd")
    assert server.until(job)["name"] == "passwd"
    answer = server.ask("GET", f"/jobs/{job}/result")
    assert (answer.status, answer.json["detail"]) == (409, "it failed: the video is none")
    for path in (
        f"/jobs/{job}/job.json",
        f"/jobs/{job}/..%2Fjob.json",
        f"/jobs/{job}/%2e%2e/%2e%2e/.lock",
        f"/jobs/{job}/%2Fetc%2Fpasswd",
        "/jobs/..%2F..%2F",
        "/static-offline-docs/..%2F..%2Fcore.py",
        "/jobs",
    ):
        assert server.ask("GET", path).status in {404, 405}, path


def test_every_address_is_described_and_the_docs_load_nothing_from_elsewhere(
    server: Running,
) -> None:
    description = server.ask("GET", "/openapi.json").json
    assert description["openapi"].startswith("3.")
    assert set(description["paths"]) == {
        *("/jobs", "/jobs/{id}", "/jobs/{id}/result", "/jobs/{id}/page", "/healthz", "/metrics")
    }
    content = description["paths"]["/jobs"]["post"]["requestBody"]["content"]
    assert {"video/*", "multipart/form-data", "application/json"} <= set(content)
    page = server.ask("GET", "/docs").body.decode()
    found = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert found
    for address in found:
        assert address.startswith("/")
        assert server.ask("GET", address).status == 200, address


def test_pages_from_elsewhere_are_refused(server: Running) -> None:
    for headers in (
        {"Host": "evil.example"},
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ):
        assert server.ask("POST", "/jobs", b"sleep 0", headers).status == 403
    assert server.ask("GET", "/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode":
                      "navigate"}).status == 200  # fmt: skip


def test_what_was_taken_outlives_the_server(tmp_path: Path) -> None:
    """Killed, told to end, and started again: no video is lost, and none is done twice."""
    with Running(tmp_path) as first:
        done = first.send(b"sleep 0")
        first.until(done)
        jobs = [first.send(b"sleep 1.5"), first.send(b"sleep 0")]
        first.until(jobs[0], "running")
        (worker,) = first.workers()
        partial = raw(
            first, "POST /jobs HTTP/1.1\nHost: localhost\nContent-Length: 1000\n\n", b"sleep"
        )
        eventually(lambda: len(leftovers(first)) == 4)
        first.stop(signal.SIGKILL)
        partial.close()
        eventually(lambda: not is_alive(worker))
    with Running(tmp_path) as second:
        assert leftovers(second) == {done, *jobs}
        assert second.ask("GET", f"/jobs/{done}/result").status == 200
        second.until(jobs[0], "running")
        assert second.stop(signal.SIGTERM) == 0
        assert second.said[-1] == "stopped; 2 videos wait for the next start"
    # A stop is no fault of the video: it has one of its two attempts left.
    with Running(tmp_path) as third:
        for job in jobs:
            assert third.until(job)["state"] == "done"
        other = Running(tmp_path)
        assert other.process.wait(30) == 1
        assert "another server works in this folder" in other.said[0]


def test_a_token(tmp_path: Path) -> None:
    with Running(tmp_path, VIDKD_SERVE_TOKEN="sesame") as running:
        assert running.ask("GET", "/healthz", headers={"Authorization": ""}).status == 200
        for given in ("", "Bearer sesam", "Bearer", "Basic !", "Digest sesame"):
            for path in ("/", "/metrics", "/docs", "/openapi.json", "/jobs/0"):
                answer = running.ask("GET", path, headers={"Authorization": given})
                assert answer.status == 401
                assert "Basic" in answer.headers["www-authenticate"]  # so that browsers ask
        basic = b64encode(b"anybody:sesame").decode()
        assert running.ask("GET", "/", headers={"Authorization": f"Basic {basic}"}).status == 200
        assert running.until(running.send(b"sleep 0"))["state"] == "done"
        running.stop()
        assert "sesame" not in "".join(running.said)


class _Source(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/leads"):
            self.send_response(302)
            self.send_header("Location", "/there/clip.mp4")
            self.end_headers()
            return
        self.send_response(404 if self.path == "/none" else 200)
        promised = {"/broken": 100, "/large": 3_000_000}.get(self.path, 7)
        self.send_header("Content-Length", str(promised))
        self.end_headers()
        self.wfile.write(b"sleep 0")

    def log_message(self, *arguments: object) -> None:
        pass


def test_addresses_and_the_limits_of_the_disk(tmp_path: Path) -> None:
    source = ThreadingHTTPServer(("127.0.0.1", 0), _Source)
    threading.Thread(target=source.serve_forever, daemon=True).start()
    there = f"http://127.0.0.1:{source.server_address[1]}"
    kind = {"Content-Type": "application/json"}
    limits = ("--max-upload", 2, "--max-disk", 0.005, "--allow-urls")

    def ask(running: Running, url: str) -> str:
        answer = running.ask("POST", "/jobs", json.dumps({"url": url}).encode(), kind)
        return running.until(answer.json["id"])["problem"] or "" if answer.status == 202 else "422"

    with Running(tmp_path / "a", *limits) as running:
        assert ask(running, f"{there}/clip.mp4") == "the address is not of the public internet"
        assert ask(running, "http://localhost:1/") == "the address is not of the public internet"
        for url in ("file:///etc/passwd", "ftp://a/b", "http://u:p@a/", "x", "http://"):
            assert ask(running, url) == "422"
        # The oldest finished job goes for a new one, and what cannot fit is refused.
        sent = []
        for _ in range(3):
            sent.append(running.send(b"sleep 0 " + b"x" * 1_900_000))
            assert running.until(sent[-1])["state"] == "done"
        first = sent[0]
        assert running.ask("GET", f"/jobs/{first}").status == 404
        busy = running.send(b"sleep 5 " + b"x" * 1_900_000)
        more = running.send(b"sleep 0 " + b"x" * 1_900_000)
        assert running.ask("POST", "/jobs", b"x" * 1_900_000).status == 507
        assert {running.state(job)["state"] for job in (busy, more)} <= {"running", "queued"}
    with Running(tmp_path / "b", *limits, "--allow-private-urls") as running:
        assert ask(running, f"{there}/leads") == ""
        assert ask(running, f"{there}/none") == "the address answers with 404"
        assert ask(running, f"{there}/broken") == "the address broke off"
        assert ask(running, f"{there}/large") == "the video has more than 2 MB"
    source.shutdown()
    source.server_close()
