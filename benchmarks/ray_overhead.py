"""What Ray costs beside the local pool: the same videos by the same number of processes.

    python benchmarks/ray_overhead.py VIDEO... [--workers 2] [--rounds 3] [--flow]

RGB features of I3D at short side 128, or flow. Ray is started once, before any round, as a cluster
is; the start of the workers, which import the same libraries and load the same weights, is part of
both, and is told as the time to the first frame. Local pool and Ray take turns, and change who is
first.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flow", action="store_true")
    chosen = parser.parse_args()
    videos = find_videos(chosen.videos)
    ray.init(
        num_cpus=chosen.workers,
        include_dashboard=False,
        object_store_memory=100_000_000,
        log_to_driver=False,
    )
    times: dict[str, list[tuple[float, float]]] = {"local": [], "ray": []}
    for number in range(chosen.rounds):
        for name in sorted(times, reverse=number % 2 == 1):
            with tempfile.TemporaryDirectory() as folder:
                work = task(Path(folder), chosen.flow)
                where = Timed(executor_for(name, chosen.workers, local=chosen.workers))
                started = time.perf_counter()
                results = run_jobs(videos, work, executor=where)
                ended = time.perf_counter()
                assert all(item.status == "done" for item in results)
                assert where.first is not None
                times[name].append((ended - started, where.first - started))
                log(f"{name}: {ended - started:.1f} s, first frame {where.first - started:.1f} s")
    median = statistics.median
    rows = []
    for name, taken in times.items():
        totals, starts = zip(*taken, strict=True)
        spread = f"{median(totals):.1f} ({min(totals):.1f} to {max(totals):.1f})"
        rows.append((name, spread, f"{median(starts):.1f}"))
    emit_table("", ("", "s, median (range)", "first frame after, s"), rows)
    pairs = list(zip(times["ray"], times["local"], strict=True))
    whole = [ray[0] / local[0] for ray, local in pairs]
    later = [(ray[0] - ray[1]) / (local[0] - local[1]) for ray, local in pairs]
    for what, found in (("whole", whole), ("after the first frame", later)):
        log(f"ray / local, {what}: {median(found):.3f} ({min(found):.3f} to {max(found):.3f})")


if __name__ == "__main__":
    main()
