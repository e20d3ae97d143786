"""``vidkd extract-pose``: people's poses into the cache."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vidkd.cli.extract import (
    Cache,
    DryRun,
    FrameRate,
    Inputs,
    Json,
    Overwrite,
    Root,
    ShortSide,
    print_plans,
    print_results,
)


class Source(StrEnum):
    """Where poses come from."""

    lcrnet = "lcrnet"
    files = "files"


def extract_pose(
    inputs: Inputs,
    cache: Cache,
    root: Root = None,
    detector: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="A detector of `vidkd models list`, or a run of `vidkd train-pose`. Default: the "
            "small one that ships with vidkd.",
        ),
    ] = None,
    backend: Annotated[
        Source, typer.Option(help="files: poses that another program has computed.")
    ] = Source.lcrnet,
    poses: Annotated[
        Path | None,
        typer.Option(metavar="DIR|FILE", help="For --backend files: see docs/pose.md."),
    ] = None,
    every: Annotated[
        int, typer.Option(help="Detect in every N-th frame; joints between are interpolated.")
    ] = 1,
    max_people: Annotated[int, typer.Option(help="People kept per frame.")] = 4,
    min_score: Annotated[
        float | None,
        typer.Option(
            help="People with a lower score are ignored. Default: 0.5, for --backend files 0."
        ),
    ] = None,
    max_gap: Annotated[
        float, typer.Option(help="Seconds for which a person may be missed; gaps are filled.")
    ] = 0.5,
    min_length: Annotated[float, typer.Option(help="Shorter tracks, in s, are dropped.")] = 0.5,
    smoothing: Annotated[
        float, typer.Option(help="Standard deviation, in s, of a Gaussian over time; 0: none.")
    ] = 0.0,
    short_side: ShortSide = 256,
    frame_rate: FrameRate = None,
    render: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write videos with skeletons drawn over them."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Videos at a time. Default: one per processor.")
    ] = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Find people and their 13 joints in 2D and 3D, one row of the cache for each frame.

    Finished videos are skipped. Exit code 1 if some inputs failed; the others are done.
    """
    from vidkd.features import plan_jobs, run_jobs
    from vidkd.features.pose import pose_task
    from vidkd.features.pose_video import render_all
    from vidkd.recipe import FrameSettings, PoseSettings, checked_settings
    from vidkd.video import find_videos
    from vidkd.workers import cores

    tracks = {
        "max_people": max_people,
        "max_gap": max_gap,
        "min_length": min_length,
        "smoothing": smoothing,
    }
    settings = checked_settings(
        PoseSettings, backend=backend.value, every=every, min_score=min_score, tracks=tracks
    )
    frames = checked_settings(FrameSettings, short_side=short_side, frame_rate=frame_rate)
    videos = find_videos(inputs, root)
    task = pose_task(
        cache,
        frames,
        settings,
        detector=detector,
        poses=poses,
        device=device,
        overwrite=overwrite,
    )
    if dry_run:
        print_plans(plan_jobs(videos, task), as_json)
        return
    # A second process on one GPU would only wait for the first.
    number = workers or (1 if device.startswith("cuda") else cores())
    results = run_jobs(videos, task, workers=number, overwrite=overwrite)
    failed = render is not None and render_all(results, render, workers=number)
    print_results(results, as_json)
    if failed:
        raise typer.Exit(1)
