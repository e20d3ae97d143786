"""Videos with skeletons drawn over them, several at a time (``vidkd extract-pose --render``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidkd.console import log, progress
from vidkd.features.jobs import JobResult
from vidkd.pose.poses import load_poses
from vidkd.pose.render import render_poses
from vidkd.workers import Report, run_pool


@dataclass(frozen=True)
class _Render:
    """Draws one video; picklable."""

    folder: Path

    def target(self, result: JobResult) -> Path:
        return self.folder / f"{result.key}.mp4"

    def __call__(self, result: JobResult, report: Report, threads: int, /) -> None:
        render_poses(result.video, load_poses(result.path), self.target(result), report)


def render_all(results: Sequence[JobResult], folder: Path, *, workers: int) -> bool:
    """Write ``FOLDER/KEY.mp4`` for every video whose poses are in the cache.

    A video that is newer than its poses is left as it is.

    Args:
        results: of ``run_jobs``; what failed there is passed over.
        folder: where to write.
        workers: videos at a time.

    Returns:
        Whether one of them failed; each is named on standard error.
    """
    draw = _Render(folder)
    todo = [
        item
        for item in results
        if item.status != "failed" and not _is_fresh(draw.target(item), item)
    ]
    failed = False
    with progress("render", sum(item.rows for item in todo) or None, "frames") as advance:
        for ended in run_pool(todo, draw, workers=workers, advance=advance):
            if ended.error is not None:
                failed = True
                log(f"failed: {draw.target(ended.job)}: {ended.error}")
    return failed


def _is_fresh(target: Path, result: JobResult) -> bool:
    return target.exists() and target.stat().st_mtime_ns >= result.path.stat().st_mtime_ns
