"""``vidkd extract-flow`` and ``vidkd extract-features``: videos to the cache."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidkd.cli.options import (
    BatchSize,
    Crop,
    Device,
    EncoderPrecision,
    Fields,
    Json,
    argument,
    flag,
    option,
    with_settings,
)
from vidkd.console import emit
from vidkd.errors import UsageError
from vidkd.recipe import FlowSettings, FrameSettings, SnippetSettings
from vidkd.recipe.choices import FeatureType

if TYPE_CHECKING:
    from vidkd.cluster import Executor
    from vidkd.features import JobResult, Task

Inputs = Annotated[list[Path], argument("Videos, folders, or .txt lists of videos.", "INPUT...")]
Cache = Annotated[Path, option("The cache folder.", "DIR", names=("--cache",))]
Root = Annotated[
    Path | None,
    option(
        "Folder that names in the cache are relative to. Default: a folder given as INPUT, or the "
        "folder of a video.",
        "DIR",
    ),
]
Frames = Annotated[FrameSettings, Fields(without=("resize",))]
OF_CARD = Fields(without=("resize",), decided_by="that of the encoder's card")
Flow = Annotated[FlowSettings, Fields(without=("codec",))]
Overwrite = Annotated[bool, flag("--overwrite", "Compute again what is stale or damaged.")]
DryRun = Annotated[bool, flag("--dry-run", "Only show what is done and what is left to do.")]
TimeLimit = Annotated[
    float | None,
    option(
        "Give up a video that has made no progress for so long. Default: 600, and 1 more for each "
        "10 MB of the file.",
        "SECONDS",
        min=1,
    ),
]
Shard = Annotated[
    str | None,
    option(
        "Do only the I-th of N parts of the videos, for N processes or machines that write into "
        "one cache.",
        "I/N",
    ),
]
Cluster = Annotated[
    str,
    option(
        "Where to work: processes of this machine, a Ray cluster (that of RAY_ADDRESS, the one "
        "running here, or ray://HOST:PORT), or an array of SLURM tasks.",
        "local|ray|slurm|ADDRESS",
    ),
]
SlurmParameters = Annotated[
    list[str] | None,
    option("For --cluster slurm: an option of sbatch.", "NAME=VALUE", names=("--slurm",)),
]


def executor(
    cluster: str, slurm: Sequence[str] | None, workers: int | None, device: str, local: int
) -> Executor:
    """Return what does the work where the options say."""
    from vidkd.cluster import executor_for

    pairs = [item.partition("=") for item in slurm or ()]
    if wrong := [name for name, _, value in pairs if not name or not value]:
        raise UsageError(f"--slurm {wrong[0]} has no value", remedy="give NAME=VALUE")
    parameters = {name: value for name, _, value in pairs}
    if cluster != "local" and device == "auto":
        from vidkd.networks import device_name

        device = device_name(device)
    return executor_for(
        cluster, workers, local=local, gpu=device.startswith("cuda"), slurm=parameters
    )


def _streams(incomplete: str) -> list[str]:
    from vidkd.streams import STREAMS

    return [name for name in STREAMS if name.startswith(incomplete)]


@with_settings
def extract_flow(
    inputs: Inputs,
    cache: Cache,
    frames: Frames,
    flow: Flow,
    root: Root = None,
    device: Device = "auto",
    workers: Annotated[
        int | None,
        option("Videos at a time. Default: one per processor; one on a GPU.", "VIDEOS", min=1),
    ] = None,
    shard: Shard = None,
    cluster: Cluster = "local",
    slurm: SlurmParameters = None,
    time_limit: TimeLimit = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Compute TV-L1 optical flow into the cache, one row of 8-bit flow for each frame.

    Finished videos are skipped. Exit code 1 if some inputs failed; the others are done.
    """
    from vidkd.features import FlowTask
    from vidkd.machine import cores

    place = _flow_device(flow, device)
    task = FlowTask(cache, frames, flow, place, overwrite)
    where = executor(
        cluster, slurm, workers, place, local=1 if place.startswith("cuda") else cores()
    )
    _run(inputs, root, shard, task, where, time_limit, dry_run, as_json)


@with_settings
def extract_features(
    inputs: Inputs,
    cache: Cache,
    modality: Annotated[
        str,
        option(
            "What the encoder sees: rgb, flow (needs extract-flow first, or --no-flow-cache), "
            "pose (needs extract-pose), rgb-difference, or a stream of another package.",
            "STREAM",
            autocompletion=_streams,
        ),
    ],
    frames: Annotated[FrameSettings, OF_CARD],
    snippet: Annotated[SnippetSettings, OF_CARD],
    flow: Flow,
    encoder: Annotated[
        str | None,
        option(
            "A model of `vidkd models list`, or a run of `vidkd train-encoder`. Default: "
            "i3d-rgb-kinetics400; for flow i3d-flow-imagenet if it was fetched, else "
            "i3d-flow-inflated; none for pose.",
            "NAME",
        ),
    ] = None,
    root: Root = None,
    crop: Crop = None,
    batch_size: BatchSize = None,
    dtype: Annotated[FeatureType, option("Type of the features on disk.")] = "float16",
    precision: EncoderPrecision = "auto",
    device: Device = "auto",
    no_flow_cache: Annotated[
        bool,
        flag(
            "--no-flow-cache",
            "Compute flow (with --backend and --bound) and its features in one pass; keep no flow.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        option(
            "Videos at a time. Default: 1; on a cluster as many as it has room for.",
            "VIDEOS",
            min=1,
        ),
    ] = None,
    shard: Shard = None,
    cluster: Cluster = "local",
    slurm: SlurmParameters = None,
    time_limit: TimeLimit = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Encode the snippets of videos into the cache: features (T, D) and their times.

    The encoder's card says what a snippet is, and D: 16 frames and 1024 for I3D (docs/models.md).
    Finished videos are skipped. Exit code 1 if some inputs failed; the others are done.
    """
    from vidkd.cluster import LocalPool

    where = executor(cluster, slurm, workers, device, local=1)
    with contextlib.ExitStack() as stack:
        if isinstance(where, LocalPool) and not dry_run:
            # What takes a worker a second, while this process looks at the encoder and the videos.
            where = stack.enter_context(where.begun("vidkd.features", "vidkd.networks.zoo"))
        from vidkd.features import FeatureSettings, feature_task
        from vidkd.streams import STREAMS

        if flow.model_fields_set and not no_flow_cache:
            raise UsageError(
                "--backend and --bound say how flow is computed, and this call computes none",
                remedy="give them to extract-flow, or give --no-flow-cache too",
            )
        stream = STREAMS[modality]
        stream = stream.configured(flow if no_flow_cache else None, not no_flow_cache)
        name = encoder or stream.default_encoder()
        stream.fetch_encoder(name)
        settings = FeatureSettings(
            stream, name, frames, snippet, crop, batch_size, dtype, precision, device
        )
        task = feature_task(cache, settings, overwrite=overwrite)
        _run(inputs, root, shard, task, where, time_limit, dry_run, as_json)


def _flow_device(flow: FlowSettings, device: str) -> str:
    """Return where flow is computed, without the import of torch where it is not needed."""
    if flow.backend in {"numba", "opencv"}:
        return "cpu"
    from vidkd.networks import device_name

    return device_name(device)


def _run(
    inputs: Sequence[Path],
    root: Path | None,
    part: str | None,
    task: Task,
    executor: Executor,
    time_limit: float | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Do a task with every video, or say what it would do."""
    from vidkd.features import plan_jobs, run_jobs, shard
    from vidkd.video import find_videos

    videos = shard(find_videos(inputs, root), part)
    if dry_run:
        print_results(plan_jobs(videos, task, time_limit=time_limit), as_json, planned=True)
    else:
        results = run_jobs(videos, task, time_limit=time_limit, executor=executor)
        print_results(results, as_json)


def print_results(results: Sequence[JobResult], as_json: bool, *, planned: bool = False) -> None:
    """Print what became, or is to become, of every video; exit with 1 if one failed."""
    data = [
        {
            "key": item.key,
            "video": str(item.video),
            "path": str(item.path),
            "state": item.status,
            "rows": item.rows,
            **({} if planned else {"seconds": round(item.seconds, 3)}),
            "reason": item.reason,
        }
        for item in results
    ]
    rows = [
        (item.key, item.status, item.rows, item.reason if planned else f"{item.seconds:.1f}")
        for item in results
    ]
    emit(data, as_json, ("video", "state", "rows", "reason" if planned else "seconds"), rows)
    if any(item.status == "failed" for item in results):
        raise typer.Exit(1)
