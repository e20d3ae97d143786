"""The one interface behind which jobs are done, so that no job knows where."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from vidkd.errors import UsageError
from vidkd.workers import Ended, Report, Work, Worker, begun, run_pool

Job = TypeVar("Job")

CLUSTERS = ("local", "ray", "slurm")
"""What ``--cluster`` takes; the address of a Ray cluster as well."""


class Executor(Protocol):
    """Does jobs somewhere."""

    def run(
        self,
        jobs: Sequence[Job],
        work: Work,
        *,
        advance: Report,
        silence: Callable[[Job], float] | None = None,
    ) -> Iterator[Ended[Job]]:
        """Yield each job when it has ended, in the order of ending; none is lost.

        Closing the generator ends the work that is still under way.

        Args:
            jobs: picklable descriptions of what is to be done.
            work: picklable callable that does one.
            advance: receives the progress of all workers.
            silence: for how many seconds a job may report nothing before it is given up; None
                waits for ever.

        Raises:
            VidkdError: there is no cluster, or its nodes cannot do such work at all.
        """


@dataclass(frozen=True)
class LocalPool:
    """Processes of this machine; see ``vidkd.workers.run_pool``."""

    workers: int
    first: Worker[Any] | None = None

    @contextlib.contextmanager
    def begun(self, *modules: str) -> Iterator[LocalPool]:
        """Yield the pool; a single process imports modules meanwhile (``vidkd.workers.begun``)."""
        if self.workers != 1:
            yield self
            return
        with begun(*modules) as first:
            yield replace(self, first=first)

    def run(
        self,
        jobs: Sequence[Job],
        work: Work,
        *,
        advance: Report,
        silence: Callable[[Job], float] | None = None,
    ) -> Iterator[Ended[Job]]:
        """See :meth:`Executor.run`."""
        return run_pool(
            jobs, work, workers=self.workers, advance=advance, silence=silence, first=self.first
        )


def executor_for(
    cluster: str,
    workers: int | None,
    *,
    local: int,
    gpu: bool = False,
    slurm: Mapping[str, str] | None = None,
) -> Executor:
    """Return what does jobs where ``--cluster`` says.

    Args:
        cluster: ``local``, ``ray`` (the cluster of ``RAY_ADDRESS`` or the one that runs on this
            machine, else one that is started for this call), the address of a Ray cluster
            (``ray://HOST:PORT``, ``HOST:PORT``), or ``slurm``.
        workers: how many jobs at a time; None takes ``local`` on this machine, all that a Ray
            cluster has room for, and 8 tasks of a SLURM array.
        local: see ``workers``.
        gpu: each worker needs a GPU of its own.
        slurm: parameters of SLURM by name, such as ``partition``.

    Raises:
        UsageError: there is no such cluster, or its library is not installed.
    """
    if slurm and cluster != "slurm":
        raise UsageError("--slurm needs --cluster slurm", remedy="add it, or leave out --slurm")
    if cluster == "local":
        return LocalPool(workers or local)
    try:
        if cluster == "slurm":
            from vidkd.cluster.slurm import SlurmArray

            return SlurmArray(workers or 8, gpu, dict(slurm or {}))
        if cluster == "ray" or ":" in cluster:
            from vidkd.cluster.ray_workers import RayWorkers

            return RayWorkers(None if cluster == "ray" else cluster, workers, gpu)
    except ModuleNotFoundError as error:
        if error.name not in {"ray", "submitit"}:
            raise
        remedy = (
            f"install it with `pip install 'vidkd[{'ray' if error.name == 'ray' else 'slurm'}]'`"
        )
        raise UsageError(f"{error.name} is not installed", remedy=remedy) from error
    raise UsageError(
        f"there is no cluster {cluster!r}",
        remedy=f"give one of {', '.join(CLUSTERS)}, or the address of a Ray cluster",
    )
