"""Jobs as an array of SLURM tasks, through submitit."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import submitit

from vidkd.console import log
from vidkd.errors import UsageError, VidkdError
from vidkd.files import write_text
from vidkd.machine import cores
from vidkd.workers import Ended, Report, Work, run_pool

Job = TypeVar("Job")

FOLDER = Path("slurm-vidkd")
"""Where scripts, logs and results of the tasks lie, below the folder of the command."""
_LOOK_SECONDS = 2.0
_TRIES = 2


@dataclass(frozen=True)
class SlurmArray:
    """Tasks of a SLURM array; each does its part of the jobs with the CPUs it was given.

    Attributes:
        tasks: how many at most.
        gpu: each needs a GPU, and does one job at a time.
        parameters: for SLURM by name, such as ``partition`` and ``time``.
        system: ``slurm``, or ``local`` for processes of this machine in its place.
    """

    tasks: int
    gpu: bool = False
    parameters: dict[str, str] = field(default_factory=dict)
    system: str = "slurm"

    def run(
        self,
        jobs: Sequence[Job],
        work: Work,
        *,
        advance: Report,
        silence: Callable[[Job], float] | None = None,
    ) -> Iterator[Ended[Job]]:
        """See :meth:`vidkd.cluster.Executor.run`."""
        count = min(self.tasks, len(jobs))
        left = [list(jobs[number::count]) for number in range(count)]
        submitter = self._submitter()
        shown = [0.0] * count
        tasks: dict[int, Any] = {}

        def submit(numbers: Sequence[int]) -> None:
            with submitter.batch():
                for number in numbers:
                    part = _Part(left[number], work, silence, self.gpu, self._progress(number))
                    tasks[number] = submitter.submit(part)

        try:
            submit(range(count))
            tries = dict.fromkeys(tasks, 1)
            while tasks:
                for number, task in list(tasks.items()):
                    done = self._read(number)
                    advance(done - shown[number])
                    shown[number] = done
                    if not task.done():
                        continue
                    del tasks[number]
                    try:
                        yield from task.result()
                    except (
                        submitit.core.utils.UncompletedJobError,
                        submitit.core.utils.FailedJobError,
                    ) as error:
                        if tries[number] < _TRIES:
                            tries[number] += 1
                            log(
                                f"SLURM task {task.job_id} ended early; its work is submitted again"
                            )
                            submit([number])
                            continue
                        reason = str(error).strip().splitlines()[0]
                        for job in left[number]:
                            problem = VidkdError(
                                f"the SLURM task that worked on it ended ({reason})",
                                remedy=f"look into {FOLDER}, and give more --slurm time= or mem=",
                            )
                            yield Ended(job, None, problem, 0.0)
                if tasks:
                    time.sleep(_LOOK_SECONDS)
        finally:
            for task in tasks.values():
                with contextlib.suppress(Exception):
                    task.cancel()

    def _submitter(self) -> Any:
        if self.system == "slurm" and submitit.AutoExecutor.which() != "slurm":
            raise UsageError(
                "there is no SLURM on this machine (no command srun)",
                remedy="start the command on a login node, or use --shard in your own scripts",
            )
        submitter = submitit.AutoExecutor(FOLDER, cluster=self.system)
        try:
            submitter.update_parameters(
                name="vidkd",
                timeout_min=24 * 60,
                cpus_per_task=1 if self.system == "local" else 4,
                **({"gpus_per_node": 1} if self.gpu else {}),
            )
            if self.parameters:
                submitter.update_parameters(
                    **{f"slurm_{name}": value for name, value in self.parameters.items()}
                )
        except (NameError, TypeError, ValueError) as error:
            raise UsageError(f"--slurm: {error}", remedy="see sbatch --help for names") from error
        return submitter

    def _progress(self, number: int) -> Path:
        return (FOLDER / f"{os.getpid()}-{number}.progress").resolve()

    def _read(self, number: int) -> float:
        with contextlib.suppress(OSError, ValueError):
            return float(self._progress(number).read_text(encoding="utf-8"))
        return 0.0


@dataclass(frozen=True)
class _Part:
    """What one task does; called on its node."""

    jobs: Sequence[Any]
    work: Work
    silence: Callable[[Any], float] | None
    gpu: bool
    progress: Path

    def __call__(self) -> list[Ended[Any]]:
        done, written = 0.0, time.monotonic()

        def advance(amount: float) -> None:
            nonlocal done, written
            done += amount
            if time.monotonic() - written > _LOOK_SECONDS:
                written = time.monotonic()
                write_text(self.progress, f"{done}")

        workers = 1 if self.gpu else cores()
        ended = list(
            run_pool(self.jobs, self.work, workers=workers, advance=advance, silence=self.silence)
        )
        write_text(self.progress, f"{done}")
        return ended
