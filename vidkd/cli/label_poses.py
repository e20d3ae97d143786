"""``vidkd label-poses``: training labels for the pose detector from real video."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from vidkd.console import emit_json, emit_table
from vidkd.errors import UsageError


def label_poses(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help="Videos, folders, or .txt lists of videos."),
    ],
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Where labels.json and the pictures go.")
    ],
    labeller: Annotated[
        str,
        typer.Option(
            metavar="NAME|COMMAND",
            help="blazepose, or the command of a program that speaks the protocol of docs/pose.md.",
        ),
    ] = "blazepose",
    python: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Interpreter of the environment that has the labeller's libraries.",
        ),
    ] = None,
    frames_per_second: Annotated[
        float, typer.Option(min=0.01, max=100, help="Frames to label, by time.")
    ] = 2.0,
    short_side: Annotated[
        int | None,
        typer.Option(min=64, max=2160, help="Scale pictures to this. Default: as they are."),
    ] = None,
    max_people: Annotated[int, typer.Option(min=1, max=32, help="People per picture.")] = 4,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of the labeller's person detector.")
    ] = 0.5,
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder that names are relative to.")
    ] = None,
    keep_empty: Annotated[
        bool, typer.Option("--keep-empty", help="Keep frames in which nobody was found.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Label again what had other settings.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Label frames of video with another pose estimator, for `vidkd train-pose`.

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
    if as_json:
        emit_json([vars(result) for result in results])
    else:
        emit_table(
            str(output / "labels.json"),
            ("video", "state", "frames", "people"),
            [(item.key, item.status, item.frames, item.people) for item in results],
        )
    if any(result.status == "failed" for result in results):
        raise typer.Exit(1)
