"""What Ray costs beside the local pool: flow of the same videos by the same number of processes.

    python benchmarks/ray_overhead.py VIDEO... [--workers 2] [--rounds 2]

Ray is started once, before any round; the start of workers, which import the same libraries, is
part of both. Local pool and Ray are interleaved.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import ray

from vidkd.cluster import executor_for
from vidkd.features import FlowTask, run_jobs
from vidkd.recipe import FlowSettings, FrameSettings
from vidkd.video import find_videos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    videos = find_videos(chosen.videos)
    ray.init(num_cpus=chosen.workers, log_to_driver=False)
    times: dict[str, list[float]] = {"local": [], "ray": []}
    for _ in range(chosen.rounds):
        for name, taken in times.items():
            with tempfile.TemporaryDirectory() as folder:
                task = FlowTask(Path(folder), FrameSettings(short_side=128), FlowSettings())
                started = time.perf_counter()
                where = executor_for(name, chosen.workers, local=chosen.workers)
                results = run_jobs(videos, task, executor=where)
                taken.append(time.perf_counter() - started)
                assert all(item.status == "done" for item in results)
    for name, taken in times.items():
        print(f"{name}: {', '.join(f'{item:.1f}' for item in taken)} s")
    print(f"ray / local, least of each: {min(times['ray']) / min(times['local']):.2f}")


if __name__ == "__main__":
    main()
