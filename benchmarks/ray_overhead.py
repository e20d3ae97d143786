"""What Ray costs beside the local pool: the same videos by the same number of processes.

    python benchmarks/ray_overhead.py VIDEO... [--workers 2] [--rounds 5] [--flow]

RGB features of I3D at short side 128, or flow. Local pool and Ray take turns, and change who is
first. Ray is started before its turn, as a cluster is, and ended after it, so that it takes
nothing from the pool. The start of the workers, which import the same libraries and load the same
weights, is part of both, and is told as the time to the first frame. Processor time is that of all
processes, read every tenth of a second, Ray's own included. A round of two videos goes before,
untimed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from vidkd.cluster import Executor, executor_for
from vidkd.console import emit_table, log
from vidkd.features import FeatureSettings, FlowTask, Task, feature_task, run_jobs
from vidkd.networks import DEFAULT_ENCODER
from vidkd.recipe import FlowSettings, FrameSettings, SnippetSettings
from vidkd.streams import STREAMS
from vidkd.video import find_videos
from vidkd.workers import Ended, Report, Work

FRAMES = FrameSettings(short_side=128)


@dataclass
class Timed:
    """An executor, and when the first frame was reported."""

    executor: Executor
    first: float | None = None

    def run(
        self,
        jobs: Sequence[Any],
        work: Work,
        *,
        advance: Report,
        silence: Callable[[Any], float] | None = None,
    ) -> Iterator[Ended[Any]]:
        def noted(amount: float) -> None:
            if amount and self.first is None:
                self.first = time.perf_counter()
            advance(amount)

        return self.executor.run(jobs, work, advance=noted, silence=silence)


def task(cache: Path, flow: bool) -> Task:
    if flow:
        return FlowTask(cache, FRAMES, FlowSettings())
    settings = FeatureSettings(
        STREAMS["rgb"], DEFAULT_ENCODER, FRAMES, SnippetSettings(stride=16), 112
    )
    return feature_task(cache, settings)


@dataclass
class ProcessorTime:
    """Seconds of processor time of this process and of all that it starts, while the block runs.

    A process counts from its first second, or from the beginning of the block. What it does in the
    last tenth of a second before it ends is lost.
    """

    seconds: float = 0.0
    _first: dict[tuple[int, int], float] = field(default_factory=dict)
    _last: dict[tuple[int, int], float] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> ProcessorTime:
        self._look()
        self._first = dict(self._last)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look()
        self.seconds = sum(self._last.values()) - sum(self._first.values())

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            self._look()

    def _look(self) -> None:
        stats: dict[int, tuple[int, int, float]] = {}
        for place in Path("/proc").iterdir():
            if place.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (place / "stat").read_text().rpartition(")")[2].split()
                    seconds = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
                    stats[int(place.name)] = int(words[1]), int(words[19]), seconds
        # Also those whose parent has ended.
        ours = {pid for pid, stat in stats.items() if (pid, stat[1]) in self._last}
        ours |= {os.getpid()}
        while found := {pid for pid, stat in stats.items() if stat[0] in ours} - ours:
            ours |= found
        for pid in ours & set(stats):
            _, born, seconds = stats[pid]
            self._last[pid, born] = seconds


@contextlib.contextmanager
def started(name: str, workers: int) -> Iterator[None]:
    """Have a Ray cluster, or nothing for the local pool."""
    if name == "ray":
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=100_000_000,
            log_to_driver=False,
        )
    try:
        yield
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class Turn:
    """What one extraction took, in seconds: in all, until the first frame, and of processors."""

    whole: float
    first: float
    processor: float


def extract(name: str, videos: Sequence[Any], workers: int, flow: bool) -> Turn:
    with tempfile.TemporaryDirectory() as folder, started(name, workers):
        where = Timed(executor_for(name, workers, local=workers))
        with ProcessorTime() as processor:
            begun = time.perf_counter()
            results = run_jobs(videos, task(Path(folder), flow), executor=where)
            ended = time.perf_counter()
        assert all(item.status == "done" for item in results)
        assert where.first is not None
        return Turn(ended - begun, where.first - begun, processor.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--flow", action="store_true")
    chosen = parser.parse_args()
    videos = find_videos(chosen.videos)
    turns: dict[str, list[Turn]] = {"local": [], "ray": []}
    for name in turns:
        extract(name, videos[:2], chosen.workers, chosen.flow)
    for number in range(chosen.rounds):
        for name in sorted(turns, reverse=number % 2 == 1):
            turn = extract(name, videos, chosen.workers, chosen.flow)
            turns[name].append(turn)
            log(
                f"round {number + 1}, {name}: {turn.whole:.1f} s, first frame {turn.first:.1f} s,"
                f" processors {turn.processor:.1f} s"
            )

    def spread(values: Sequence[float], form: str) -> str:
        low, middle, high = (
            format(function(values), form) for function in (min, statistics.median, max)
        )
        return f"{middle} ({low} to {high})"

    parts: dict[str, Callable[[Turn], float]] = {
        "wall, s": lambda turn: turn.whole,
        "until the first frame, s": lambda turn: turn.first,
        "after it, s": lambda turn: turn.whole - turn.first,
        "processors, s": lambda turn: turn.processor,
    }
    rows = []
    for what, part in parts.items():
        local, other = ([part(turn) for turn in turns[name]] for name in ("local", "ray"))
        more = [100 * (b / a - 1) for a, b in zip(local, other, strict=True)]
        rows.append((what, spread(local, ".1f"), spread(other, ".1f"), spread(more, "+.1f")))
    emit_table(
        f"{len(videos)} videos, {chosen.workers} workers, {chosen.rounds} rounds: median (range)",
        ("", "local pool", "Ray", "Ray takes more, %"),
        rows,
    )


if __name__ == "__main__":
    main()
