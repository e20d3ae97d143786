"""``vidkd synth``: the rendered data set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from vidkd.console import emit_json, emit_table
from vidkd.errors import UsageError
from vidkd.files import cores
from vidkd.recipe import SynthSettings, describe


def synth(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the data set.")],
    videos: Annotated[int, typer.Option(help="How many videos.")] = 60,
    seconds: Annotated[float, typer.Option(help="Length of each.")] = 24.0,
    size: Annotated[str, typer.Option(metavar="WxH", help="Pixels.")] = "320x240",
    frame_rate: Annotated[float, typer.Option(help="Frames per second.")] = 12.5,
    seed: Annotated[int, typer.Option(help="Another seed, another data set.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Videos rendered at once.")] = cores(),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Render people who act, with exact annotations, subsets and 2D and 3D poses."""
    match = re.fullmatch(r"(\d+)x(\d+)", size)
    if match is None:
        raise UsageError(f"{size!r} is not a size", remedy="give such as --size 320x240")
    try:
        settings = SynthSettings(
            videos=videos,
            seconds=seconds,
            width=int(match[1]),
            height=int(match[2]),
            frame_rate=frame_rate,
            seed=seed,
        )
    except ValidationError as error:
        raise UsageError("these settings make no sense", remedy=describe(error)) from error
    from vidkd.annotations import load_annotations
    from vidkd.synth import render_dataset

    path = render_dataset(output, settings, workers)
    truth = load_annotations(path)
    counts = {
        label: sum(s.label == label for v in truth.videos.values() for s in v.segments)
        for label in truth.classes
    }
    subsets = {
        name: sum(video.subset == name for video in truth.videos.values())
        for name in ("training", "validation", "testing")
    }
    if as_json:
        emit_json({"annotations": str(path), "subsets": subsets, "segments": counts})
        return
    emit_table(str(output), ("class", "segments"), list(counts.items()))
    emit_table("", ("subset", "videos"), list(subsets.items()))
