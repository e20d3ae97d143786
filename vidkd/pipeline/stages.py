"""Stages that remember that they are finished, and with which settings."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidkd.console import log
from vidkd.errors import UsageError
from vidkd.files import write_json


@dataclass(frozen=True)
class Stage:
    """One step of a recipe.

    Attributes:
        name: unique within the recipe; also the name of the stamp file.
        settings: everything that decides the result, as JSON values.
        outputs: the files or folders that must exist for the stage to count as finished.
        action: does the work; a stage whose action raises is not finished. An action may be
            called again after it was killed and then goes on from what it finds.
        after: names of the stages it builds on, where that is not simply all before it.
    """

    name: str
    settings: dict[str, Any]
    outputs: Sequence[Path]
    action: Callable[[], Any]
    after: tuple[str, ...] = ()

    def stamp(self, folder: Path) -> Path:
        """Return the file that says that the stage is finished."""
        return folder / "stages" / f"{self.name}.json"

    def plain_settings(self) -> Any:
        """Return the settings as they are read back from JSON."""
        return json.loads(json.dumps(self.settings))

    def finished(self, folder: Path) -> bool:
        """Return whether it was finished with these settings, and its outputs still exist."""
        recorded = _read_stamp(self.stamp(folder))
        return (
            recorded is not None
            and recorded["settings"] == self.plain_settings()
            and all(path.exists() for path in self.outputs)
        )

    def finish(self, folder: Path, seconds: float) -> None:
        """Record that it is finished."""
        record = {"settings": self.plain_settings(), "seconds": round(seconds, 1)}
        write_json(self.stamp(folder), record)


def run_stages(stages: Sequence[Stage], folder: Path, *, overwrite: bool = False) -> list[str]:
    """Run the stages that are not finished, in order, and return the names of those that ran.

    A stage is finished when its stamp ``folder/stages/NAME.json`` carries the same settings and
    its outputs exist. Once a stage has run, all later ones run too, for their inputs are new;
    what each of them finds unchanged it skips by itself.

    Raises:
        UsageError: a stage was made with other settings and ``overwrite`` is not set.
    """
    ran: list[str] = []
    for number, stage in enumerate(stages, start=1):
        settings = stage.plain_settings()
        recorded = _read_stamp(stage.stamp(folder))
        if recorded is not None and recorded["settings"] != settings and not overwrite:
            raise UsageError(
                f"stage {stage.name} was made with other settings "
                f"({_difference(recorded['settings'], settings)})",
                path=folder,
                remedy="choose another --output, or pass --overwrite to make it again",
            )
        if not ran and stage.finished(folder):
            log(f"[{number}/{len(stages)}] {stage.name}: done before")
            continue
        log(f"[{number}/{len(stages)}] {stage.name}")
        started = time.monotonic()
        stage.action()
        seconds = time.monotonic() - started
        stage.finish(folder, seconds)
        log(f"[{number}/{len(stages)}] {stage.name}: {seconds:.0f} s")
        ran.append(stage.name)
    return ran


def _read_stamp(path: Path) -> dict[str, Any] | None:
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) and "settings" in stamp else None


def _difference(old: Any, new: Any, where: str = "") -> str:
    """Name the first few keys in which two settings differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = [
            _difference(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
            for key in dict.fromkeys([*old, *new])
            if old.get(key) != new.get(key)
        ]
        shown = ", ".join(parts[:3])
        return shown + (f" and {len(parts) - 3} more" if len(parts) > 3 else "")
    return f"{where}: {_short(old)} instead of {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
