"""The parts of the server that need no process."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from vidkd.errors import VidkdError
from vidkd.serve.fetch import FetchError, fetch, is_public
from vidkd.serve.jobs import DONE, QUEUED, RUNNING, FullError, Store, end, new_job
from vidkd.serve.receive import RefusedError, _Form


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        *((text, False) for text in ("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1")),
        *((text, False) for text in ("169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1")),
        *((text, False) for text in ("::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1")),
        *((text, False) for text in ("::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::")),
    ],
)
def test_public_addresses(address: str, expected: bool) -> None:
    assert is_public(address) is expected


def test_one_private_address_of_a_name_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a public and a private address could lead to either."""
    both = [(0, 0, 0, "", (ip, 80)) for ip in ("93.184.216.34", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: both)
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: pytest.fail("connected"))
    with pytest.raises(FetchError, match="public"):
        fetch("http://two.example/", None, largest=9, seconds=9, private=False, stopped=bool)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clip.MP4", ("clip", "video.mp4")),
        ("../../etc/passwd", ("passwd", "video.bin")),
        ("C:\\films\\a.b.mkv", ("a.b", "video.mkv")),
        ("", ("video", "video.bin")),
        (".mp4", ("video", "video.mp4")),
        ("..", ("..", "video.bin")),
        ("a\0\n\u202eb.m/p4.x y", ("p4.x y", "video.bin")),
        ("x" * 300, ("x" * 120, "video.bin")),
        ("weiß.webm", ("weiß", "video.webm")),
    ],
)
def test_names_of_videos(name: str, expected: tuple[str, str]) -> None:
    job = new_job(name, QUEUED, None)
    assert (job.name, job.file) == expected


def test_a_form_in_pieces_of_any_size() -> None:
    video = bytes(range(256)) * 3 + b"\r\n--bound\r\n-" + b"--boundar"
    head = b'Content-Disposition: form-data; name="v"; filename="clip.mp4"'
    body = b"--boundary\r\n" + head + b"\r\n\r\n" + video + b"\r\n--boundary--\r\n"
    for size in (1, 2, 3, 7, 64, len(body)):
        names: list[str] = []
        form = _Form(b"boundary", names.append)
        pieces = [body[i : i + size] for i in range(0, len(body), size)]
        assert b"".join(part for piece in pieces for part in form.read(piece)) == video
        assert form.end() == len(video)
        assert names == ["clip.mp4"]
    cut = _Form(b"boundary", names.append)
    cut.read(body[:-8])
    with pytest.raises(RefusedError, match="breaks off"):
        cut.end()


def test_the_store_reads_what_it_wrote_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path, 2000, 60)
    with pytest.raises(VidkdError, match="another server"):
        Store(tmp_path, 2000, 60)
    jobs = [new_job(f"{n}.mp4", QUEUED, 0.5) for n in range(4)]
    for job in jobs:
        with store.incoming(job, 10) as stream:
            stream.write(b"0123456789")
        store.save(job)
    jobs[1].state, jobs[1].attempts = RUNNING, 1
    jobs[2].state, jobs[2].attempts = RUNNING, 2
    end(jobs[3])
    for job in jobs:
        store.save(job)
    with pytest.raises(FullError), store.incoming(new_job("x", QUEUED, None), 2000):
        pass
    # A large promise alone costs nobody a result.
    with pytest.raises(ZeroDivisionError), store.incoming(new_job("x", QUEUED, None), 1000):
        _ = 1 / 0
    assert jobs[3].id in store.jobs
    large = new_job("large", QUEUED, None)
    with store.incoming(large, 1000) as stream:
        stream.write(bytes(1000))
    assert jobs[3].id not in store.jobs
    store.remove(large)
    store.close()
    (tmp_path / "jobs" / "half").mkdir()
    (tmp_path / "jobs" / jobs[0].id / "job.json").write_text(json.dumps({"id": "../x"}))
    again = Store(tmp_path, 10_000, 60)
    # Damaged and half ones are removed.
    assert {job.id: job.state for job in again.jobs.values()} == {
        jobs[1].id: "queued",
        jobs[2].id: "failed",
    }
    assert "twice" in str(again.jobs[jobs[2].id].problem)
    assert again.used == sum(
        p.stat().st_size for p in (tmp_path / "jobs").rglob("*") if p.is_file()
    )
    end(again.jobs[jobs[1].id])
    assert again.jobs[jobs[1].id].state == DONE
    again.expire(time.time() + 61)
    assert again.jobs == {}
