"""The queue, and the processes that work on it.

A process that ends is replaced. Its job goes back to the queue once; the second time it fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from vidkd.console import log
from vidkd.errors import VidkdError
from vidkd.serve.jobs import ATTEMPTS, DONE, QUEUED, RUNNING, Job, Store, end
from vidkd.serve.metrics import Metrics
from vidkd.serve.worker import WorkerSpec, work

_LOADING_SECONDS = 600.0
_CANCEL_SECONDS = 5.0
_LONGEST_PAUSE = 60.0


class EndedError(Exception):
    """The process of a worker has ended, with its exit code."""


class Worker:
    """One process, and the messages that come from it."""

    def __init__(self, spec: WorkerSpec, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=work, args=(other, spec, device), daemon=True)
        self._process.start()
        other.close()
        self._messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self.ended = asyncio.Event()
        self._loop.add_reader(self._connection.fileno(), self._read)

    def _read(self) -> None:
        try:
            self._messages.put_nowait(json.loads(self._connection.recv_bytes()))
        except (EOFError, OSError):
            self._loop.remove_reader(self._connection.fileno())
            self.ended.set()
            self._messages.put_nowait(None)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid or 0

    def send(self, **message: Any) -> None:
        """Tell the process something; one that has ended does not hear it."""
        with contextlib.suppress(OSError):
            self._connection.send_bytes(json.dumps(message).encode())

    async def receive(self) -> dict[str, Any]:
        """Return the next message.

        Raises:
            EndedError: the process has ended.
        """
        message = await self._messages.get()
        if message is None:
            self._messages.put_nowait(None)  # for whoever asks again
            await asyncio.to_thread(self._process.join, 5.0)
            raise EndedError(self._process.exitcode)
        return message

    async def stop(self) -> None:
        """End the process, if need be by force."""
        # In the middle of a video it would not look; its job is on disk.
        self._process.kill()
        if not self._connection.closed:
            self._loop.remove_reader(self._connection.fileno())
            self._connection.close()
        self.ended.set()
        self._messages.put_nowait(None)
        await asyncio.to_thread(self._process.join)


class Pool:
    """Works on the jobs of a store, the oldest first.

    Args:
        store: the jobs; those that were waiting when it was opened come first.
        spec: of the workers.
        devices: one for each worker.
        longest: seconds for one job.
        metrics: is told what happens.

    Attributes:
        classes: that the model knows, once a worker is ready.
        model: its name.
    """

    def __init__(
        self,
        store: Store,
        spec: WorkerSpec,
        devices: Sequence[str],
        longest: float,
        metrics: Metrics,
    ) -> None:
        self.classes: list[str] = []
        self.model = ""
        self._store, self._spec, self._devices = store, spec, devices
        self._longest, self._metrics = longest, metrics
        self._queue: asyncio.PriorityQueue[tuple[float, str]] = asyncio.PriorityQueue()
        self._at_work: dict[str, Worker] = {}
        self._ready: set[Worker] = set()
        self._recent: deque[float] = deque(maxlen=20)
        self._tasks: list[asyncio.Task[None]] = []
        for job in store.jobs.values():
            if job.state == QUEUED:
                self._put(job)

    async def start(self) -> None:
        """Start the workers, and return when the first is ready.

        Raises:
            VidkdError: the model cannot be loaded.
        """
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks = [asyncio.create_task(self._keep(item, first)) for item in self._devices]
        await first

    async def stop(self) -> None:
        """End the workers; their jobs wait for the next server."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def ready(self) -> int:
        """How many workers have loaded the model."""
        return len(self._ready)

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return sum(job.state == QUEUED for job in self._store.jobs.values())

    def position(self, job: Job) -> int:
        """Return how many jobs come before one that waits."""
        return sum(
            other.state == QUEUED and other.created < job.created
            for other in self._store.jobs.values()
        )

    def pause(self) -> int:
        """Return after how many seconds there may be room in the queue, as far as one can say."""
        usual = sum(self._recent) / len(self._recent) if self._recent else 10.0
        return max(1, min(600, round(usual / max(1, len(self._devices)))))

    def add(self, job: Job) -> None:
        """Let a job wait for a worker."""
        job.state = QUEUED
        self._store.save(job)
        self._put(job)

    def _put(self, job: Job) -> None:
        self._queue.put_nowait((job.created, job.id))

    async def remove(self, job: Job) -> None:
        """Remove a job, stopping the work on it."""
        worker = self._at_work.get(job.id)
        if worker is not None:
            worker.send(cancel=job.id)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CANCEL_SECONDS):
                    while self._at_work.get(job.id) is worker:
                        await asyncio.sleep(0.05)
            if self._at_work.get(job.id) is worker:
                self._store.jobs.pop(job.id, None)  # so that it does not go back to the queue
                await worker.stop()
        self._store.remove(job)

    async def _keep(self, device: str, first: asyncio.Future[None]) -> None:
        """Keep one worker running."""
        pause = 1.0
        while True:
            worker = Worker(self._spec, device)
            try:
                async with asyncio.timeout(_LOADING_SECONDS):
                    message = await worker.receive()
                if message["event"] == "broken":
                    raise VidkdError(message["problem"])
                self.classes, self.model = message["classes"], message["name"]
                self._ready.add(worker)
                log(f"worker {worker.pid} is ready on {device}")
                if not first.done():
                    first.set_result(None)
                pause = 1.0
                await self._serve(worker)
            except (EndedError, VidkdError, TimeoutError) as error:
                problem = error if isinstance(error, VidkdError) else _why(error)
                if not first.done():
                    first.set_exception(VidkdError(str(problem)))
                    return
                log(f"worker {worker.pid} on {device}: {problem}; another one is started")
                self._metrics.restarts.inc()
            finally:
                self._ready.discard(worker)
                await worker.stop()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _serve(self, worker: Worker) -> None:
        """Give jobs to a worker until it ends.

        Raises:
            EndedError: it has ended.
        """
        while True:
            asked = asyncio.create_task(self._queue.get())
            ended = asyncio.create_task(worker.ended.wait())
            try:
                done, _ = await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                # At once: what it is given later would be lost.
                ended.cancel()
                asked.cancel()
            if asked not in done:
                await worker.receive()  # raises why it ended
            _, name = asked.result()
            job = self._store.jobs.get(name)
            if job is None or job.state != QUEUED:
                continue  # removed meanwhile
            if worker.ended.is_set():
                self._put(job)
                await worker.receive()
            self._at_work[job.id] = worker
            try:
                await self._do(worker, job)
            finally:
                del self._at_work[job.id]

    async def _do(self, worker: Worker, job: Job) -> None:
        """Let a worker do a job.

        Raises:
            EndedError: the worker has ended, or had to be.
        """
        job.state, job.started, job.progress = RUNNING, time.time(), 0.0
        job.attempts += 1
        try:
            self._store.save(job)
            video = str(self._store.video(job))
            worker.send(job=job.id, name=job.name, video=video, threshold=job.threshold)
            async with asyncio.timeout(self._longest):
                while not self._told(job, await worker.receive()):
                    pass
        except TimeoutError:
            await worker.stop()
            if job.state == RUNNING:
                self._end(job, f"took longer than {self._longest / 60:g} minutes")
            raise EndedError(None) from None
        except EndedError as error:
            if job.state == RUNNING and job.id in self._store.jobs:
                if job.attempts < ATTEMPTS:
                    log(f"job {job.id}: {_why(error)}; it is tried again")
                    self._metrics.retries.inc()
                    self.add(job)
                else:
                    self._end(job, f"{_why(error)}, twice")
            raise
        except asyncio.CancelledError:
            # The server stops; that is no fault of the video.
            if job.state == RUNNING and job.id in self._store.jobs:
                job.attempts -= 1
                job.state = QUEUED
                self._store.save(job)
            raise
        except VidkdError as error:
            log(f"error: job {job.id}: {error}")  # the disk is full, for one
            self._end(job, "the server could not write its state")

    def _told(self, job: Job, message: dict[str, Any]) -> bool:
        """Take a message about a job; return whether it was the last."""
        event = message["event"]
        if event == "progress":
            job.progress = message["progress"]
        elif event == "found":
            job.duration, job.progress = message["duration"], 1.0
            self._end(job)
        elif event == "done":
            job.page = message["page"]
            self._store.save(job)
        elif event == "failed" and job.state == DONE:
            log(f"job {job.id}: no page: {message['problem']}")
        elif event == "failed":
            self._end(job, message["problem"])
        return event in {"done", "failed", "cancelled"}

    def _end(self, job: Job, problem: str | None = None) -> None:
        end(job, problem)
        seconds = (job.ended or 0) - (job.started or 0)
        self._recent.append(seconds)
        self._metrics.seconds.observe(seconds)
        self._metrics.finished.labels(job.state).inc()
        with contextlib.suppress(VidkdError):
            self._store.save(job)
        log(f"job {job.id}: {job.state} in {seconds:.1f} s" + (f" ({problem})" if problem else ""))


def _why(error: Exception) -> str:
    """Say why a worker is no more."""
    if isinstance(error, TimeoutError):
        return "loading the model took too long"
    code = error.args[0] if error.args else None
    if code is None:
        return "its process was stopped"
    signal = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"its process ended by itself ({signal})"
