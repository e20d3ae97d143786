"""Many videos to the cache: planned, done in parallel, each failure named and kept apart."""

from __future__ import annotations

import functools
import hashlib
import queue
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vidkd.cache import CacheFile, claimed, drop_abandoned, present, remove_leftovers, state
from vidkd.cluster import Executor, LocalPool
from vidkd.console import Advance, log, progress
from vidkd.errors import UsageError, VidkdError
from vidkd.features.tasks import Task, refusal
from vidkd.storage import RemotePath, UnansweredError, as_path
from vidkd.video import VideoFile, probe
from vidkd.workers import Ended, silent

_SILENCE_SECONDS = 600.0
_SLOWEST_DISK = 10e6
_LOOK_SECONDS = 1.0
_MOST_UNANSWERED = 3
"""Each takes up to half a minute."""


def shard(videos: Sequence[VideoFile], part: str | None) -> list[VideoFile]:
    """Return the videos of one of several processes that share the work.

    A video's key alone decides its shard, so that every process finds the same division whatever
    else is in its list.

    Args:
        videos: all of them.
        part: ``I/N``, the I-th of N shards, counted from 1; None for all videos.

    Raises:
        UsageError: ``part`` is not of this form.
    """
    if part is None:
        return list(videos)
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise UsageError(
            f"--shard {part} is not one of N shards",
            remedy="give I/N with I from 1 to N, such as 1/8",
        )
    return [
        video
        for video in videos
        if int.from_bytes(hashlib.sha256(video.key.encode()).digest()[:8]) % count == number - 1
    ]


@dataclass(frozen=True)
class JobResult:
    """What is known of one video before the work, or became of it.

    Attributes:
        key: the video's key.
        video: the input.
        path: its cache file.
        status: before the work that of ``vidkd.cache.state`` (``missing``, ``fresh``, ``stale`` or
            ``broken``); after it ``done``, or ``skipped`` because it had been done before;
            ``failed`` at any time.
        reason: why it failed, with the remedy, or what is stale or broken; else empty.
        rows: T of the cache file; 0 without one.
        seconds: time spent on it in this call.
        frames: estimated number of frames to decode; None when unknown.
    """

    key: str
    video: Path
    path: Path
    status: Literal["missing", "fresh", "stale", "broken", "done", "skipped", "failed"]
    reason: str = ""
    rows: int = 0
    seconds: float = 0.0
    frames: float | None = None


def plan_jobs(
    videos: Sequence[VideoFile], task: Task, *, time_limit: float | None = None
) -> list[JobResult]:
    """Say what is done and what is to be done, without decoding any video.

    A video that keeps its reader waiting longer than ``silence_allowed`` has failed. A store that
    did not answer for several videos in a row is not asked for the others.
    """
    plans, failures = [], Counter[str | None]()
    with progress(f"{task.name}: looking", len(videos), "videos") as advance:
        for video in videos:
            path = task.path(video)
            stores = {_store(video.path), _store(path)} - {None}
            try:
                for store in stores:
                    if failures[store] >= _MOST_UNANSWERED:
                        raise VidkdError(
                            f"was not looked at, since {store} did not answer for others",
                            path=video.path,
                            remedy="run the same command again when it does",
                        )
                seconds = silence_allowed(video, time_limit)
                plans.append(_within(seconds, functools.partial(_plan, video, path, task)))
                for store in stores:
                    failures.pop(store, None)
            except VidkdError as error:
                if isinstance(error, UnansweredError) and error.path:
                    failures[_store(as_path(error.path))] += 1
                reason = _reason(error, video)
                plans.append(JobResult(video.key, video.path, path, "failed", reason))
            advance(1)
    return plans


def _store(path: Path) -> str | None:
    return "//".join(path.parts[:2]) if isinstance(path, RemotePath) else None


def _plan(video: VideoFile, path: Path, task: Task) -> JobResult:
    info = probe(video.path)
    frames: float | None = info.frame_count
    rate = task.frames.frame_rate
    if rate is not None and info.duration is not None:
        frames = info.duration * rate
    if not present(path):
        # Before the provenance, which reads the whole video.
        task.check_inputs(video)
        return JobResult(video.key, video.path, path, "missing", frames=frames)
    kind, reason = state(path, task.provenance(video))
    rows = 0
    if kind == "fresh":
        with CacheFile(path) as file:
            rows = len(file)
    if kind in {"stale", "broken"}:
        reason = str(refusal(path, kind, reason))
    return JobResult(video.key, video.path, path, kind, reason, rows, frames=frames)


def silence_allowed(video: VideoFile, time_limit: float | None) -> float:
    """Return for how many seconds work on a video may give no sign before it is given up.

    Without a ``time_limit`` these are ten minutes, and the time to read the file once, which is
    done in silence for its hash, from a disk of 10 MB/s.
    """
    if time_limit is not None:
        return time_limit
    try:
        return _SILENCE_SECONDS + _size(video.path) / _SLOWEST_DISK
    except (OSError, VidkdError):
        return _SILENCE_SECONDS  # what is wrong will be told by whoever opens it


@functools.lru_cache(maxsize=1024)  # asked again and again, and perhaps over a network
def _size(path: Path) -> int:
    return path.stat().st_size


def _within(seconds: float, look: Callable[[], JobResult]) -> JobResult:
    """Call ``look`` in a thread, and leave it behind if it hangs in a decoder or a dead disk."""
    answers: queue.SimpleQueue[JobResult | BaseException] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(look())
        except BaseException as error:
            answers.put(error)

    threading.Thread(target=work, name="vidkd-look", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise silent(seconds) from None
    if isinstance(answer, BaseException):
        raise answer
    return answer


def run_jobs(
    videos: Sequence[VideoFile],
    task: Task,
    *,
    workers: int = 1,
    time_limit: float | None = None,
    executor: Executor | None = None,
) -> list[JobResult]:
    """Plan, then do what is to be done, by default in ``workers`` processes of this machine.

    A video that somebody else is at work on, in another process or on another machine that sees
    the cache, is left to them; this call ends when that is done, or does it if they gave up.

    Progress and failures go to standard error, nothing to standard output. A video of which
    nothing comes for ``time_limit`` seconds, or by default for what ``silence_allowed`` says,
    fails and its process is killed.

    Returns:
        One result for each video, in their order; none is lost when others fail.
    """
    results: dict[str, JobResult] = {}
    todo: dict[str, JobResult] = {}
    for plan in plan_jobs(videos, task, time_limit=time_limit):
        if plan.status == "missing" or (task.overwrite and plan.status != "failed"):
            todo[plan.key] = plan
        elif plan.status == "fresh":
            results[plan.key] = replace(plan, status="skipped")
        else:
            results[plan.key] = _failed(plan, plan.reason, 0.0)
    if before := sum(result.status == "skipped" for result in results.values()):
        log(f"{task.name}: done before: {before}")
    estimates = [plan.frames for plan in todo.values()]
    total = None if None in estimates else sum(item for item in estimates if item)
    jobs = [video for video in videos if video.key in todo]
    limit = functools.partial(silence_allowed, time_limit=time_limit)
    executor = executor or LocalPool(workers)

    def title() -> str:
        return f"{task.name} {len(videos) - len(todo)}/{len(videos)} videos"

    def ends(advance: Advance) -> Iterator[Ended[VideoFile]]:
        left = jobs
        while left:
            elsewhere = []
            for ended in executor.run(left, task, advance=advance, silence=limit):
                if ended.error is None and ended.result.elsewhere:
                    elsewhere.append(ended.job)
                else:
                    yield ended
            left = elsewhere
            if left:
                log(f"{task.name}: {len(left)} videos are being done by somebody else; waiting")
            while left and all(claimed(task.path(video)) for video in left):
                time.sleep(_LOOK_SECONDS)

    try:
        with progress(title, total, "frames") as advance:
            for ended in ends(advance):
                plan, seconds = todo.pop(ended.job.key), ended.seconds
                if ended.error is not None:
                    drop_abandoned(plan.path)
                    remove_leftovers(plan.path)
                    results[plan.key] = _failed(plan, _reason(ended.error, ended.job), seconds)
                else:
                    status: Literal["skipped", "done"] = (
                        "skipped" if ended.result.skipped else "done"
                    )
                    rows = ended.result.rows
                    results[plan.key] = replace(
                        plan, status=status, reason="", rows=rows, seconds=seconds
                    )
    finally:
        # Of workers that had to be killed; those that stopped by themselves left nothing.
        for plan in todo.values():
            drop_abandoned(plan.path)
            remove_leftovers(plan.path)
    return [results[video.key] for video in videos]


def _failed(plan: JobResult, reason: str, seconds: float) -> JobResult:
    log(f"failed: {plan.video}: {reason}")
    return replace(plan, status="failed", reason=reason, rows=0, seconds=seconds)


def _reason(error: VidkdError, video: VideoFile) -> str:
    """Put an error into words that follow the video's path."""
    if error.path in {str(video.path), video.path.name}:
        return f"{error.problem}; {error.remedy}" if error.remedy else error.problem
    return str(error)
