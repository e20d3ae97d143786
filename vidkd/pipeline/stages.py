"""Stages of an experiment: steps that remember that they are finished, and with which settings."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidkd.cluster import Executor, LocalPool
from vidkd.console import log, progress
from vidkd.differences import differences, listed
from vidkd.errors import UsageError, VidkdError
from vidkd.files import write_json
from vidkd.workers import Ended, Report, threads_per_worker


@dataclass(frozen=True)
class Stage:
    """One step of an experiment.

    Attributes:
        name: unique within the experiment; also the name of its record, ``stages/NAME.json``.
        settings: everything that decides the result, as JSON values.
        outputs: the files or folders that must exist for the stage to count as finished.
        action: does the work; picklable where stages are done in processes. A stage whose action
            raises is not finished. An action may be called again after it was killed, and then
            goes on from what it finds.
        after: names of the stages it builds on.
    """

    name: str
    settings: dict[str, Any]
    outputs: Sequence[Path]
    action: Callable[[], Any]
    after: tuple[str, ...] = ()

    def changed(self, folder: Path) -> list[str]:
        """Return in what it was made with other settings; nothing when it was never made."""
        recorded = self._recorded(folder)
        return [] if recorded is None else differences(recorded, self._plain())

    def refuse_changes(self, folder: Path) -> None:
        """Refuse to go on with what was made with other settings.

        Raises:
            UsageError: it was; the message names them.
        """
        if found := self.changed(folder):
            raise UsageError(
                f"stage {self.name} was made with other settings ({listed(found)})",
                path=folder,
                remedy="choose another --output, or pass --overwrite to make it again",
            )

    def finished(self, folder: Path) -> bool:
        """Return whether it was finished with these settings, and its outputs still exist."""
        made = self._recorded(folder) == self._plain()
        return made and all(path.exists() for path in self.outputs)

    def finish(self, folder: Path, seconds: float) -> None:
        """Record that it is finished."""
        record = {"settings": self._plain(), "seconds": round(seconds, 1)}
        write_json(self._record(folder), record)

    def _record(self, folder: Path) -> Path:
        return folder / "stages" / f"{self.name}.json"

    def _plain(self) -> Any:
        """Return the settings as they are read back from JSON."""
        return json.loads(json.dumps(self.settings))

    def _recorded(self, folder: Path) -> dict[str, Any] | None:
        try:
            record = json.loads(self._record(folder).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        found = record.get("settings") if isinstance(record, dict) else None
        return found if isinstance(found, dict) else None


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


def run_stages(
    stages: Sequence[Stage],
    folder: Path,
    *,
    workers: int = 1,
    keep_going: bool = False,
    overwrite: bool = False,
    outcome: Outcome | None = None,
    cluster: Executor | None = None,
) -> Outcome:
    """Do the stages that are not finished, and again those whose inputs have been made again.

    Args:
        stages: those they build on come before them.
        folder: of the records and logs.
        workers: how many are done at once; more than one in spawned processes.
        keep_going: note a failure, do what does not build on it, and write what stages say to
            ``folder/logs/NAME.log``. Otherwise the first failure is raised, and stages speak here.
        overwrite: do again what was made with other settings.
        outcome: of earlier stages, which is added to.
        cluster: does them in place of the workers.

    Raises:
        UsageError: a stage was made with other settings, and ``overwrite`` is not set.
        VidkdError: a stage failed, and ``keep_going`` is not set; finished ones are kept.
    """
    outcome = outcome or Outcome()
    if not overwrite:
        for stage in stages:
            stage.refuse_changes(folder)
    bar = progress("stages", len(stages), "stages") if keep_going else nullcontext(_ignore)
    with bar as advance:
        for group in _levels(stages) if workers > 1 or cluster else ([stage] for stage in stages):
            todo = [stage for stage in group if _needed(stage, folder, outcome)]
            for stage in group if not keep_going else ():
                state = " ..." if stage in todo else ": done before"
                log(f"[{1 + stages.index(stage)}/{len(stages)}] {stage.name}{state}")
            advance(len(group) - len(todo))
            # Not the number that the pool offers, which depends on how many stages are left after
            # a kill: other numbers of threads add in another order, and end with other weights.
            threads = threads_per_worker(workers) if keep_going else None
            jobs = [(stage, folder, threads) for stage in todo]
            for ended in _done(jobs, workers, keep_going, cluster):
                _settle(ended, outcome, keep_going)
                advance(1)
    return outcome


Job = tuple[Stage, Path, int | None]
"""A stage, the folder, and with how many threads; None for no log file, and threads as they are."""


def _levels(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Return the stages in groups that build on earlier groups only."""
    levels: dict[str, int] = {}
    for stage in stages:
        levels[stage.name] = 1 + max((levels.get(name, 0) for name in stage.after), default=0)
    return [
        [stage for stage in stages if levels[stage.name] == level]
        for level in sorted(set(levels.values()))
    ]


def _needed(stage: Stage, folder: Path, outcome: Outcome) -> bool:
    broken = next((name for name in stage.after if name in outcome.failed), None)
    if broken is not None:
        outcome.failed[stage.name] = f"{broken} failed"
        return False
    if stage.finished(folder) and not set(stage.after) & set(outcome.ran):
        outcome.skipped.append(stage.name)
        return False
    return True


def _done(
    jobs: Sequence[Job], workers: int, keep_going: bool, cluster: Executor | None
) -> Iterable[Ended[Job]]:
    if workers > 1 or cluster:
        return (cluster or LocalPool(workers)).run(jobs, _work, advance=_ignore)
    # One at a time needs no process of its own, which would import torch once more.
    return (_in_this_process(job, keep_going) for job in jobs)


def _settle(ended: Ended[Job], outcome: Outcome, keep_going: bool) -> None:
    stage, folder, _ = ended.job
    if ended.error is None:
        stage.finish(folder, ended.seconds)
        outcome.ran.append(stage.name)
        log(f"{stage.name}: {ended.seconds:.0f} s")
    elif keep_going:
        outcome.failed[stage.name] = str(ended.error)
        log(f"failed: {stage.name}: {ended.error}")
    else:
        raise ended.error


def _in_this_process(job: Job, keep_going: bool) -> Ended[Job]:
    """Do one stage here, with the outcome that a worker process would have given."""
    import torch

    before, started = torch.get_num_threads(), time.monotonic()
    error: VidkdError | None = None
    try:
        _work(job, _ignore, before)
    except VidkdError as found:
        error = found
    except Exception as found:  # whatever it is, the other stages are done
        if not keep_going:
            raise
        text = " ".join(str(found).split())
        error = VidkdError(f"unexpected {type(found).__name__}: {text}", remedy="report it")
    finally:
        torch.set_num_threads(before)
    return Ended(job, None, error, time.monotonic() - started)


def _work(job: Job, report: Report, offered: int) -> None:
    """Do one stage; see ``vidkd.workers.Work``."""
    stage, folder, threads = job
    if threads is None:
        stage.action()
        return
    import torch

    torch.set_num_threads(threads)
    path = folder / "logs" / f"{stage.name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream, redirect_stderr(stream):
        stage.action()


def _ignore(amount: float, /) -> Any:
    """The stages are what is counted, not what happens inside them."""
