"""Work beside this thread: processes for long jobs, and threads that read ahead.

In the pool, a job that fails, or kills its process, fails alone. Processes are spawned, never
forked: forking a process that runs threads (torch, numba, OpenCV) can deadlock. The standard pools
give up altogether when one process is killed, for instance because memory ran out, and cannot say
which job did it; hence this one.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, repeat, takewhile
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any, Generic, TypeVar

from vidkd.errors import VidkdError
from vidkd.machine import cores
from vidkd.storage import scrub

Job = TypeVar("Job")
Item = TypeVar("Item")
Made = TypeVar("Made")
Report = Callable[[float], None]
"""Called by work with the number of units done since the last call; may end it."""

_REPORT_SECONDS = 0.1
_PATIENCE_SECONDS = 5.0
_START_SECONDS = 300.0


Work = Callable[[Any, Report, int], Any]
"""Does one job with so many threads and returns a picklable result, or raises VidkdError."""


Feed = Callable[[Callable[[Report], Iterator[Any]], Report], Iterator[Any]]
"""Yields what ``make(report)`` yields; who computes that, and where, is its own affair."""


def here(make: Callable[[Report], Iterator[Item]], report: Report) -> Iterator[Item]:
    """Yield what ``make(report)`` yields: the :data:`Feed` that computes it in this process."""
    return make(report)


@dataclass(frozen=True)
class Ended(Generic[Job]):
    """One finished job: its result, or the error it ended with."""

    job: Job
    result: Any
    error: VidkdError | None
    seconds: float


class Cancelled(BaseException):
    """The job is to end now, leaving nothing behind."""


def threads_per_worker(workers: int) -> int:
    """Return how many threads each of ``workers`` processes may use without crowding the rest."""
    return max(1, cores() // workers)


def run_pool(
    jobs: Sequence[Job],
    work: Work,
    *,
    workers: int,
    advance: Report,
    silence: Callable[[Job], float] | None = None,
    first: Worker[Job] | None = None,
) -> Iterator[Ended[Job]]:
    """Do jobs in spawned processes and yield each when it has ended, in the order of ending.

    When the generator is closed or the caller is interrupted, the workers are told to stop, which
    they do at their next report; those that do not are killed after five seconds.

    Args:
        jobs: picklable descriptions of what is to be done.
        work: picklable callable that does one.
        workers: number of processes.
        advance: receives the progress of all workers.
        silence: for how many seconds a job may report nothing before its process is killed;
            None waits for ever.
        first: one of the processes, begun before; taken if it has as many threads as they are to.
    """
    waiting = deque(jobs)
    processes = min(workers, len(jobs))
    threads = threads_per_worker(max(processes, 1))
    pool: list[Worker[Job]] = [first] if first and first.threads == threads and jobs else []
    pool += [Worker(threads) for _ in range(processes - len(pool))]
    try:
        for worker in pool:
            worker.start(waiting.popleft(), work)
        while busy := {worker.connection: worker for worker in pool if worker.busy}:
            for worker in _heard(busy, silence):
                ended = worker.receive(advance) if worker.speaks() else worker.give_up(silence)
                if ended is None:
                    continue
                if waiting:
                    worker.start(waiting.popleft(), work)
                yield ended
    finally:
        _stop(pool)


def _heard(
    busy: dict[Connection, Worker[Job]], silence: Callable[[Job], float] | None
) -> list[Worker[Job]]:
    """Wait for workers that have something to say, or have said nothing for too long."""
    if silence is None:
        return [busy[connection] for connection in wait(list(busy))]  # type: ignore[index]
    next_deadline = min(worker.deadline(silence) for worker in busy.values())
    patience = min(max(0.0, next_deadline - time.monotonic()), _PATIENCE_SECONDS)
    before = time.monotonic()
    ready = [busy[connection] for connection in wait(list(busy), patience)]  # type: ignore[index]
    if time.monotonic() - before > patience + _PATIENCE_SECONDS:
        # This process was stopped, by Ctrl-Z for one, and the workers with it.
        for worker in busy.values():
            worker.forgive()
    now = time.monotonic()
    late = [worker for worker in busy.values() if worker.deadline(silence) <= now]
    return ready + [worker for worker in late if worker not in ready]


@contextlib.contextmanager
def begun(*modules: str) -> Iterator[Worker[Any]]:
    """Yield a process with all threads that imports modules, while this one finds work for it.

    Give it to :func:`run_pool`; without work it is killed when the block ends.
    """
    worker: Worker[Any] = Worker(threads_per_worker(1))
    worker.begin(*modules)
    try:
        yield worker
    finally:
        worker.end(0)


def silent(seconds: float) -> VidkdError:
    """Return the error for a job that gave no sign for too long."""
    return VidkdError(
        f"gave no sign of life for {seconds:.0f} s",
        remedy="check that it plays and that its disk answers, or allow more with --time-limit",
    )


def _stop(pool: Sequence[Worker[Any]]) -> None:
    for worker in pool:
        worker.ask_to_stop()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for worker in pool:
        worker.end(max(0.0, deadline - time.monotonic()))


class Worker(Generic[Job]):
    """One process, seen from the parent; it is started again after it died.

    Args:
        threads: that it may use.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._process: SpawnProcess | None = None
        self._told = False
        self._job: tuple[Job] | None = None
        self._started = 0.0
        self._sign = 0.0

    @property
    def busy(self) -> bool:
        return self._job is not None

    def begin(self, *modules: str) -> None:
        """Start the process, which imports modules while there is no work yet."""
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        arguments = other, self.threads, modules
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        with _interrupts_held():
            self._process.start()
        other.close()
        self._told = False

    def start(self, job: Job, work: Work) -> None:
        """Give it a job; ``work`` is that of its other jobs."""
        if self._process is None:
            self.begin()
        self._job, self._started = (job,), time.monotonic()
        # Importing torch may take minutes from a slow disk, and is not the job's fault.
        self._sign = self._started + (0 if self._told else _START_SECONDS)
        with contextlib.suppress(OSError):  # it died meanwhile, which receive() will tell
            if not self._told:
                # Pickled, so that it can set its number of threads before unpickling imports
                # torch and numba.
                self.connection.send_bytes(pickle.dumps(work))
                self._told = True
            self.connection.send(job)

    def speaks(self) -> bool:
        """Say whether there is a message to receive."""
        with contextlib.suppress(OSError):
            return self.connection.poll()
        return True  # the end of the connection, which receive() explains

    def deadline(self, silence: Callable[[Job], float]) -> float:
        """Return until when the next sign must come."""
        assert self._job is not None
        return self._sign + silence(self._job[0])

    def forgive(self) -> None:
        """Let the time without a sign begin now."""
        self._sign = max(self._sign, time.monotonic())

    def give_up(self, silence: Callable[[Job], float] | None) -> Ended[Job]:
        """Kill the process and end its job."""
        assert self._job is not None
        assert silence is not None
        (job,), self._job = self._job, None
        self.end(0)
        return Ended(job, None, silent(silence(job)), time.monotonic() - self._started)

    def receive(self, advance: Report) -> Ended[Job] | None:
        """Take one message; return the end of the job if that is what it was."""
        try:
            kind, content = self.connection.recv()
        except (EOFError, OSError):
            kind, content = "error", self._post_mortem()
        self._sign = time.monotonic()
        if kind == "progress":
            advance(content)
            return None
        assert self._job is not None
        (job,), self._job = self._job, None
        seconds = time.monotonic() - self._started
        if kind == "error":
            return Ended(job, None, content, seconds)
        return Ended(job, content, None, seconds)

    def _post_mortem(self) -> VidkdError:
        assert self._process is not None
        self._process.join(_PATIENCE_SECONDS)
        code = self._process.exitcode or 0
        self.end(0)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        return VidkdError(
            f"the process that worked on it {how}",
            remedy="if memory ran out, run again with fewer --workers or smaller frames",
        )

    def ask_to_stop(self) -> None:
        if self._process is None:
            return
        if self.busy:
            self._process.terminate()
        # An idle process ends when nobody is left at the other end, or once it has imported.
        self.connection.close()

    def end(self, patience: float) -> None:
        if self._process is not None:
            self._process.join(patience)
            if self._process.is_alive():
                self._process.kill()
                self._process.join(_PATIENCE_SECONDS)
            self._forget()

    def _forget(self) -> None:
        if self._process is not None:
            self.connection.close()
            with contextlib.suppress(ValueError):
                # Nothing ends a process that waits inside the system for a dead disk: it is left.
                self._process.close()
            self._process = None


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold back Ctrl-C: a new process inherits that, and is spared it until it can ignore it."""
    # Begun with the first process, it would let interrupts through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, threads: int, modules: Sequence[str]) -> None:
    """The main function of a worker process."""
    # Ctrl-C reaches every process of the terminal; only the parent acts on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        # Not raised here: an exception in the middle of any library call could be lost.
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    limit_threads(threads)
    done, sent = 0.0, time.monotonic()

    def report(amount: float) -> None:
        nonlocal done, sent
        if stopping:
            raise Cancelled
        done += amount
        now = time.monotonic()
        if now - sent >= _REPORT_SECONDS:
            _send(connection, ("progress", done))
            done, sent = 0.0, now

    with contextlib.suppress(Cancelled, EOFError, ConnectionError):  # the parent wants no more
        with importing():
            for module in modules:
                importlib.import_module(module)
            work = pickle.loads(connection.recv_bytes())
        while not stopping:
            job = connection.recv()
            _send(connection, ("progress", 0.0))
            message = attempted(work, job, report, threads)
            _send(connection, ("progress", done))
            done = 0.0
            _send(connection, message)
    # All is written and told. Taking the libraries apart takes half a second.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def attempted(work: Work, job: Any, report: Report, threads: int) -> tuple[str, Any]:
    """Do a job and return ``("result", what it gave)`` or ``("error", the VidkdError)``.

    Raises:
        Cancelled: ``report`` ended it.
    """
    try:
        return "result", work(job, report, threads)
    except Exception as error:
        return "error", for_people(error)


def _send(connection: Connection, message: tuple[str, Any]) -> None:
    try:
        connection.send(message)
    except OSError:
        # The parent is gone: nobody wants the result.
        raise Cancelled from None


def limit_threads(threads: int) -> None:
    """Set how many threads numeric libraries use; call it before they are imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(threads)
    share_cores()


def share_cores() -> None:
    """Let waiting threads of OpenMP spin briefly, then sleep; call it before they are started.

    By default they spin for long, in the hope of work, and take the cores from whatever else
    computes: beside its like a network took three to five times its share of the time. Where they
    sleep at once it takes a third more on a quiet machine (docs/performance.md). What the user has
    set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Collect no garbage while the block imports: there is none, and looking takes a seventh of it.

    What was imported is left out of later collections too.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def for_people(error: Exception) -> VidkdError:
    """Return an error that can be shown, whatever ended a job."""
    if isinstance(error, VidkdError):
        return error
    if isinstance(error, MemoryError):
        return VidkdError("memory ran out", remedy="use fewer --workers")
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(scrub(str(error)).split())
    return VidkdError(
        f"unexpected {type(error).__name__} in {place.name}, line {place.lineno}: {text}",
        remedy="report it, with the command and the video",
    )


def read_ahead(items: Iterable[Item], capacity: int = 2) -> Generator[Item, None, None]:
    """Yield the items of an iterable that a background thread works through.

    The thread is never more than ``capacity`` items ahead, so memory stays bounded; see
    ``prefetched`` for errors and for what happens when the caller stops early.

    Args:
        items: what to read; it is only used by the thread.
        capacity: how many items may wait.
    """
    source = iter(items)
    end = object()
    made = prefetched(lambda _: next(source, end), repeat(None), 1, capacity + 1)
    with contextlib.closing(made):
        yield from takewhile(lambda item: item is not end, made)


def prefetched(
    make: Callable[[Item], Made], items: Iterable[Item], readers: int, ahead: int
) -> Generator[Made, None, None]:
    """Yield ``make(item)`` in the order of the items, computed in background threads.

    What ``make`` raises is raised here, in its turn. When the caller stops early, nothing new is
    begun, and the threads have ended once the generator is closed.

    Args:
        make: must not depend on the order in which it is called.
        items: what it is called with.
        readers: number of threads.
        ahead: how many results may wait or be in the making.
    """
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(readers, thread_name_prefix="vidkd-ahead") as pool:
        left = iter(items)
        try:
            waiting.extend(pool.submit(make, item) for item in islice(left, ahead))
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(make, item) for item in islice(left, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()
