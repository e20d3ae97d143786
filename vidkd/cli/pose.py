"""Train, convert and evaluate pose detectors."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from vidkd.cli.options import Command, Device, Json, argument, flag, option, with_settings
from vidkd.console import emit, progress
from vidkd.errors import UsageError
from vidkd.recipe.jobs import PoseTrainingJob

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.command(cls=Command)
@with_settings
def train(job: PoseTrainingJob, as_json: Json = False) -> None:
    """Train a pose detector; RUN then works as --detector of extract-pose.

    A finished run is left alone; an unfinished one goes on where it stopped.
    """
    from vidkd.pose.training import train_pose

    result = train_pose(job)
    rows = [
        (key, f"{value:.3f}" if isinstance(value, float) else value)
        for key, value in result.validation.items()
    ]
    rows = [("best epoch", f"{result.best_epoch} of {result.epochs}"), *rows]
    emit(result.to_json(), as_json, ("validation", result.name), rows, str(result.output))


@app.command(cls=Command)
def label(
    inputs: Annotated[
        list[Path], argument("Videos, folders, or .txt lists of videos.", "INPUT...")
    ],
    output: Annotated[Path, option("Where labels.json and the pictures go.", "DIR")],
    labeller: Annotated[
        str,
        option(
            "blazepose, or the command of a program that speaks the protocol of docs/pose.md.",
            "NAME|COMMAND",
        ),
    ] = "blazepose",
    python: Annotated[
        Path | None,
        option("Interpreter of the environment that has the labeller's libraries.", "FILE"),
    ] = None,
    frames_per_second: Annotated[
        float, option("Frames to label per second of video.", "FPS", min=0.01, max=100)
    ] = 2.0,
    short_side: Annotated[
        int | None,
        option(
            "Scale the shorter side of pictures to this. Default: no scaling.",
            "PIXELS",
            min=64,
            max=2160,
        ),
    ] = None,
    max_people: Annotated[int, option("Most people per picture.", "PEOPLE", min=1, max=32)] = 4,
    min_score: Annotated[
        float,
        option("Lowest score of a person in the labeller's detector.", "SCORE", min=0.0, max=1.0),
    ] = 0.5,
    root: Annotated[Path | None, option("Folder that names are relative to.", "DIR")] = None,
    keep_empty: Annotated[
        bool, flag("--keep-empty", "Keep frames in which nobody was found.")
    ] = False,
    overwrite: Annotated[
        bool, flag("--overwrite", "Label again what was labelled with other settings.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Label frames of video with another pose estimator, for `vidkd pose train`.

    Finished videos are skipped. Exit code 1 if some inputs failed; the others are done.
    """
    from vidkd.pose.labelling import LABELLERS, label_videos, labeller_command
    from vidkd.video import find_videos

    if labeller in LABELLERS:
        options = ["--max-people", str(max_people), "--min-score", str(min_score)]
        command = labeller_command(labeller, python, options)
    else:
        command = shlex.split(labeller)
        if python is not None:
            command = [str(python), *command]
        if not command:
            raise UsageError("--labeller names no program", remedy="name one, or give blazepose")
    results = label_videos(
        find_videos(inputs, root),
        output,
        command,
        frames_per_second=frames_per_second,
        short_side=short_side,
        keep_empty=keep_empty,
        overwrite=overwrite,
    )
    emit(
        [vars(result) for result in results],
        as_json,
        ("video", "state", "frames", "people"),
        [(item.key, item.status, item.frames, item.people) for item in results],
        str(output / "labels.json"),
    )
    if any(result.status == "failed" for result in results):
        raise typer.Exit(1)


@app.command(cls=Command)
def evaluate(
    data: Annotated[
        list[Path],
        option(
            "Labels of `vidkd pose label`, or a folder of `vidkd synth`; repeat it for more.",
            "DIR|labels.json",
        ),
    ],
    detector: Annotated[
        str | None,
        option(
            "A detector by name, or a run of `vidkd pose train`. Default: the one that ships with "
            "vidkd.",
            "NAME|FILE",
        ),
    ] = None,
    min_score: Annotated[
        float, option("Ignore people that the detector gives a lower score.", "SCORE")
    ] = 0.5,
    limit: Annotated[
        int | None,
        option("At most so many pictures of each source, evenly spread.", "PICTURES", min=1),
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare a pose detector with labels that it was not trained on."""
    from vidkd.pose.detector import load_pose_detector
    from vidkd.pose.labels import load_pictures, read_labels
    from vidkd.pose.metrics import evaluate_detector
    from vidkd.recipe.models import DEFAULT_DETECTOR

    network = load_pose_detector(detector or DEFAULT_DETECTOR, device)
    network.least_score = min_score
    results = {}
    for source in data:
        frames = read_labels(source)
        count = len(frames) if limit is None else min(limit, len(frames))
        chosen = [frames[number * len(frames) // count] for number in range(count)]
        pictures = ((frame.people, image) for frame, image in load_pictures(chosen))
        with progress("pose evaluate", count, "pictures") as advance:
            scores = evaluate_detector(network, pictures, advance)
        results[str(source)] = {"pictures": count, **scores.to_json()}
    names = list(next(iter(results.values())))
    emit(
        {"detector": network.name, "min_score": min_score, "results": results},
        as_json,
        ("", *results),
        [(name, *(_short(item[name]) for item in results.values())) for name in names],
        network.name,
    )


@app.command(cls=Command)
def convert(
    checkpoint: Annotated[
        Path, argument("Checkpoint of LCR-Net++ release v2, unpacked.", "CHECKPOINT")
    ],
    output: Annotated[Path, option("Where the detector is written.", "FILE.safetensors")],
    anchors: Annotated[Path | None, option("Anchor poses, if CHECKPOINT has none.", "FILE")] = None,
    upper: Annotated[int, option("Anchor poses of the upper body: 100 for K100x2.", "POSES")] = 0,
    name: Annotated[
        str | None, option("Name of the detector in caches. Default: that of FILE.", "NAME")
    ] = None,
) -> None:
    """Convert official weights of LCR-Net++; FILE then works as --detector.

    Written after the published layout, and not run on the original files.
    """
    if output.suffix != ".safetensors":
        raise UsageError(
            "is not a name of weights", path=output, remedy="let it end in .safetensors"
        )
    from vidkd.networks.lcrnet_converter import convert_lcrnet
    from vidkd.pose.detector import save_network

    network = convert_lcrnet(checkpoint, anchors, upper)
    about = {"origin": f"converted from {checkpoint.name}"}
    save_network(output, network, name or output.stem, about, half=False)
    typer.echo(output)


def _short(value: float) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
