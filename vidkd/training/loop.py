"""The loop of every training: epochs, metrics, the best epoch, and going on where a run stopped.

A run that is killed at any moment and started again ends with the same weights as an undisturbed
one on the same processor: what is random in an epoch follows from the seed and the number of the
epoch, and the state is saved after epochs. (On a GPU some operations add numbers in an order that
differs from run to run.)

A run folder has ``recipe.yaml`` (all settings as run), ``environment.json`` (versions, device),
``metrics.csv`` and ``tensorboard/`` (one row per epoch), the weights of the best epoch so far,
``last.pt`` (the state to resume from) and, written last, ``result.json``: the run is finished.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import io
import json
import math
import pickle
import platform
import shutil
import time
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
import yaml

from vidkd.cache import library_versions
from vidkd.console import log, progress
from vidkd.differences import differences, listed
from vidkd.errors import UsageError, VidkdError
from vidkd.files import atomic_path, refuse_address, write_json, write_text
from vidkd.training.processes import Processes

Result = TypeVar("Result", bound="RunResult")

# Where things lie is recorded, but a moved folder does not make a run another one.
_NOT_COMPARED = frozenset({"paths"})
_NAMES = ("result.json", "last.pt", "metrics.csv", "environment.json", "tensorboard", "recipe.yaml")
_DAMAGE = (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a finished run found; each training adds its own fields.

    Attributes:
        output: the run folder.
        best_epoch: the epoch whose weights are kept, counted from 1.
        epochs: how many were trained.
        seconds: time spent, over all resumed parts.
        skipped: the run was finished before and nothing was done.
    """

    output: Path
    best_epoch: int
    epochs: int
    seconds: float
    skipped: bool = False

    @property
    def summary(self) -> str:
        """The best epoch in words."""
        return f"the best epoch of {self.epochs} is {self.best_epoch}"

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {**vars(self), "output": str(self.output)}


class RunFolder:
    """One run folder.

    Args:
        path: the folder; it is made when training begins.
        weights: name of the file with the best weights.
    """

    def __init__(self, path: Path, weights: str = "weights.safetensors") -> None:
        refuse_address(path)
        self.path = Path(path)
        self.weights = self.path / weights
        self.tensorboard = self.path / "tensorboard"
        self._recipe = self.path / "recipe.yaml"
        self._state = self.path / "last.pt"
        self._result = self.path / "result.json"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder while the block runs, so that two processes do not train in it.

        Raises:
            VidkdError: another process holds it, or the folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            stream = (self.path / ".lock").open("w")
        except OSError as error:
            raise VidkdError(
                f"cannot be written ({error.strerror or error})",
                path=self.path,
                remedy="choose another --output",
            ) from error
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
                    raise VidkdError(
                        "another process is training in this folder",
                        path=self.path,
                        remedy="wait for it, or choose another --output",
                    ) from error
                # A file system without locks: nothing protects the folder, as nothing did before.
            yield

    def begin(self, recipe: Mapping[str, Any], *, overwrite: bool) -> bool:
        """Make the folder ready for a run with these settings.

        Args:
            recipe: everything that decides the result, as JSON values.
            overwrite: remove a run with other settings instead of refusing.

        Returns:
            True when the run is finished already.

        Raises:
            UsageError: the folder holds a run with other settings, or something else.
        """
        recipe = json.loads(json.dumps(recipe))
        if self._recipe.exists():
            known, apart = self._read_recipe(), dict.fromkeys(_NOT_COMPARED)
            different = differences({**known, **apart}, {**recipe, **apart}, none_is_absent=True)
            if not different:
                return self._result.exists() and self.weights.exists()
            if not overwrite:
                raise UsageError(
                    f"holds a run with other settings ({listed(different)})",
                    path=self.path,
                    remedy="choose another --output, or pass --overwrite to train again",
                )
            self.clear()
        elif any(not item.name.startswith(".") for item in self.path.iterdir()):
            raise UsageError(
                "is not empty, and not a run", path=self.path, remedy="choose another --output"
            )
        write_text(self._recipe, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
        return False

    def _read_recipe(self) -> dict[str, Any]:
        try:
            recipe = yaml.safe_load(self._recipe.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            recipe = None
        return recipe if isinstance(recipe, dict) else {}

    def clear(self) -> None:
        """Remove everything that a run writes; other files in the folder stay."""
        for name in (self.weights.name, *_NAMES):
            item = self.path / name
            if item.is_dir():
                shutil.rmtree(item)
            else:
                item.unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Remove temporary files of killed processes; call it while holding the lock."""
        for item in self.path.glob(".*.partial.*"):
            item.unlink(missing_ok=True)

    def write_environment(self, device: torch.device, seed: int) -> None:
        """Record what the run is made with, none of which is meant to change the result."""
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
        write_json(
            self.path / "environment.json",
            {
                "versions": library_versions("torch", "numpy", "h5py", "safetensors"),
                "platform": platform.platform(),
                "device": str(device),
                "device_name": name,
                "threads": torch.get_num_threads(),
                "seed": seed,
            },
        )

    def load_state(self) -> dict[str, Any] | None:
        """Return the state to resume from, or None when there is none.

        Raises:
            VidkdError: the file is damaged.
        """
        if not self._state.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._state, map_location="cpu", weights_only=True)
        except _DAMAGE as error:
            raise VidkdError(
                "is damaged", path=self._state, remedy="delete it; the run then starts again"
            ) from error
        return state

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the state to resume from."""
        with atomic_path(self._state) as temporary:
            torch.save(dict(state), temporary)

    def write_metrics(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Replace ``metrics.csv``: one row per epoch, all with the same columns."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: v if isinstance(v, int) else f"{v:.6g}" for k, v in row.items()})
        write_text(self.path / "metrics.csv", text.getvalue())

    def finish(self, result: RunResult) -> None:
        """Mark the run as finished."""
        fields = result.to_json()
        del fields["output"], fields["skipped"]
        write_json(self._result, fields)

    def read_result(self, kind: type[Result]) -> Result:
        """Return the result of a finished run, as one that did nothing now.

        Raises:
            VidkdError: the file is missing or damaged.
        """
        try:
            fields = json.loads(self._result.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise VidkdError(
                "is missing or damaged", path=self._result, remedy="delete it and train again"
            ) from error
        return kind(**{**fields, "output": self.path, "skipped": True})


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
