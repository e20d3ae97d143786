"""Worker processes, in which a job fails alone, and threads that read ahead."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidkd.cache import CacheWriter, Provenance, Source
from vidkd.errors import VideoError, VidkdError
from vidkd.workers import Report, begun, prefetched, read_ahead, run_pool, threads_per_worker


def misbehave(job: str, report: Report, threads: int) -> tuple[str, int]:
    if job == "refuses":
        raise VideoError("has no frames", path="x.mp4", remedy="check it")
    if job == "has a bug":
        raise ValueError("two\nlines")
    if job == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "exits":
        os._exit(3)
    for _ in range(3):
        report(1)
    return job.upper(), os.getpid()


def write_forever(job: str, report: Report, threads: int) -> None:
    provenance = Provenance("flow", Source("x", 1, "x", 25), {})  # type: ignore[arg-type]
    with CacheWriter(Path(job), provenance, (4,), "uint8") as writer:
        while True:
            writer.append([[1, 2, 3, 4]], [[0, 1]])
            time.sleep(0.01)
            report(1)


def sleep_deaf(job: str, report: Report, threads: int) -> None:
    report(1)
    time.sleep(0.2)
    report(1)
    time.sleep(1000)


def test_every_job_ends_once_whatever_the_others_do() -> None:
    jobs = ["a", "refuses", "is killed", "b", "has a bug", "exits", "c"]
    progress = []
    ended = {
        item.job: item for item in run_pool(jobs, misbehave, workers=2, advance=progress.append)
    }
    assert ended.keys() == set(jobs)
    for name in "abc":
        assert ended[name].error is None
        assert ended[name].result[0] == name.upper()
        assert ended[name].result[1] != os.getpid()
    assert sum(progress) == 9
    errors = {name: str(item.error) for name, item in ended.items() if item.error}
    assert errors["refuses"] == "x.mp4: has no frames; check it"
    assert isinstance(ended["refuses"].error, VideoError)
    assert "killed by SIGKILL" in errors["is killed"]
    assert "fewer --workers" in errors["is killed"]
    assert "exited with 3" in errors["exits"]
    assert "unexpected ValueError in misbehave" in errors["has a bug"]
    assert "\n" not in errors["has a bug"]


def test_one_process_does_many_jobs() -> None:
    ended = list(run_pool(list("abcdef"), misbehave, workers=1, advance=lambda _: None))
    assert len({item.result[1] for item in ended}) == 1
    assert list(run_pool([], misbehave, workers=2, advance=lambda _: None)) == []


def test_a_process_that_was_begun_does_the_job_or_ends() -> None:
    with begun("vidkd.errors") as first:
        [ended] = run_pool(["a"], misbehave, workers=1, advance=lambda _: None, first=first)
        assert first._process is None
        assert ended.result[0] == "A"
    with begun() as first:
        jobs = ["a", "is killed", "b"]
        own = first._process.pid
        ended = list(run_pool(jobs, misbehave, workers=1, advance=lambda _: None, first=first))
        assert [item.result and item.result[1] == own for item in ended] == [True, None, False]
    with begun() as first:
        process = first._process
        assert list(run_pool([], misbehave, workers=1, advance=lambda _: None, first=first)) == []
        assert process.is_alive()
        pid = process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_threads_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidkd.workers.cores", lambda: 8)
    assert [threads_per_worker(workers) for workers in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]


def test_stopping_early_is_quick_and_leaves_nothing(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def advance(amount: float) -> None:
        if len(list(tmp_path.iterdir())) == 2:
            raise Enough

    started = time.monotonic()
    jobs = [str(tmp_path / name) for name in ("a.h5", "b.h5", "c.h5")]
    with pytest.raises(Enough):
        list(run_pool(jobs, write_forever, workers=2, advance=advance))
    assert list(tmp_path.iterdir()) == []
    assert time.monotonic() - started < 200


def test_a_worker_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidkd.workers._PATIENCE_SECONDS", 0.2)

    def advance(amount: float) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(run_pool(["x"], sleep_deaf, workers=1, advance=advance))
    assert time.monotonic() - started < 200


def hang_or_trickle(job: str, report: Report, threads: int) -> str:
    for _ in range(4):
        report(1)
        time.sleep(1000 if job == "hangs" else 0.3)
    return job


def test_a_job_without_a_sign_is_killed_and_the_others_go_on() -> None:
    """Not even its connection answers: nothing but the kill ends ``time.sleep``."""
    # Trickling takes longer than hanging may, but is never silent: 60 s serve a busy machine.
    allowed = {"hangs": 0.5, "a": 60.0, "b": 60.0}
    ended = {
        item.job: item
        for item in run_pool(
            ["a", "hangs", "b"],
            hang_or_trickle,
            workers=1,
            advance=lambda _: None,
            silence=allowed.__getitem__,
        )
    }
    assert [ended[name].result for name in "ab"] == ["a", "b"]
    assert "gave no sign of life" in str(ended["hangs"].error)
    assert "--time-limit" in str(ended["hangs"].error)


def test_errors_survive_the_way_between_processes() -> None:
    [ended] = run_pool(["refuses"], misbehave, workers=1, advance=lambda _: None)
    assert isinstance(ended.error, VidkdError)
    assert (ended.error.path, ended.error.remedy) == ("x.mp4", "check it")


class TestReadAhead:
    def test_order_and_errors_are_kept(self):
        def items():
            yield from range(5)
            raise VideoError("broken off")

        seen = []
        with pytest.raises(VideoError, match="broken off"):
            seen.extend(read_ahead(items()))
        reader = read_ahead(items())
        assert [next(reader) for _ in range(5)] == list(range(5))
        with pytest.raises(VideoError):
            next(reader)

    def test_never_more_than_its_capacity_ahead(self):
        produced = []

        def items():
            for number in range(50):
                produced.append(number)
                yield number

        for number in read_ahead(items(), capacity=3):
            # Three wait, one is in the thread's hands, one is here.
            assert len(produced) <= number + 5

    def test_stopping_early_ends_the_thread(self):
        closed = threading.Event()

        def items():
            try:
                yield from range(10**9)
            finally:
                closed.set()

        source = items()
        reader = read_ahead(source)
        assert next(reader) == 0
        reader.close()
        assert not [t for t in threading.enumerate() if t.name.startswith("vidkd-ahead")]
        source.close()
        assert closed.is_set()


@given(count=st.integers(0, 30), readers=st.integers(1, 4), ahead=st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_prefetched_keeps_the_order_and_stays_within_bounds(count, readers, ahead):
    started = []
    for taken, result in enumerate(
        prefetched(lambda item: started.append(item) or item * item, range(count), readers, ahead)
    ):
        assert result == taken**2
        assert len(started) <= taken + 1 + ahead


def test_prefetched_raises_in_turn_and_ends_its_threads():
    def make(item):
        if item == 3:
            raise VidkdError("the disk broke")
        return item

    before = threading.active_count()
    results = prefetched(make, range(10), 2, 4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(VidkdError, match="the disk broke"):
        next(results)
    stopped = prefetched(make, range(3), 2, 2)
    next(stopped)
    stopped.close()
    assert threading.active_count() == before
