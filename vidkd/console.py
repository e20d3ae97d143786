"""What a person sees: progress and logs on standard error, data on standard output."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

# rich is imported where something is drawn: workers and `--json` never do.

Advance = Callable[[float], None]


_silent = False


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Show neither lines nor progress on standard error while the block runs."""
    global _silent
    before, _silent = _silent, True
    try:
        yield
    finally:
        _silent = before


def log(message: str) -> None:
    """Write one line to standard error."""
    if _silent:
        return
    print(message, file=sys.stderr, flush=True)


def emit_json(data: Any) -> None:
    """Write ``data`` to standard output as JSON; NaN becomes null, since JSON has no NaN."""
    sys.stdout.write(json.dumps(without_nan(data), indent=2, ensure_ascii=False) + "\n")


def without_nan(data: Any) -> Any:
    """Return JSON values with every NaN replaced by None."""
    if isinstance(data, dict):
        return {key: without_nan(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [without_nan(value) for value in data]
    if isinstance(data, float) and data != data:
        return None
    return data


def emit_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table to standard output; the first column is left-aligned, the others right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 200
    Console(highlight=False, width=width).print(table)


def emit(
    data: Any,
    as_json: bool,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    title: str = "",
) -> None:
    """Write a result to standard output, as JSON or as a table."""
    if as_json:
        emit_json(data)
    else:
        emit_table(title, columns, rows)


def clock(seconds: float) -> str:
    """Write a time as ``mm:ss.s``, or ``h:mm:ss.s`` from one hour on.

    >>> clock(59.96), clock(3725.04)
    ('01:00.0', '1:02:05.0')
    """
    tenths = round(max(0.0, seconds) * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    rest = f"{minutes:02d}:{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{rest}" if hours else rest


def _bar() -> Progress:
    from rich import progress as rich
    from rich.console import Console
    from rich.text import Text

    class Rate(rich.ProgressColumn):
        def render(self, task: rich.Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.1f} {task.fields['unit']}/s")

    return rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.TextColumn("{task.percentage:>3.0f}%"),
        Rate(),
        rich.TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False),
        transient=True,
    )


@contextlib.contextmanager
def progress(
    description: str | Callable[[], str], total: float | None, unit: str
) -> Iterator[Advance]:
    """Show the progress of long work on standard error while the block runs.

    On a terminal this is a bar with the rate and the time left; elsewhere a plain line is
    printed at most every ten seconds. The yielded function advances by a number of units.

    Args:
        description: what is being done, such as ``"extract-flow"``; a function is asked anew
            whenever it is shown.
        total: the number of units in all, or None when it is unknown.
        unit: the plural name of the unit, such as ``"frames"``.
    """
    if _silent:
        yield lambda amount: None
        return
    title = description if callable(description) else lambda: description
    if sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(title(), total=total, unit=unit)

            def advance_bar(amount: float) -> None:
                bar.update(task, description=title(), advance=amount)

            yield advance_bar
        return
    started = time.monotonic()
    state = {"done": 0.0, "printed": started}

    def advance(amount: float) -> None:
        state["done"] += amount
        now = time.monotonic()
        if now - state["printed"] >= 10:
            state["printed"] = now
            rate = state["done"] / (now - started)
            line = f"{title()}: {state['done']:.0f}"
            if total is not None:
                line += f"/{total:.0f}"
            line += f" {unit}, {rate:.1f} {unit}/s"
            if total is not None and rate > 0:
                line += f", {max(0.0, total - state['done']) / rate:.0f} s left"
            log(line)

    yield advance
