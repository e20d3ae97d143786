"""Stages that build on each other in a graph, done in parallel; one that fails stops no other."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidkd.console import log, progress
from vidkd.errors import VidkdError
from vidkd.pipeline.stages import Stage
from vidkd.workers import Ended, Report, run_pool, threads_per_worker


@dataclass
class Outcome:
    """What became of the stages.

    Attributes:
        ran: names of those that were done now.
        skipped: names of those that had been done before.
        failed: why, by name; also of those that build on a failed one.
    """

    ran: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def run_waves(
    stages: Sequence[Stage], folder: Path, *, workers: int, outcome: Outcome | None = None
) -> Outcome:
    """Do the stages that are not finished, ``workers`` at a time.

    A stage is finished as in ``run_stages``, and done again when one that it builds on was done
    now. More than one worker are spawned processes. What a stage logs goes to
    ``folder/logs/NAME.log``.

    Args:
        stages: those they build on come before them; actions must be picklable.
        folder: of the stamps and logs.
        workers: number of processes.
        outcome: of earlier stages, which is added to.
    """
    outcome = outcome or Outcome()
    levels: dict[str, int] = {}
    for stage in stages:
        levels[stage.name] = 1 + max((levels.get(name, 0) for name in stage.after), default=0)
    with progress("benchmark", len(stages), "stages") as advance:
        for level in sorted(set(levels.values())):
            wave = [stage for stage in stages if levels[stage.name] == level]
            todo = [stage for stage in wave if _needed(stage, folder, outcome)]
            advance(len(wave) - len(todo))
            # Not what the pool offers, which depends on how many are left after a kill: other
            # numbers of threads add in another order, and end with other weights.
            jobs = [(stage, folder, threads_per_worker(workers)) for stage in todo]
            # One at a time needs no process of its own, which would import torch once more.
            ended = (
                run_pool(jobs, _work, workers=workers, advance=_ignore)
                if workers > 1
                else map(_in_this_process, jobs)
            )
            for item in ended:
                _settle(item.job[0], folder, item.error, item.seconds, outcome)
                advance(1)
    return outcome


def _needed(stage: Stage, folder: Path, outcome: Outcome) -> bool:
    broken = next((name for name in stage.after if name in outcome.failed), None)
    if broken is not None:
        outcome.failed[stage.name] = f"{broken} failed"
        return False
    if stage.finished(folder) and not set(stage.after) & set(outcome.ran):
        outcome.skipped.append(stage.name)
        return False
    return True


def _settle(
    stage: Stage, folder: Path, error: VidkdError | None, seconds: float, outcome: Outcome
) -> None:
    if error is not None:
        outcome.failed[stage.name] = str(error)
        log(f"failed: {stage.name}: {error}")
        return
    stage.finish(folder, seconds)
    outcome.ran.append(stage.name)
    log(f"{stage.name}: {seconds:.0f} s")


def _in_this_process(job: tuple[Stage, Path, int]) -> Ended[tuple[Stage, Path, int]]:
    """Do one stage here, with the outcome that a worker process would have given."""
    import torch

    before, started = torch.get_num_threads(), time.monotonic()
    error: VidkdError | None = None
    try:
        _work(job, _ignore, before)
    except VidkdError as found:
        error = found
    except Exception as found:  # whatever it is, the other rows are done
        text = " ".join(str(found).split())
        error = VidkdError(f"unexpected {type(found).__name__}: {text}", remedy="report it")
    finally:
        torch.set_num_threads(before)
    return Ended(job, None, error, time.monotonic() - started)


def _work(job: tuple[Stage, Path, int], report: Report, offered: int) -> None:
    """Do one stage in a worker process; see ``vidkd.workers.Work``."""
    import torch

    stage, folder, threads = job
    torch.set_num_threads(threads)
    path = folder / "logs" / f"{stage.name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream, contextlib.redirect_stderr(stream):
        stage.action()


def _ignore(amount: float, /) -> Any:
    """The stages are what is counted, not what happens inside them."""
