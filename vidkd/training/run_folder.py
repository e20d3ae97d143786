"""The folder of one training run: what is in it, and how a killed run goes on.

``recipe.yaml`` (all settings as run), ``environment.json`` (versions, device), ``metrics.csv`` and
``tensorboard/`` (one row per epoch), ``weights.safetensors`` (the best epoch so far), ``last.pt``
(the state to resume from) and, written last, ``result.json``: the run is finished.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import io
import json
import pickle
import platform
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml

from vidkd.cache import library_versions
from vidkd.differences import differences, listed
from vidkd.errors import UsageError, VidkdError
from vidkd.files import atomic_path, refuse_address, write_json, write_text

Result = TypeVar("Result", bound="RunResult")

# Where things lie is recorded, but a moved folder does not make a run another one.
_NOT_COMPARED = frozenset({"paths"})
_NAMES = (
    "result.json",
    "last.pt",
    "metrics.csv",
    "environment.json",
    "tensorboard",
    "recipe.yaml",
)


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
        except (
            OSError,
            RuntimeError,
            EOFError,
            pickle.UnpicklingError,
            zipfile.BadZipFile,
        ) as error:
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
            writer.writerow(
                {
                    key: value if isinstance(value, int) else f"{value:.6g}"
                    for key, value in row.items()
                }
            )
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
