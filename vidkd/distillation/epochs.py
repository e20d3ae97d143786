"""The epochs of a training run: what they found, and the state that a killed run goes on from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from vidkd.console import log
from vidkd.distillation.run_folder import RunFolder


class Stateful(Protocol):
    """What is saved with a run: networks, optimisers, schedules."""

    def state_dict(self) -> dict[str, Any]:
        """Return its state as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Return to a state."""


def curve_name(column: str) -> str:
    """Return the TensorBoard name of a column of ``metrics.csv``: its first word is the group."""
    return column.replace("_", "/", 1)


class Epochs:
    """How far a run is; a run that was killed begins where its last saved state is.

    Args:
        folder: of the run, begun and locked.
        best: what stands for the best epoch before there is one, as plain values.

    Attributes:
        number: of the epoch that is running or was the last, counted from 1.
        history: one row of ``metrics.csv`` for each epoch.
        best: the best epoch, and what is known of it.
        seconds: spent, over all resumed parts.
        resumed: whether the run goes on from a saved state.

    Raises:
        VidkdError: the saved state is damaged.
    """

    def __init__(self, folder: RunFolder, best: Mapping[str, Any]) -> None:
        self.folder = folder
        self.number = 0
        self.history: list[dict[str, float]] = []
        self.best = dict(best)
        self.seconds = 0.0
        self._state = folder.load_state()
        self.resumed = self._state is not None
        self._parts: dict[str, Stateful] = {}
        self._board: Any = None
        self._curve_name: Callable[[str], str] = curve_name
        self._started = 0.0

    def keep(self, *, announce: bool = True, **parts: Stateful) -> None:
        """Name what the state consists of, and bring it to where a killed run was.

        Args:
            announce: say so.
            parts: by their names in the state.
        """
        self._parts = parts
        state, self._state = self._state, None
        if state is None:
            return
        for name, part in parts.items():
            part.load_state_dict(state[name])
        self.number, self.best = state["epoch"], state["best"]
        self.history, self.seconds = state["history"], state["seconds"]
        if announce:
            log(f"{self.folder.path}: going on after epoch {self.number}")

    @contextmanager
    def recorded(
        self, *, curves: bool = True, name: Callable[[str], str] = curve_name
    ) -> Iterator[None]:
        """Count the time, and draw TensorBoard's curves, of the epochs within the block.

        Args:
            curves: draw them.
            name: gives the curve of a column of ``metrics.csv`` its name.
        """
        self._started, self._curve_name = time.monotonic() - self.seconds, name
        if curves:
            # Imported here: it takes a second that commands which do not train need not spend.
            from torch.utils.tensorboard import SummaryWriter

            # Curves of epochs that are now repeated are hidden.
            self._board = SummaryWriter(str(self.folder.tensorboard), purge_step=self.number + 1)
        try:
            yield
        finally:
            if self._board is not None:
                self._board.close()
                self._board = None

    def add(self, row: dict[str, float]) -> None:
        """Take in what the epoch has found: its row of ``metrics.csv``."""
        self.history.append(row)
        self.seconds = time.monotonic() - self._started
        if self._board is not None:
            for column, value in row.items():
                if column != "epoch":
                    self._board.add_scalar(self._curve_name(column), value, self.number)

    def save(self) -> None:
        """Write curves, metrics and state; the state comes last, for it tells the rest.

        The weights of the best epoch must be there before it.
        """
        if self._board is not None:
            self._board.flush()
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
