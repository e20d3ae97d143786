"""Jobs on a Ray cluster: one actor for each CPU or GPU, which keeps what it has loaded.

No job is handed out before an actor is free for it, so that memory is flat however many jobs there
are. The job of an actor that died, or whose node did, is given to another.

Work on a GPU whose network can be told from the rest (``vidkd.features.tasks.Task.fed``) is
divided: the actor on the GPU has many jobs under way, and what its network is to see is made by one
task for each, on any CPU of the cluster. Such a task is never more than two batches ahead.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from vidkd.console import log
from vidkd.errors import UsageError, VidkdError
from vidkd.workers import (
    Cancelled,
    Ended,
    Report,
    Work,
    attempted,
    for_people,
    limit_threads,
    silent,
)

Job = TypeVar("Job")

_SIGN_SECONDS = 0.5
_PATIENCE_SECONDS = 5.0
_TRIES = 3
"""So many workers may die of a job before it has failed, and so many starts in a row may fail."""
_PENDING_SECONDS = 30.0
_LANES = 16
"""Most jobs under way in an actor on a GPU that is fed by tasks on CPUs."""
_AHEAD = 2
"""Batches that such a task may be ahead of the GPU; the next is made when one was taken."""


class _FeederLost(BaseException):
    """The task that made batches died, or its node did."""


class Worker:
    """The actor.

    Args:
        work: does a job.
        threads: to do it with.
        folder: of the driver, which relative paths start from.
        path: the driver's ``sys.path``.
        fed: only the network is computed here, for several jobs at a time.
    """

    def __init__(
        self, work: bytes, threads: int, folder: str, path: Sequence[str], fed: bool
    ) -> None:
        _enter(threads, folder, path)
        self._work: Work = ray.cloudpickle.loads(work)
        if fed:
            self._work = self._work.fed(self._feed)
        self._threads, self._place = threads, (folder, list(path))
        self._progress: dict[int, tuple[float, int]] = {}
        self._stopping = threading.Event()

    def ready(self) -> None:
        """Answer once the actor has started."""

    def do(self, number: int, job: Any) -> tuple[str, Any, float]:
        """Do one job; return what ``vidkd.workers.attempted`` gives, and its progress.

        ``("lost", reason)`` is for a job that is to be given out again.
        """
        done, reports = 0.0, 0

        def report(amount: float) -> None:
            nonlocal done, reports
            if self._stopping.is_set():
                raise Cancelled
            done, reports = done + amount, reports + 1
            self._progress[number] = done, reports

        try:
            return (*attempted(self._work, job, report, self._threads), done)
        except Cancelled:
            return "error", VidkdError("was stopped", remedy="run it again"), done
        except _FeederLost as error:
            return "lost", str(error), done
        finally:
            self._progress.pop(number, None)

    def _feed(self, make: Callable[[Report], Iterator[Any]], report: Report) -> Iterator[Any]:
        """Yield what a task on some CPU makes; the ``vidkd.workers.Feed`` of an actor on a GPU."""
        options: dict[str, Any] = {
            "num_cpus": 1,
            "max_retries": 0,
            "num_returns": "streaming",
            "_generator_backpressure_num_objects": _AHEAD,
        }
        task: Any = ray.remote(**options)(_made)
        pickled = ray.cloudpickle.dumps(make)
        made = task.remote(pickled, *self._place)
        begun = False
        try:
            while True:
                # Until a CPU is free nothing comes, which is not the video's fault.
                while not begun and not ray.wait([made], timeout=1.0)[0]:
                    report(0)
                try:
                    amount, content = ray.get(next(made))
                except StopIteration:
                    return
                except RayError as error:
                    raise _FeederLost(type(error).__name__) from error
                begun = True
                report(amount)
                if isinstance(content, VidkdError):
                    raise content
                if content is not None:
                    yield content
        finally:
            ray.cancel(made)

    @ray.method(concurrency_group="beside")
    def sign(self, number: int) -> tuple[float, int]:
        """Return the progress of a job, and a number that has grown if it reported anything."""
        time.sleep(_SIGN_SECONDS)
        return self._progress.get(number, (0.0, 0))

    @ray.method(concurrency_group="beside")
    def stop(self) -> None:
        """Let all jobs end at their next report."""
        self._stopping.set()


def _enter(threads: int, folder: str, path: Sequence[str]) -> None:
    """Make a process of the cluster like the driver's; called before anything is unpickled."""
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


def _made(make: bytes, folder: str, path: Sequence[str]) -> Iterator[tuple[float, Any]]:
    """Yield the progress since the last item, and what ``make`` yields, or the error it ends with.

    The first and the last item have no content.
    """
    done = 0.0

    def report(amount: float) -> None:
        nonlocal done
        done += amount

    yield 0.0, None
    try:
        _enter(1, folder, path)
        for content in ray.cloudpickle.loads(make)(report):
            amount, done = done, 0.0
            yield amount, content
        yield done, None
    except Exception as error:
        yield done, for_people(error)


@dataclass(eq=False)
class _Actor:
    """One actor, seen from the driver.

    Attributes:
        handle: Ray's.
        starting: until it has started.
        given_up: it was killed for one of its jobs; the others cannot be blamed.
    """

    handle: Any
    starting: Any
    given_up: bool = False


@dataclass(eq=False)
class _Lane(Generic[Job]):
    """One of the jobs that an actor may have under way."""

    actor: _Actor
    job: tuple[int, Job] | None = None
    doing: Any = None
    signing: Any = None
    done: float = 0.0
    reports: int = -1
    started: float = field(default_factory=time.monotonic)
    heard: float = 0.0

    def begin(self, job: tuple[int, Job]) -> None:
        self.job, self.done, self.reports = job, 0.0, -1
        self.started = self.heard = time.monotonic()
        self.doing = self.actor.handle.do.remote(*job)
        self.signing = self.actor.handle.sign.remote(job[0])

    def hear(self, advance: Report) -> None:
        """Take note of how far it is."""
        reference, self.signing = self.signing, None
        try:
            done, reports = ray.get(reference)
        except RayError:
            return  # it died, which its job will tell
        if reports != self.reports:
            self.reports, self.heard = reports, time.monotonic()
        if self.job is not None:
            advance(done - self.done)
            self.done = done
            self.signing = self.actor.handle.sign.remote(self.job[0])

    def end(self) -> tuple[tuple[int, Job], float]:
        """Return the job it no longer has, and for how long it had it."""
        assert self.job is not None
        job, self.job, self.doing, self.signing = self.job, None, None, None
        return job, time.monotonic() - self.started


@dataclass(frozen=True)
class Room:
    """What a cluster has room for.

    Attributes:
        actors: how many.
        cpus: of each.
        lanes: jobs under way in each.
    """

    actors: int
    cpus: int
    lanes: int = 1


@dataclass(frozen=True)
class RayWorkers:
    """Actors of a Ray cluster.

    Attributes:
        address: of the cluster; None leaves it to Ray: that of ``RAY_ADDRESS``, the one that runs
            on this machine, or one that is started here.
        workers: how many jobs at a time; None as many as the cluster has GPUs or CPUs for, also
            those of nodes that come later.
        gpu: each actor has a GPU, and its share of the CPUs, or tasks on them that feed it.
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

    def room(self, fed: bool) -> Room:
        """Return what the connected cluster has room for; ``fed`` divides work on a GPU."""
        found = ray.cluster_resources()
        cpus, gpus = int(found.get("CPU", 0)), int(found.get("GPU", 0))
        if not (self.gpu and gpus):
            return Room(cpus, 1)
        share = max(1, cpus // gpus)
        # Its own part is small, and with a CPU of its own none might be left for what feeds it.
        return Room(gpus, 0, min(share, _LANES)) if fed else Room(gpus, share)


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
        self.actors: list[_Actor] = []
        self.lanes: list[_Lane[Job]] = []
        self.warned = False
        self.idle_since = time.monotonic()
        divide = getattr(work, "fed", None)
        # Whether it can be divided shows with any feed; the workers put theirs in.
        self.fed = settings.gpu and divide is not None and divide(lambda make, report: make(report))
        self.cpus = settings.room(bool(self.fed)).cpus
        # Put into the cluster once, however many actors take it.
        pickled = ray.put(ray.cloudpickle.dumps(work))
        lanes = _LANES if self.fed else 1
        options: dict[str, Any] = {
            "num_cpus": self.cpus,
            "max_concurrency": lanes,
            "concurrency_groups": {"beside": lanes + 1},
        }
        if settings.gpu:
            options["num_gpus"] = 1
        kind: Any = ray.remote(**options)(Worker)
        arguments = pickled, max(1, self.cpus), str(Path.cwd()), list(sys.path), bool(self.fed)
        self.make = lambda: kind.remote(*arguments)
        nodes = sum(node["Alive"] for node in ray.nodes())
        found = ray.cluster_resources()
        log(
            f"Ray cluster: {nodes} node{'s' * (nodes > 1)}, {found.get('CPU', 0):.0f} CPUs, "
            f"{found.get('GPU', 0):.0f} GPUs"
        )

    def __iter__(self) -> Iterator[Ended[Job]]:
        while self.waiting or any(lane.job for lane in self.lanes):
            self._fill()
            self._hand_out()
            references = [
                *(actor.starting for actor in self.actors),
                *(item for lane in self.lanes for item in (lane.doing, lane.signing)),
            ]
            references = [item for item in references if item is not None]
            ray.wait(references, num_returns=1, timeout=1.0)
            # All that is ready by now, so that none has to wait for its turn.
            ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
            known = set(ready)
            for actor in list(self.actors):
                if actor.starting in known:
                    self._started(actor)
            for lane in list(self.lanes):
                if lane.signing in known:
                    lane.hear(self.advance)
                if lane.doing in known:
                    yield from self._ended(lane)
                elif lane.doing is not None:
                    yield from self._late(lane)

    def _fill(self) -> None:
        """Ask for as many actors as there is room for; nodes may have come or gone."""
        room = self.settings.room(bool(self.fed))
        wanted = self.settings.workers or max(1, room.actors * room.lanes)
        busy = sum(lane.job is not None for lane in self.lanes)
        for _ in range(min(wanted, busy + len(self.waiting)) - len(self.lanes)):
            if not self.fed or len(self.actors) < max(1, room.actors):
                handle = self.make()
                self.actors.append(_Actor(handle, handle.ready.remote()))
                self.lanes.append(_Lane(self.actors[-1]))
                continue
            owners = [lane.actor for lane in self.lanes]
            least = min(self.actors, key=owners.count)
            if owners.count(least) >= _LANES:
                break
            self.lanes.append(_Lane(least))
        if any(actor.starting is None for actor in self.actors):
            self.idle_since, self.warned = time.monotonic(), False
        elif not self.warned and time.monotonic() - self.idle_since > _PENDING_SECONDS:
            self.warned = True
            wants = [f"{self.cpus} free CPU"] * bool(self.cpus) + ["a GPU"] * self.settings.gpu
            log(f"waiting for a node of the Ray cluster with {' and '.join(wants)}")

    def _hand_out(self) -> None:
        for lane in self.lanes:
            if self.waiting and lane.job is None and lane.actor.starting is None:
                lane.begin(self.waiting.popleft())

    def _started(self, actor: _Actor) -> None:
        reference, actor.starting = actor.starting, None
        try:
            ray.get(reference)
            self.failed_starts = 0
        except (RayActorError, RayTaskError) as error:
            self._drop(actor)
            self.failed_starts += 1
            if self.failed_starts >= _TRIES:
                reason = str(error).strip().splitlines()[-1]
                raise VidkdError(
                    f"the Ray cluster cannot start a worker ({reason})",
                    remedy="install the same version of vidkd on every node, and start the "
                    "command in a folder that every node sees",
                ) from error

    def _ended(self, lane: _Lane[Job]) -> Iterator[Ended[Job]]:
        reference, done = lane.doing, lane.done
        (number, job), seconds = lane.end()
        try:
            kind, content, total = ray.get(reference)
        except RayError as error:
            self._drop(lane.actor)
            kind, content, total = "lost", type(error).__name__, 0.0
        if kind != "lost":
            self.advance(total - done)
            if kind == "error":
                yield Ended(job, None, content, seconds)
            else:
                yield Ended(job, content, None, seconds)
            return
        self.advance(-done)
        self.deaths[number] = self.deaths.get(number, 0) + (not lane.actor.given_up)
        if self.deaths[number] < _TRIES:
            log(
                "a worker of the Ray cluster died; its work is given to another: "
                f"{getattr(job, 'key', job)}"
            )
            self.waiting.append((number, job))
            return
        problem = VidkdError(
            f"{_TRIES} workers of the Ray cluster died of it ({content})",
            remedy="if memory ran out, run again with fewer --workers or smaller frames",
        )
        yield Ended(job, None, problem, seconds)

    def _late(self, lane: _Lane[Job]) -> Iterator[Ended[Job]]:
        """Give up a job that has said nothing for too long."""
        assert lane.job is not None
        if self.silence is None:
            return
        allowed = self.silence(lane.job[1])
        if time.monotonic() - lane.heard > allowed:
            (_, job), seconds = lane.end()
            lane.actor.given_up = True
            self._drop(lane.actor)
            yield Ended(job, None, silent(allowed), seconds)

    def _drop(self, actor: _Actor) -> None:
        """End an actor; other jobs that it has under way are lost, which they will tell."""
        self.actors = [item for item in self.actors if item is not actor]
        self.lanes = [item for item in self.lanes if item.actor is not actor or item.job]
        with contextlib.suppress(RayError):
            ray.kill(actor.handle)

    def stop(self) -> None:
        """End all actors, and let those at work leave nothing behind."""
        doing = [lane.doing for lane in self.lanes if lane.doing is not None]
        with contextlib.suppress(RayError):
            for actor in self.actors:
                actor.handle.stop.remote()
            if doing:
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
        with warnings.catch_warnings(action="ignore"):  # the error says it all
            ray.init(
                address=address,
                # Of a cluster that is started here; a port less that anybody could reach.
                include_dashboard=None if address or os.environ.get("RAY_ADDRESS") else False,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
            )
    except Exception as error:  # a busy machine's Ray raises just this
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"the Ray cluster cannot be reached ({reason})",
            path=address or os.environ.get("RAY_ADDRESS"),
            remedy="check the address and that `ray status` answers there, set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN if its nodes have them, or start one with "
            "`ray start --head`; on a busy machine run the same command again",
        ) from error
    try:
        # Ray prints the last words of a node that died; standard output is data.
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        ray.shutdown()
