"""Extraction on Ray clusters of several nodes in one machine, one of which is killed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from slow_stream import Load, WaitingRGB
from slow_task import WaitingTask
from small_flow import FLOW, FRAMES, contents

from vidkd.cluster import executor_for
from vidkd.errors import UsageError, VideoError
from vidkd.features import FeatureSettings, feature_task, run_jobs
from vidkd.recipe import SnippetSettings
from vidkd.video import VideoFile
from vidkd.workers import Report

ray = pytest.importorskip("ray")


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        yield started
    finally:
        ray.shutdown()
        started.shutdown()


def misbehave(job: str, report: Report, threads: int) -> str:
    if job == "refuses":
        raise VideoError("has no frames", path="x.mp4", remedy="check it")
    if job == "is deaf":
        report(1)
        time.sleep(1000)
    if job == "exits":
        import os

        os._exit(3)
    report(2)
    return job.upper()


@pytest.mark.slow
def test_a_node_is_killed_and_everything_is_done(
    cluster: Any, videos: list[VideoFile], undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    folder = tmp_path / "videos"
    (folder / "text.mp4").write_text("text")
    everything = [*videos, VideoFile(folder / "text.mp4", "text")]

    def disturb() -> None:
        while len(list(folder.glob("*.begun"))) < 2:
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)  # SIGKILL
        (folder / "go").touch()

    thread = threading.Thread(target=disturb, daemon=True)
    thread.start()
    where = executor_for(cluster.address, None, local=1)
    results = run_jobs(everything, WaitingTask(tmp_path / "c", FRAMES, FLOW), executor=where)
    thread.join()
    assert [item.status for item in results[:-1]] == ["done"] * 8
    assert results[-1].status == "failed"
    assert contents(tmp_path / "c") == undisturbed

    # On the node that is left: errors are collected, and what kills or hangs ends alone.
    progress: list[float] = []
    jobs = ["a", "refuses", "exits", "is deaf", "b"]
    ended = {
        item.job: item
        for item in where.run(jobs, misbehave, advance=progress.append, silence=lambda job: 3.0)
    }
    assert ended.keys() == set(jobs)
    assert [ended[name].result for name in "ab"] == ["A", "B"]
    assert isinstance(ended["refuses"].error, VideoError)
    assert "3 workers of the Ray cluster died" in str(ended["exits"].error)
    assert "no sign of life" in str(ended["is deaf"].error)
    assert sum(progress) == 5


@pytest.mark.slow
def test_a_gpu_is_fed_by_other_nodes_of_which_one_is_killed(
    videos: list[VideoFile], tmp_path: Path
) -> None:
    from ray.cluster_utils import Cluster

    # The "GPU" stands for a place; what is computed there is computed on the processor.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 1})
    try:
        second, _ = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        folder = tmp_path / "videos"
        (folder / "text.mp4").write_text("text")
        settings = FeatureSettings(
            *(WaitingRGB(), "mean", FRAMES, SnippetSettings(length=8, stride=1)),
            crop=32,
            batch_size=2,
        )

        def extract(cache: str, **where: Any) -> dict[str, bytes]:
            (tmp_path / f"{cache}-loads").mkdir()
            task = feature_task(tmp_path / cache, settings, load=Load(tmp_path / f"{cache}-loads"))
            everything = [*videos, VideoFile(folder / "text.mp4", "text")]
            results = run_jobs(everything, task, **where)
            assert [item.status for item in results] == ["done"] * 8 + ["failed"]
            made = (tmp_path / cache / "features" / "mean").iterdir()
            return {path.name: path.read_bytes() for path in made}

        def disturb() -> None:
            while len(list(folder.glob("*.begun"))) < 2:
                time.sleep(0.05)
            cluster.remove_node(second, allow_graceful=False)  # SIGKILL
            (folder / "go").touch()

        thread = threading.Thread(target=disturb, daemon=True)
        thread.start()
        fed = extract("fed", executor=executor_for(cluster.address, None, local=1, gpu=True))
        thread.join()
        makers = {item.name.split(".")[1] for item in folder.glob("*.begun")}
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert fed == extract("alone", workers=1)
    # The actor loaded once, for all videos, and made no batches itself.
    loads = {item.stem: item.read_text() for item in (tmp_path / "fed-loads").iterdir()}
    (actor,) = loads.keys() - {str(os.getpid())}
    assert loads[actor].count("loaded") == 1
    assert actor not in makers
    assert len(makers) >= 2


def test_what_is_no_cluster_is_told() -> None:
    with pytest.raises(UsageError, match="no cluster 'rai'"):
        executor_for("rai", None, local=1)
    with pytest.raises(UsageError, match="--cluster slurm"):
        executor_for("local", None, local=1, slurm={"time": "1"})
