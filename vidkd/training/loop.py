"""The loop of every training: epochs, metrics, the best epoch, and going on where a run stopped.

A run that is killed at any moment and started again ends with the same weights as an undisturbed
one on the same processor: what is random in an epoch follows from the seed and the number of the
epoch, and the state is saved after epochs. (On a GPU some operations add numbers in an order that
differs from run to run.)
"""

from __future__ import annotations

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch

from vidkd.console import log, progress
from vidkd.errors import VidkdError
from vidkd.training.processes import Processes
from vidkd.training.run_folder import RunFolder, RunResult

Result = TypeVar("Result", bound=RunResult)


class Stateful(Protocol):
    """What is saved with a run: networks, optimisers, schedules."""

    def state_dict(self) -> dict[str, Any]:
        """Return its state as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Return to a state."""


def train_in(
    folder: RunFolder,
    recipe: Mapping[str, Any],
    begin: Callable[[], Training[Result]],
    result: type[Result],
    *,
    processes: Processes,
    seed: int,
    overwrite: bool,
) -> Result:
    """Run a training in its folder and return what it found.

    A finished run with the same recipe is left alone, an unfinished one goes on after the last
    epoch that was saved. The caller's random state stays as it is.

    Args:
        folder: the run folder.
        recipe: all that decides the result, as JSON values.
        begin: makes the training once the folder is ready.
        result: what it returns.
        processes: those that train together; the first writes.
        seed: of the run, for the record.
        overwrite: replace a run with another recipe.

    Raises:
        UsageError: the folder holds a run with another recipe, or something else.
        VidkdError: another process trains there, the folder cannot be written, its state is
            damaged, or the training diverged.
    """
    with folder.lock() if processes.first else contextlib.nullcontext():
        before: Result | VidkdError | None = None
        if processes.first:
            try:
                folder.remove_leftovers()
                if folder.begin(recipe, overwrite=overwrite):
                    before = folder.read_result(result)
                    log(f"{folder.path}: done before, {before.summary}")
                else:
                    folder.write_environment(processes.device, seed)
            except VidkdError as error:
                before = error
        before = processes.share(before)
        if isinstance(before, VidkdError):
            raise before
        if before is not None:
            return before
        devices = [processes.device] if processes.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            return begin().run()


class Training(ABC, Generic[Result]):
    """One run: a subclass says what is trained, what is validated, and what is kept.

    Args:
        folder: of the run, begun and locked.
        processes: those that train together.
        stage: name of the command, for the progress bar.
        epochs: how many to train.
        seed: of everything random.
        unit: what progress is counted in.
        per_epoch: units in an epoch.

    Attributes:
        number: of the epoch that is running or was the last, counted from 1.
        history: one row of ``metrics.csv`` for each epoch.
        best: the best epoch, its score under `measure`, and what `keep` said of it.
        seconds: spent, over all resumed parts.
        resumed: whether the run goes on from a saved state.

    Raises:
        VidkdError: the saved state is damaged.
    """

    measure: ClassVar[str] = "map"
    """What the score of an epoch is called in `best`."""
    least: ClassVar[float] = -1.0
    """Less than any score."""
    later_wins: ClassVar[bool] = False
    """Of epochs with the same score, keep the last."""
    kept_from: float = 0.0
    """Share of the epochs after which one may be the best."""
    save_seconds: ClassVar[float] = 0.0
    """A killed run repeats at most the epochs of these seconds."""

    def __init__(
        self,
        folder: RunFolder,
        processes: Processes,
        *,
        stage: str,
        epochs: int,
        seed: int,
        unit: str = "epochs",
        per_epoch: int = 1,
    ) -> None:
        self.folder, self.processes = folder, processes
        self.stage, self.total, self.seed = stage, epochs, seed
        self.unit, self.per_epoch = unit, per_epoch
        self.number = 0
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Any] = {"epoch": 0, self.measure: self.least}
        self.seconds = 0.0
        self._state = folder.load_state()
        self.resumed = self._state is not None
        self._parts: dict[str, Stateful] = {}
        self.advance: Callable[[float], None] = lambda amount: None

    def keep_state(self, **parts: Stateful) -> None:
        """Name what the state consists of, and bring it to where a killed run was."""
        self._parts = parts
        state, self._state = self._state, None
        if state is None:
            return
        for name, part in parts.items():
            part.load_state_dict(state[name])
        self.number, self.best = state["epoch"], state["best"]
        self.history, self.seconds = state["history"], state["seconds"]
        if self.processes.first:
            log(f"{self.folder.path}: going on after epoch {self.number}")

    @abstractmethod
    def train(self, rng: np.random.Generator) -> dict[str, float]:
        """Train for one epoch; return the learning rate and the mean losses, by column.

        Args:
            rng: drawn from the seed and the number of the epoch.
        """

    @abstractmethod
    def validate(self) -> tuple[float, dict[str, float]]:
        """Return the score of the epoch, more being better, and its columns."""

    @abstractmethod
    def keep(self, score: float) -> dict[str, Any]:
        """Keep the weights as they are now, the best so far, and return what to know of them."""

    @abstractmethod
    def result(self) -> Result:
        """Return what the finished run found."""

    def write_weights(self) -> None:
        """Write the best weights if `keep` has not; called before the state is saved."""

    def curve(self, column: str) -> str:
        """Return the TensorBoard name of a column of ``metrics.csv``: group, slash, name."""
        return column.replace("_", "/", 1)

    def run(self) -> Result:
        """Train to the end; only the first process writes."""
        first = self.processes.first
        started, saved = time.monotonic() - self.seconds, self.seconds
        with contextlib.ExitStack() as stack:
            if first:
                # Imported here: it takes a second that commands which do not train need not spend.
                from torch.utils.tensorboard import SummaryWriter

                amount = self.total * self.per_epoch
                self.advance = stack.enter_context(progress(self.stage, amount, self.unit))
                self.advance(self.number * self.per_epoch)
                # Curves of epochs that are now repeated are hidden.
                board = SummaryWriter(str(self.folder.tensorboard), purge_step=self.number + 1)
                stack.enter_context(board)
            while self.number < self.total:
                self.number += 1
                row = self._epoch()
                self.history.append(row)
                self.seconds = time.monotonic() - started
                if not first:
                    continue
                for column, value in row.items():
                    if column != "epoch":
                        board.add_scalar(self.curve(column), value, self.number)
                if self.seconds - saved >= self.save_seconds or self.number == self.total:
                    # The state comes last: what it tells of is there.
                    if self.best["epoch"]:
                        self.write_weights()
                    board.flush()
                    self._save()
                    saved = self.seconds
        result = self.result()
        if first:
            self.folder.finish(result)
            log(f"{self.folder.path}: {result.summary}")
        return result

    def _epoch(self) -> dict[str, float]:
        """Train and validate once, and return the epoch's row of ``metrics.csv``."""
        rng = np.random.default_rng([self.seed, self.number])
        found = self.train(rng)
        if not all(map(math.isfinite, found.values())):
            name, value = next(item for item in found.items() if not math.isfinite(item[1]))
            raise VidkdError(
                f"the training diverged in epoch {self.number} ({name}: {value})",
                path=self.folder.path,
                remedy="use a smaller --learning-rate, or smaller weights if there are several "
                "losses, in another --output",
            )
        score, validation = self.validate()
        before = self.best[self.measure]
        late = self.number > self.kept_from * self.total
        better = score > before or (score == before and self.later_wins)
        if self.processes.first and late and better:
            self.best = {"epoch": self.number, self.measure: score, **self.keep(score)}
        return {"epoch": self.number, **found, **validation}

    def _save(self) -> None:
        self.folder.write_metrics(self.history)
        self.folder.save_state(
            {
                "epoch": self.number,
                **{name: part.state_dict() for name, part in self._parts.items()},
                "best": self.best,
                "history": self.history,
                "seconds": self.seconds,
            }
        )
