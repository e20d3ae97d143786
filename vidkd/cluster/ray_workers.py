"""Jobs on a Ray cluster: one actor for each CPU or GPU, which keeps what it has loaded.

An actor does one job at a time, and no job is handed out before an actor is free for it, so that
memory is flat however many jobs there are. The job of an actor that died, or whose node did, is
given to another. Two methods of an actor run beside the job: one tells how far it is, the other
asks it to stop.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from vidkd.console import log
from vidkd.errors import UsageError, VidkdError
from vidkd.workers import Cancelled, Ended, Report, Work, attempted, limit_threads, silent

Job = TypeVar("Job")

_SIGN_SECONDS = 0.5
_PATIENCE_SECONDS = 5.0
_TRIES = 3
"""So many workers may die of a job before it has failed, and so many starts in a row may fail."""
_PENDING_SECONDS = 30.0


class Worker:
    """The actor.

    Args:
        work: does a job.
        threads: to do it with.
        folder: of the driver, which relative paths start from.
        path: the driver's ``sys.path``.
    """

    def __init__(self, work: bytes, threads: int, folder: str, path: Sequence[str]) -> None:
        limit_threads(threads)
        sys.path += [item for item in path if item not in sys.path]
        try:
            os.chdir(folder)
        except OSError as error:
            raise VidkdError(
                f"cannot be entered on the node {ray.util.get_node_ip_address()}",
                path=folder,
                remedy="start the command in a folder that every node of the cluster sees",
            ) from error
        self._work: Work = ray.cloudpickle.loads(work)
        self._threads = threads
        self._done, self._reports = 0.0, 0
        self._stopping = threading.Event()

    def ready(self) -> None:
        """Answer once the actor has started."""

    def do(self, job: Any) -> tuple[str, Any, float]:
        """Do one job; return what ``vidkd.workers.attempted`` gives, and its progress."""
        self._done = 0.0
        try:
            return (*attempted(self._work, job, self._report, self._threads), self._done)
        except Cancelled:
            return "error", VidkdError("was stopped", remedy="run it again"), self._done

    def _report(self, amount: float) -> None:
        if self._stopping.is_set():
            raise Cancelled
        self._done += amount
        self._reports += 1

    @ray.method(concurrency_group="beside")
    def sign(self) -> tuple[float, int]:
        """Return the progress of the job, and a number that has grown if it reported anything."""
        time.sleep(_SIGN_SECONDS)
        return self._done, self._reports

    @ray.method(concurrency_group="beside")
    def stop(self) -> None:
        """Let the job end at its next report."""
        self._stopping.set()


@dataclass(eq=False)
class _Actor(Generic[Job]):
    """One actor, seen from the driver."""

    handle: Any
    starting: Any
    job: tuple[int, Job] | None = None
    doing: Any = None
    signing: Any = None
    done: float = 0.0
    reports: int = -1
    started: float = field(default_factory=time.monotonic)
    heard: float = 0.0

    @property
    def pending(self) -> list[Any]:
        """What is waited for."""
        return [item for item in (self.starting, self.doing, self.signing) if item is not None]

    def begin(self, job: tuple[int, Job]) -> None:
        self.job, self.done = job, 0.0
        self.started = self.heard = time.monotonic()
        self.doing, self.signing = self.handle.do.remote(job[1]), self.handle.sign.remote()

    def hear(self, advance: Report) -> None:
        """Take note of how far it is."""
        reference, self.signing = self.signing, None
        try:
            done, reports = ray.get(reference)
        except RayError:
            return  # it died, which its job will tell
        if reports != self.reports:
            self.reports, self.heard = reports, time.monotonic()
        if self.doing is not None:
            advance(done - self.done)
            self.done = done
            self.signing = self.handle.sign.remote()

    def end(self) -> tuple[tuple[int, Job], float]:
        """Return the job it no longer has, and for how long it had it."""
        assert self.job is not None
        job, self.job, self.doing, self.signing = self.job, None, None, None
        return job, time.monotonic() - self.started


@dataclass(frozen=True)
class RayWorkers:
    """Actors of a Ray cluster.

    Attributes:
        address: of the cluster; None leaves it to Ray: that of ``RAY_ADDRESS``, the one that runs
            on this machine, or one that is started here.
        workers: how many; None as many as the cluster has GPUs or CPUs, also those of nodes that
            come later.
        gpu: each has a GPU, and its share of the CPUs.
    """

    address: str | None = None
    workers: int | None = None
    gpu: bool = False

    def run(
        self,
        jobs: Sequence[Job],
        work: Work,
        *,
        advance: Report,
        silence: Callable[[Job], float] | None = None,
    ) -> Iterator[Ended[Job]]:
        """See :meth:`vidkd.cluster.Executor.run`."""
        if not jobs:
            return
        with _connected(self.address):
            run = _Run(self, jobs, work, advance, silence)
            try:
                yield from run
            finally:
                run.stop()

    def room(self) -> tuple[int, int]:
        """Return how many workers the cluster has room for, and the CPUs of each."""
        found = ray.cluster_resources()
        cpus, gpus = int(found.get("CPU", 0)), int(found.get("GPU", 0))
        if self.gpu and gpus:
            return gpus, max(1, cpus // gpus)
        return cpus, 1


class _Run(Generic[Job]):
    """The work on some jobs; iterating over it does them."""

    def __init__(
        self,
        settings: RayWorkers,
        jobs: Sequence[Job],
        work: Work,
        advance: Report,
        silence: Callable[[Job], float] | None,
    ) -> None:
        self.settings, self.advance, self.silence = settings, advance, silence
        self.waiting = deque(enumerate(jobs))
        self.deaths: dict[int, int] = {}
        self.failed_starts = 0
        self.actors: list[_Actor[Job]] = []
        self.warned = False
        self.idle_since = time.monotonic()
        _, self.cpus = settings.room()
        # Put into the cluster once, however many actors take it.
        pickled = ray.put(ray.cloudpickle.dumps(work))
        options: dict[str, Any] = {"num_cpus": self.cpus, "concurrency_groups": {"beside": 2}}
        if settings.gpu:
            options["num_gpus"] = 1
        kind: Any = ray.remote(**options)(Worker)
        arguments = pickled, self.cpus, str(Path.cwd()), list(sys.path)
        self.make = lambda: kind.remote(*arguments)

    def __iter__(self) -> Iterator[Ended[Job]]:
        while self.waiting or any(actor.job for actor in self.actors):
            self._fill()
            self._hand_out()
            references = [item for actor in self.actors for item in actor.pending]
            ready, _ = ray.wait(references, num_returns=1, timeout=1.0)
            # All that is ready by now, so that none has to wait for its turn.
            ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
            known = set(ready)
            for actor in list(self.actors):
                if actor.starting in known:
                    self._started(actor)
                if actor.signing in known:
                    actor.hear(self.advance)
                if actor.doing in known:
                    yield from self._ended(actor)
                elif actor.doing is not None:
                    yield from self._late(actor)

    def _fill(self) -> None:
        """Ask for as many actors as there is room for; nodes may have come or gone."""
        wanted = self.settings.workers or max(1, self.settings.room()[0])
        busy = sum(actor.job is not None for actor in self.actors)
        for _ in range(min(wanted, busy + len(self.waiting)) - len(self.actors)):
            handle = self.make()
            self.actors.append(_Actor(handle, handle.ready.remote()))
        if any(actor.starting is None for actor in self.actors):
            self.idle_since, self.warned = time.monotonic(), False
        elif not self.warned and time.monotonic() - self.idle_since > _PENDING_SECONDS:
            self.warned = True
            what = f"{self.cpus} free CPU" + (" and a GPU" if self.settings.gpu else "")
            log(f"waiting for a node of the Ray cluster with {what}")

    def _hand_out(self) -> None:
        for actor in self.actors:
            if self.waiting and actor.job is None and actor.starting is None:
                actor.begin(self.waiting.popleft())

    def _started(self, actor: _Actor[Job]) -> None:
        reference, actor.starting = actor.starting, None
        try:
            ray.get(reference)
            self.failed_starts = 0
        except (RayActorError, RayTaskError) as error:
            self.actors.remove(actor)
            self.failed_starts += 1
            if self.failed_starts >= _TRIES:
                reason = str(error).strip().splitlines()[-1]
                raise VidkdError(
                    f"the Ray cluster cannot start a worker ({reason})",
                    remedy="install the same version of vidkd on every node, and start the "
                    "command in a folder that every node sees",
                ) from error

    def _ended(self, actor: _Actor[Job]) -> Iterator[Ended[Job]]:
        reference, done = actor.doing, actor.done
        (number, job), seconds = actor.end()
        try:
            kind, content, total = ray.get(reference)
        except RayError as error:
            self._drop(actor)
            self.deaths[number] = self.deaths.get(number, 0) + 1
            self.advance(-done)
            if self.deaths[number] < _TRIES:
                log(f"a worker of the Ray cluster died; its work is given to another: {job}")
                self.waiting.append((number, job))
                return
            reason = type(error).__name__
            yield Ended(
                job,
                None,
                VidkdError(
                    f"{_TRIES} workers of the Ray cluster died of it ({reason})",
                    remedy="if memory ran out, run again with fewer --workers or smaller frames",
                ),
                seconds,
            )
            return
        self.advance(total - done)
        if kind == "error":
            yield Ended(job, None, content, seconds)
        else:
            yield Ended(job, content, None, seconds)

    def _late(self, actor: _Actor[Job]) -> Iterator[Ended[Job]]:
        """Give up a job that has said nothing for too long."""
        assert actor.job is not None
        if self.silence is None:
            return
        allowed = self.silence(actor.job[1])
        if time.monotonic() - actor.heard > allowed:
            (_, job), seconds = actor.end()
            self._drop(actor)
            yield Ended(job, None, silent(allowed), seconds)

    def _drop(self, actor: _Actor[Job]) -> None:
        self.actors.remove(actor)
        with contextlib.suppress(RayError):
            ray.kill(actor.handle)

    def stop(self) -> None:
        """End all actors, and let those at work leave nothing behind."""
        busy = [actor for actor in self.actors if actor.doing is not None]
        with contextlib.suppress(RayError):
            for actor in busy:
                actor.handle.stop.remote()
            if busy:
                doing = [actor.doing for actor in busy]
                ray.wait(doing, num_returns=len(doing), timeout=_PATIENCE_SECONDS)
        for actor in list(self.actors):
            self._drop(actor)


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Be connected to a cluster while the block runs; one that was started here then ends."""
    if ray.is_initialized():
        yield
        return
    # What is computed here is nobody else's business.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"the Ray cluster cannot be reached ({reason})",
            path=address or os.environ.get("RAY_ADDRESS"),
            remedy="check the address and that `ray status` answers there, or start one with "
            "`ray start --head`",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
