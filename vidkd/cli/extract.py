"""``vidkd extract-flow`` and ``vidkd extract-features``: videos to the cache."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from vidkd.console import emit_json, emit_table, log
from vidkd.errors import UsageError

if TYPE_CHECKING:
    from vidkd.features import JobResult, Plan
    from vidkd.features.tasks import Task


class Backend(StrEnum):
    """Implementations of TV-L1."""

    auto = "auto"
    numba = "numba"
    opencv = "opencv"
    torch = "torch"


class Stream(StrEnum):
    """What snippets are made of."""

    rgb = "rgb"
    flow = "flow"
    pose = "pose"


class Precision(StrEnum):
    """Types of features on disk."""

    float16 = "float16"
    float32 = "float32"


class EncoderPrecision(StrEnum):
    """Arithmetic of an encoder."""

    auto = "auto"
    float32 = "float32"
    float16 = "float16"
    int8 = "int8"


Inputs = Annotated[
    list[Path],
    typer.Argument(metavar="INPUT...", help="Videos, folders, or .txt lists of videos."),
]
Cache = Annotated[Path, typer.Option("--cache", metavar="DIR", help="The cache folder.")]
Root = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder that names in the cache are relative to. Default: a folder given as INPUT, "
        "or the folder of a video.",
    ),
]
ShortSide = Annotated[int, typer.Option(help="Pixels of the shorter side after the resize.")]
FrameRate = Annotated[
    float | None,
    typer.Option(help="Frames per second, sampled by time. Default: the video's own frames."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Compute again what is stale or damaged.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only say what is done and what is to be done.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        min=1,
        metavar="SECONDS",
        help="Give a video up when nothing came of it for so long. Default: 600, and 1 more for "
        "each 10 MB of the file.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def extract_flow(
    inputs: Inputs,
    cache: Cache,
    root: Root = None,
    short_side: ShortSide = 256,
    frame_rate: FrameRate = None,
    backend: Annotated[
        Backend,
        typer.Option(help="TV-L1 implementation. auto: torch if the device is cuda, else numba."),
    ] = Backend.auto,
    bound: Annotated[float, typer.Option(help="Pixels at which flow is clipped.")] = 20.0,
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Videos at a time. Default: one per processor; one on a GPU."),
    ] = None,
    time_limit: TimeLimit = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Compute TV-L1 optical flow into the cache, one row of 8-bit flow for each frame.

    Finished videos are skipped. Exit code 1 if some inputs failed; the others are done.
    """
    from vidkd.features import FlowTask, plan_jobs, run_jobs
    from vidkd.recipe import FlowSettings, FrameSettings, checked_settings
    from vidkd.video import find_videos
    from vidkd.workers import cores

    frames = checked_settings(FrameSettings, short_side=short_side, frame_rate=frame_rate)
    place = _flow_device(backend, device)
    flow = checked_settings(FlowSettings, backend=backend.value, bound=bound)
    videos = find_videos(inputs, root)
    task = FlowTask(cache, frames, flow, overwrite, device=place)
    if dry_run:
        print_plans(plan_jobs(videos, task, time_limit=time_limit), as_json)
    else:
        number = workers or (1 if place.startswith("cuda") else cores())
        results = run_jobs(videos, task, workers=number, overwrite=overwrite, time_limit=time_limit)
        print_results(results, as_json)


def extract_features(
    inputs: Inputs,
    cache: Cache,
    modality: Annotated[
        Stream,
        typer.Option(
            help="flow needs extract-flow first (or --no-flow-cache), and pose extract-pose."
        ),
    ],
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A model of `vidkd models list`, or a run of `vidkd train-encoder`. Default: "
            "i3d-rgb-kinetics400; for flow i3d-flow-imagenet if it was fetched, else "
            "i3d-flow-inflated; none for pose.",
        ),
    ] = None,
    root: Root = None,
    short_side: ShortSide = 256,
    frame_rate: FrameRate = None,
    stride: Annotated[int, typer.Option(help="Frames from one snippet to the next.")] = 16,
    crop: Annotated[int, typer.Option(help="Side of the square the encoder sees.")] = 224,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Snippets at a time. Default: by the device.")
    ] = None,
    dtype: Annotated[
        Precision, typer.Option(help="Type of the features on disk.")
    ] = Precision.float16,
    precision: Annotated[
        EncoderPrecision,
        typer.Option(
            help="Of the encoder's arithmetic. int8 takes NAME-int8 of `vidkd models quantise`, "
            "on a CPU; float16 is for GPUs; auto takes the encoder as it is."
        ),
    ] = EncoderPrecision.auto,
    device: Device = "auto",
    no_flow_cache: Annotated[
        bool,
        typer.Option(
            "--no-flow-cache", help="Compute flow and its features in one pass; keep no flow."
        ),
    ] = False,
    backend: Annotated[
        Backend | None, typer.Option(help="TV-L1 of --no-flow-cache, as in extract-flow.")
    ] = None,
    bound: Annotated[
        float | None, typer.Option(help="Bound of --no-flow-cache, as in extract-flow.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Videos at a time.")] = 1,
    time_limit: TimeLimit = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Encode snippets of 16 frames into the cache: features (T, D) and their times.

    D is 1024 for rgb and flow; for pose, which needs neither --short-side nor --crop, 512.
    Finished videos are skipped. Exit code 1 if some inputs failed; the others are done.
    """
    from vidkd.features import feature_task, plan_jobs, run_jobs
    from vidkd.features.pose_features import pose_feature_task
    from vidkd.networks import ensure_weights
    from vidkd.recipe import FlowSettings, FrameSettings, SnippetSettings, checked_settings
    from vidkd.video import find_videos

    frames = checked_settings(FrameSettings, short_side=short_side, frame_rate=frame_rate)
    snippet = checked_settings(SnippetSettings, stride=stride)
    videos = find_videos(inputs, root)
    given = {"backend": backend and backend.value, "bound": bound}
    flow = {name: value for name, value in given.items() if value is not None}
    if no_flow_cache and modality is not Stream.flow:
        raise UsageError(
            f"features of {modality.value} need no flow", remedy="leave out --no-flow-cache"
        )
    if flow and not no_flow_cache:
        raise UsageError(
            "--backend and --bound say how flow is computed, and this call computes none",
            remedy="give them to extract-flow, or give --no-flow-cache too",
        )
    task: Task
    if modality is Stream.pose:
        if precision is not EncoderPrecision.auto:
            raise UsageError("features of pose have no --precision", remedy="leave it out")
        task = pose_feature_task(
            cache,
            encoder or _no_encoder(),
            frames,
            snippet,
            batch_size,
            dtype.value,
            device=device,
            overwrite=overwrite,
        )
    else:
        name = encoder or _default_encoder(modality)
        ensure_weights(name)
        task = feature_task(
            cache,
            "flow" if modality is Stream.flow else "rgb",
            name,
            frames,
            snippet,
            crop,
            batch_size,
            dtype.value,
            device=device,
            precision=precision.value,
            flow=checked_settings(FlowSettings, **flow) if no_flow_cache else None,
            flow_cache=not no_flow_cache,
            overwrite=overwrite,
        )
    if dry_run:
        print_plans(plan_jobs(videos, task, time_limit=time_limit), as_json)
    else:
        results = run_jobs(
            videos, task, workers=workers, overwrite=overwrite, time_limit=time_limit
        )
        print_results(results, as_json)


def _flow_device(backend: Backend, device: str) -> str:
    """Return where flow is computed, without the import of torch where it is not needed."""
    if backend in {Backend.numba, Backend.opencv}:
        return "cpu"
    from vidkd.networks import select_device

    return str(select_device(device))


def _no_encoder() -> NoReturn:
    raise UsageError(
        "there is no pose encoder to begin with",
        remedy="train one with `vidkd train-encoder --modality pose` and name it by --encoder",
    )


def _default_encoder(modality: Stream) -> str:
    from vidkd.networks.zoo import DEFAULT_ENCODER, find_card, weights_path

    if modality is Stream.rgb:
        return DEFAULT_ENCODER
    if weights_path(find_card("i3d-flow-imagenet")).is_file():
        return "i3d-flow-imagenet"
    log(
        "i3d-flow-imagenet was not fetched; using i3d-flow-inflated, whose weights are inflated "
        "from RGB (see `vidkd models fetch i3d-flow-imagenet`)"
    )
    return "i3d-flow-inflated"


def print_results(results: Sequence[JobResult], as_json: bool) -> None:
    """Print what became of every video; exit with 1 if one failed."""
    if as_json:
        emit_json(
            [
                {
                    "key": result.key,
                    "video": str(result.video),
                    "path": str(result.path),
                    "state": result.status,
                    "rows": result.rows,
                    "seconds": round(result.seconds, 3),
                    "reason": result.reason,
                }
                for result in results
            ]
        )
    else:
        emit_table(
            "",
            ("video", "state", "rows", "seconds"),
            [(item.key, item.status, item.rows, f"{item.seconds:.1f}") for item in results],
        )
    if any(result.status == "failed" for result in results):
        raise typer.Exit(1)


def print_plans(plans: Sequence[Plan], as_json: bool) -> None:
    """Print what is done and what is to be done; exit with 1 if an input is no good."""
    if as_json:
        emit_json(
            [
                {
                    "key": plan.video.key,
                    "video": str(plan.video.path),
                    "path": str(plan.path),
                    "state": plan.state,
                    "rows": plan.rows,
                    "reason": plan.reason,
                }
                for plan in plans
            ]
        )
    else:
        emit_table(
            "",
            ("video", "state", "rows", "reason"),
            [(plan.video.key, plan.state, plan.rows, plan.reason) for plan in plans],
        )
    if any(plan.state == "failed" for plan in plans):
        raise typer.Exit(1)
