"""Events as requests, to receivers that are slow to come, refuse, fail, or are never there."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from made import event

from vidkd.errors import UsageError
from vidkd.live.outputs import beside
from vidkd.live.outputs.webhook import Webhook


class Receiver(ThreadingHTTPServer):
    """Keeps requests, and answers with what it was told to, then with 204; 0 hangs up."""

    def __init__(self, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        super().__init__(address, Handler)
        self.answers: list[int] = []
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/hook/s3cret?key=s3cret"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def numbers(self) -> list[int]:
        return [json.loads(body)["number"] for _, body in self.requests]


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(({k.lower(): v for k, v in self.headers.items()}, body))
        answer = self.server.answers.pop(0) if self.server.answers else 204
        if answer:
            self.send_response(answer)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidkd.live.outputs.webhook._FIRST_PAUSE", 0.01)


def test_requests_are_signed_and_sent_again_until_they_are_taken(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIDKD_WEBHOOK_SECRET", "kéy")
    monkeypatch.setenv("VIDKD_WEBHOOK_TOKEN", "t0ken\n")
    receiver.answers = [503, 0, 500, 429]
    hook = Webhook(receiver.url)
    hook.event(event(1, "begin", 2.0, label="Tür auf"))
    hook.event(event(1, "end", 2.0, 4.0))
    hook.close()
    assert receiver.numbers == [1] * 6
    assert (hook.counts.done, hook.counts.failed, hook.counts.dropped) == (2, 0, 0)
    *attempts, (_, last) = receiver.requests
    assert len({(body, headers["idempotency-key"]) for headers, body in attempts}) == 1
    headers, body = attempts[0]
    assert headers["idempotency-key"] != receiver.requests[-1][0]["idempotency-key"]
    content = json.loads(body)
    assert content["label"] == "Tür auf"
    assert content["started"] == "2026-03-01T12:00:02.000+00:00"
    assert json.loads(last)["end"] == 4.0
    assert headers["authorization"] == "Bearer t0ken"
    # HMAC as RFC 2104 defines it.
    key = "kéy".encode().ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in key) + body).digest()
    outer = hashlib.sha256(bytes(b ^ 0x5C for b in key) + inner).hexdigest()
    assert headers["x-vidkd-signature"] == f"sha256={outer}"
    said = capsys.readouterr().err
    assert "answered 503" in said
    assert "works again" in said
    assert not any(secret in said for secret in ("s3cret", "kéy", "t0ken"))


def test_what_is_refused_is_given_up_and_the_next_is_sent(
    receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.answers = [404, 302, *[500] * 5]
    hook = Webhook(receiver.url)
    for number in range(1, 6):
        hook.event(event(number, "begin", 1.0))
    hook.close()
    assert receiver.numbers == [1, 2, 3, 3, 3, 3, 3, 4, 5]
    assert (hook.counts.done, hook.counts.failed) == (2, 3)
    assert capsys.readouterr().err.count("404") == 1


def test_a_receiver_that_is_away_costs_the_oldest_events(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(beside, "_EVENTS", 5)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    hook = Webhook(f"http://127.0.0.1:{port}/")
    for number in range(1, 21):
        hook.event(event(number, "begin", 1.0))
    with Receiver(("127.0.0.1", port)) as receiver:
        hook.close()
        receiver.shutdown()
    assert receiver.numbers[-4:] == [17, 18, 19, 20]
    assert len(receiver.numbers) <= 7
    assert hook.counts.dropped == 20 - len(receiver.numbers)
    assert capsys.readouterr().err.count("cannot be reached") <= 1


def test_a_receiver_that_never_answers_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "CLOSING_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hook = Webhook(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        before = time.monotonic()
        for number in range(5000):
            hook.event(event(number, "begin", 1.0))
        assert time.monotonic() - before < 5  # the receiver has 10 s for each
        hook.close()
    assert hook.counts.done == 0
    assert hook.counts.dropped >= 4999


@pytest.mark.parametrize(
    "url",
    ["ftp://host/x", "http:///x", "host:80", "http://host:99999/", "https://me:s3cret@host/"],
)
def test_addresses_that_cannot_be(url: str) -> None:
    with pytest.raises(UsageError) as error:
        Webhook(url)
    assert "s3cret" not in str(error.value)
