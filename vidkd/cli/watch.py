"""``vidkd watch``: events of live video."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidkd.cli.options import (
    BatchSize,
    Device,
    EncoderPrecision,
    Fields,
    argument,
    flag,
    option,
    with_settings,
)
from vidkd.console import clock, log, without_nan
from vidkd.recipe import LiveSettings, OutputSettings

if TYPE_CHECKING:
    from vidkd.live.engine import Engine
    from vidkd.live.events import Event, LiveFrame, Output
    from vidkd.live.statistics import Statistics


@with_settings
def watch(
    settings: Annotated[LiveSettings, Fields()],
    wanted: Annotated[OutputSettings, Fields()],
    model: Annotated[
        Path,
        option(
            "Run folder or weights of a student that looks at no later snippet: trained with "
            "--filter causal-ss-tcn.",
            "RUN_OR_FILE",
        ),
    ],
    inputs: Annotated[
        list[str] | None,
        argument(
            "Cameras (/dev/video0), URLs (rtsp, http, ...), files, or - for standard input. "
            "NAME=SOURCE gives one a name.",
            "SOURCE...",
        ),
    ] = None,
    sources: Annotated[
        Path | None,
        option("More sources, one a line; keeps passwords off the command.", "FILE.txt"),
    ] = None,
    threshold: Annotated[
        float | None,
        option("Score that an event has to reach. Default: 0.5.", "SCORE", min=0.0, max=1.0),
    ] = None,
    report: Annotated[
        Path | None, option("Write counts and delays at the end, and at signal USR1.", "FILE.json")
    ] = None,
    device: Device = "auto",
    precision: EncoderPrecision = "auto",
    batch_size: BatchSize = None,
    as_json: Annotated[bool, flag("--json", "Print each event as one line of JSON.")] = False,
) -> None:
    """Watch live video, and report events as they begin, become certain and end.

    Runs until every source has ended, or Ctrl-C, which ends what is open.

    A source that breaks is opened again. Exit code 1 if one was given up; the others go on.
    """
    from vidkd.live.sources import find_sources

    found = find_sources(inputs or (), sources, settings)
    from vidkd.live.engine import Engine
    from vidkd.live.outputs import open_outputs
    from vidkd.live.statistics import Statistics
    from vidkd.live.student import LiveStudent

    student = LiveStudent(model, device, precision=precision)
    outputs: list[Output] = [
        _Printer(as_json, len(found) > 1, student.settings.minimum_seconds > 0)
    ]
    statistics = Statistics.of(source.name for source in found)
    outputs += open_outputs(wanted, statistics)
    engine = Engine(
        student, found, settings, outputs,
        threshold=threshold, batch_size=batch_size, statistics=statistics,
    )  # fmt: skip
    names = ", ".join(source.name for source in found)
    log(f"watching {names} for {len(student.classes)} classes; Ctrl-C ends it")
    with _signals(engine, report):
        engine.run()
    _report(engine.statistics, report)
    if engine.errors:
        raise typer.Exit(1)


class _Printer:
    """Prints events to standard output, each as soon as it is told.

    Args:
        as_json: as JSON, and not for people.
        several: there are several sources.
        wait: an event is certain only some time after it has begun, which people want to know.
    """

    wants_frames = False

    def __init__(self, as_json: bool, several: bool, wait: bool) -> None:
        self._json, self._several, self._wait = as_json, several, wait

    def frame(self, source: str, frame: LiveFrame) -> None:
        """Do nothing: frames are not printed."""

    def event(self, event: Event) -> None:
        """Print one line."""
        if event.state == "certain" and not (self._json or self._wait):
            return
        if self._json:
            line = json.dumps(without_nan(event.to_json()), ensure_ascii=False)
        else:
            until = "" if event.end is None else f" to {clock(event.end)}"
            told = {"begin": "begins", "certain": "is certain", "end": "ends"}[event.state]
            place = f"{event.source}  " if self._several else ""
            when = f"{event.started.astimezone():%H:%M:%S}"
            line = (
                f"{when}  {place}{event.label} {told}  ({clock(event.start)}{until},"
                f" score {event.score:.2f}, event {event.number})"
            )
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Do nothing: nothing is left to print."""


@contextlib.contextmanager
def _signals(engine: Engine, path: Path | None) -> Iterator[None]:
    """While the block runs, Ctrl-C and TERM end the watching, and USR1 reports."""

    def stop(number: int, frame: object) -> None:
        engine.stop()
        signal.signal(number, before[number])  # the second one ends it at once

    def tell(number: int, frame: object) -> None:
        _report(engine.statistics, path)

    wanted: dict[int, Any] = {signal.SIGINT: stop, signal.SIGTERM: stop}
    if hasattr(signal, "SIGUSR1"):
        wanted[signal.SIGUSR1] = tell
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(statistics: Statistics, path: Path | None) -> None:
    """Say on standard error what was counted, and write it to a file."""
    from vidkd.files import write_json

    found = statistics.to_json()
    for own in found["sources"]:
        delay = "no snippet scored"
        if own["delay_p50"] is not None:
            delay = f"delay {_seconds(own['delay_p50'])} (p50), {_seconds(own['delay_p99'])} (p99)"
        log(
            f"{own['source']}: {own['frames']} frames, {own['snippets']} snippets,"
            f" {own['events']} events, {delay}; skipped {own['skipped_frames']} frames and"
            f" {own['skipped_snippets']} snippets, {own['late']} late, {own['damaged']} damaged,"
            f" {own['reconnects']} reconnects, {own['resets']} resets"
        )
    if path is not None:
        write_json(path, found)


def _seconds(value: float) -> str:
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"
