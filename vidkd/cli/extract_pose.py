"""``vidkd extract-pose``: people's poses into the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidkd.cli.extract import (
    Cache,
    Cluster,
    DryRun,
    Frames,
    Inputs,
    Overwrite,
    Root,
    Shard,
    SlurmParameters,
    executor,
    print_results,
)
from vidkd.cli.options import Device, Json, option, with_settings
from vidkd.recipe import PoseSettings


@with_settings
def extract_pose(
    inputs: Inputs,
    cache: Cache,
    frames: Frames,
    pose: PoseSettings,
    root: Root = None,
    detector: Annotated[
        str | None,
        option(
            "A detector of `vidkd models list`, or a run of `vidkd pose train`. Default: the "
            "small one that ships with vidkd.",
            "NAME|FILE",
        ),
    ] = None,
    poses: Annotated[
        Path | None, option("For --backend files: see docs/pose.md.", "DIR|FILE")
    ] = None,
    render: Annotated[
        Path | None, option("Also write videos with skeletons drawn over them.", "DIR")
    ] = None,
    device: Device = "auto",
    workers: Annotated[
        int | None, option("Videos at a time. Default: one per processor.", "VIDEOS", min=1)
    ] = None,
    shard: Shard = None,
    cluster: Cluster = "local",
    slurm: SlurmParameters = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Find people and their 13 joints in 2D and 3D, one row of the cache for each frame.

    Finished videos are skipped. Exit code 1 if some inputs failed; the others are done.
    """
    from vidkd.features import plan_jobs, run_jobs
    from vidkd.features import shard as part_of
    from vidkd.features.pose_video import render_all
    from vidkd.features.poses import pose_task
    from vidkd.machine import cores
    from vidkd.video import find_videos

    videos = part_of(find_videos(inputs, root), shard)
    task = pose_task(
        cache,
        frames,
        pose,
        detector=detector,
        poses=poses,
        device=device,
        overwrite=overwrite,
    )
    if dry_run:
        print_results(plan_jobs(videos, task), as_json, planned=True)
        return
    # A second process on one GPU would only wait for the first.
    number = workers or (1 if device.startswith("cuda") else cores())
    where = executor(cluster, slurm, workers, device, local=number)
    results = run_jobs(videos, task, executor=where)
    failed = render is not None and render_all(results, render, workers=number)
    print_results(results, as_json)
    if failed:
        raise typer.Exit(1)
