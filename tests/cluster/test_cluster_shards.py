"""Processes that share the work on one cache: nothing twice, nothing missing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slow_task import WaitingTask
from small_flow import FLOW, FRAMES, contents

from vidkd.cache import claim, claimed
from vidkd.errors import UsageError
from vidkd.features import FlowTask, run_jobs, shard
from vidkd.video import VideoFile


@given(st.sets(st.text(min_size=1), max_size=30), st.integers(1, 9), st.randoms())
def test_shards_divide_any_list_and_a_key_keeps_its_shard(keys, count, random) -> None:
    videos = [VideoFile(Path("v"), key) for key in keys]
    parts = [shard(videos, f"{number}/{count}") for number in range(1, count + 1)]
    assert Counter(item.key for part in parts for item in part) == Counter(keys)
    some = [video for video in videos if random.random() < 0.5]
    for number, part in enumerate(parts, start=1):
        assert shard(some, f"{number}/{count}") == [item for item in part if item in some]


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "1/0", "a/b", "-1/2"])
def test_what_is_no_shard_is_refused(part: str) -> None:
    with pytest.raises(UsageError, match="I/N"):
        shard([], part)


def test_a_claim_ends_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "flow" / "v.h5"
    with claim(path) as first, claim(path) as second:
        assert (first, second) == (True, False)
        assert claimed(path)
    assert not claimed(path)
    assert list(path.parent.iterdir()) == []
    if (child := os.fork()) == 0:
        with claim(path):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert not claimed(path)
    with claim(path) as own:
        assert own


def _extract(videos: list[VideoFile], cache: Path) -> None:
    run_jobs(videos, WaitingTask(cache, FRAMES, FLOW), workers=1)


@pytest.mark.slow
def test_two_runs_at_once_do_nothing_twice_and_one_takes_over_from_the_killed(
    videos: list[VideoFile], undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    folder, cache = tmp_path / "videos", tmp_path / "cache"
    spawn = multiprocessing.get_context("spawn")
    runs = [spawn.Process(target=_extract, args=(videos[:4], cache)) for _ in range(2)]
    for process in runs:
        process.start()
    while len(begun := list(folder.glob("*.begun"))) < 2:
        assert all(process.is_alive() for process in runs)
        time.sleep(0.05)
    # The worker of one run dies: its video fails there, and the other run may do it.
    os.kill(int(begun[0].name.split(".")[1]), signal.SIGKILL)
    (folder / "go").touch()
    for process in runs:
        process.join()
    first_four = {name: data for name, data in undisturbed.items() if name < "v4"}
    assert contents(cache) == first_four
    counts = Counter(item.name.split(".")[0] for item in folder.glob("*.begun"))
    dead = begun[0].name.split(".")[0]
    assert all(count == 1 for key, count in counts.items() if key != dead)
    for number in (1, 2, 3):
        run_jobs(shard(videos, f"{number}/3"), FlowTask(cache, FRAMES, FLOW))
    assert contents(cache) == undisturbed
